"""GGUF's ``gpt2`` kind of tokenizer: byte-level BPE, and how each named pre-tokenizer cuts text before it.

Splitting text in another way than the model was trained with gives other tokens, which nobody would notice but in the
quality. So the names below are read, each with the pattern of its family's own tokenizer.json, and any other is
refused; ``default`` too, since it says of a file that its maker did not know.

Source: llm_tokenizer_bpe in src/llama-vocab.cpp of https://github.com/ggml-org/llama.cpp, which quotes the patterns
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

CONTRACTIONS = "'s|'t|'re|'ve|'m|'ll|'d"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SLASHED_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
BEFORE = r"[^\r\n\p{L}\p{N}]?"  # one space or sign stays with the word after it
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"

CL100K = rf"(?i:{CONTRACTIONS})|{BEFORE}\p{{L}}+|\p{{N}}{{1,3}}{REST}"
QWEN2 = rf"(?i:{CONTRACTIONS})|{BEFORE}\p{{L}}+|\p{{N}}{REST}"
TEKKEN = rf"{BEFORE}{UPPER}*{LOWER}+|{BEFORE}{UPPER}+{LOWER}*|\p{{N}}{SLASHED_REST}"
O200K = (
    rf"{BEFORE}{UPPER}*{LOWER}+(?i:{CONTRACTIONS})?|{BEFORE}{UPPER}+{LOWER}*(?i:{CONTRACTIONS})?|\p{{N}}{{1,3}}"
    rf"{SLASHED_REST}"
)
DEEPSEEK_CODER = ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+")


@dataclass(frozen=True)
class PreTokenizer:
    """How one family cuts text into words."""

    patterns: Sequence[str] = ()
    """Each cuts further what the ones before left whole; what lies between matches is a word too."""
    single_digits: bool = False
    has_gpt2_words: bool = False
    """GPT-2's own pattern, which the tokenizers package has built in, after the others."""
    composes: bool = False
    """Whether text is brought to Unicode's composed form (NFC) first."""
    takes_whole_words: bool = False
    """Whether a word that is a token stands for itself, whatever its merges would give."""
    adds_bos: bool = False
    """Whether texts begin with bos where the file does not say."""


PRE_TOKENIZERS: Mapping[str, PreTokenizer] = {
    "smollm": PreTokenizer(single_digits=True, has_gpt2_words=True),
    "gpt-2": PreTokenizer(has_gpt2_words=True),
    "llama-bpe": PreTokenizer((CL100K,), takes_whole_words=True, adds_bos=True),
    "llama3": PreTokenizer((CL100K,), takes_whole_words=True, adds_bos=True),
    "llama-v3": PreTokenizer((CL100K,), takes_whole_words=True, adds_bos=True),
    "dbrx": PreTokenizer((CL100K,)),  # phi 4
    "gpt-4o": PreTokenizer((O200K,)),  # phi 4 mini
    "qwen2": PreTokenizer((QWEN2,), composes=True),
    "tekken": PreTokenizer((TEKKEN,), takes_whole_words=True, adds_bos=True),
    "deepseek-coder": PreTokenizer(DEEPSEEK_CODER, single_digits=True),
}


def byte_level_tokenizer(how: PreTokenizer, ids: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> Tokenizer:
    """BPE over bytes, in words that are cut as ``how`` says.

    Args:
        ids: each token, in GPT-2's spelling of bytes as letters, to its number.
        merges: pairs of tokens whose union is a token, the first to be merged first.
    """
    backend = Tokenizer(models.BPE(vocab=dict(ids), merges=list(merges), ignore_merges=how.takes_whole_words))
    if how.composes:
        backend.normalizer = normalizers.NFC()
    steps: list[pre_tokenizers.PreTokenizer] = [
        pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in how.patterns
    ]
    if how.single_digits:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=how.has_gpt2_words))
    backend.pre_tokenizer = steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(steps)
    backend.decoder = decoders.ByteLevel()
    return backend
