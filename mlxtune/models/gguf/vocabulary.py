"""A tokenizer as a GGUF file's metadata: the way back of tokenizer.py, by the same tables.

What is written is what training tokenized with, the tokenizer as it is open, and not some file beside it. GGUF names
how text is cut instead of saying it, so the name is found by trying each that is known; then a tokenizer is made of
the metadata again, and has to give the same ids for texts on which tokenizers go wrong. The price is building a
vocabulary twice: seconds for the largest.
"""

import json
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from tokenizers import Tokenizer

from mlxtune.errors import ModelError
from mlxtune.models.gguf.byte_level import PRE_TOKENIZERS, byte_level_tokenizer
from mlxtune.models.gguf.tokenizer import PLAIN_ENDS, write_gguf_tokenizer
from mlxtune.models.sentencepiece_tokenizer import BYTES, SPACE, PieceType

PROBES = (
    *(
        "",
        " ",
        "  ",
        "\t",
        "\n",
        "\n\n",
        " \n ",
        "\r\n",
        "hello",
        " hello",
        "hello ",
        "hello   world",
        "    x",
        "x" * 300,
    ),
    "I'll say it's what they've done, don't you'd",
    "I'LL SAY IT'S WHAT THEY'VE DONE",
    "0123456789 1234567 3.14159 1,000,000 2024-11-25 ١٢٣ ½ Ⅷ x²",
    "def add(a, b):\n    if a:\n\t\treturn a + b  # sum\n\n\n",
    "café cafe\u0301 naïve n\u0303 über Straße İstanbul ΑΒΓ привет",
    "नमस्ते สวัสดี 日本語の文章。中文句子\uff0c한국어 مرحبا שלום",
    "🙂 👩\u200d👩\u200d👧 🇩🇪 👍🏽 \U0001d54f",
    "zero\u200bwidth and\u00a0no-break\u3000spaces \ufeff \x01\x1b[0m \x7f",
    "https://example.org/a?b=c&d=%20#e !!! ... --- ??? ((( ))) <|im_start [INST] <0x41>",
    '{"key": [1, 2.5e-3, null, true]} $x^2 + \\frac{1}{2}$ snake_case camelCase SCREAMING-KEBAB',
)
"""What a tokenizer made of the metadata has to cut as the one it was made from."""

PHI_3_TOKENS = {"</s>", *PLAIN_ENDS}
SPECIALS_TRIED = 4
KEPT_ENDS = ("eos", "eot", "eom")
"""The places that GGUF has for tokens that end an answer."""


def make_vocabulary(
    tokenizer: Any, metadata: Mapping[str, Any], *, rows: int, ends: Iterable[int], where: Path
) -> tuple[dict[str, Any], list[str]]:
    """The tokenizer's part of the metadata, chat template included, and what of it does not hold everywhere.

    The model's name is part of it: by that alone llama.cpp knows a tokenizer whose special tokens swallow spaces.

    Args:
        tokenizer: mlx_lm's wrapper around the model's own.
        metadata: the network's, as `make_metadata` gives them, and ``general.name``.
        rows: of the vocabulary matrix; each gets a token.
        ends: the ids of all tokens that end an answer.

    Raises: ModelError, if GGUF cannot say what the tokenizer does.
    """
    made = _Vocabulary(tokenizer, rows, where)
    name = metadata["general.architecture"]
    kind = made.sentencepiece() if made.is_sentencepiece else made.byte_level()
    plain = {"tokens": made.tokens, "token_type": [int(one) for one in made.types]}
    ggml = {f"tokenizer.ggml.{key}": value for key, value in (kind | plain | made.named(ends)).items()}
    ggml["general.name"] = made.name(metadata["general.name"])
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if template:
        ggml["tokenizer.chat_template"] = template
    notes = _differences(made, dict(metadata) | ggml, name)
    if left := sorted(set(ends) - {ggml.get(f"tokenizer.ggml.{key}_token_id") for key in KEPT_ENDS}):
        notes.append(f"GGUF has no place for {len(left)} more tokens that end an answer: {left}")
    return ggml, notes


class _Vocabulary:
    """An open tokenizer, taken apart."""

    def __init__(self, tokenizer: Any, rows: int, where: Path) -> None:
        self.tokenizer, self.where = tokenizer, where
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            self.refuse("the tokenizer is not one of the tokenizers package")
        self.backend: Tokenizer = backend
        self.parts = json.loads(backend.to_str())
        if self.parts["model"]["type"] != "BPE":
            self.refuse(f"the tokenizer is of the kind {self.parts['model']['type']}, not BPE")
        self.is_sentencepiece = "ByteLevel" not in json.dumps(self.parts["pre_tokenizer"])
        self.added = backend.get_added_tokens_decoder()
        self.unknown: str | None = self.parts["model"].get("unk_token")
        # A token beyond the rows, such as Gemma 3's for images, is one that the network cannot read.
        ids = {text: i for text, i in backend.get_vocab(with_added_tokens=True).items() if i < rows}
        texts = {i: text for text, i in ids.items()}
        self.merged = {left + right for left, right in self.merges()}
        self.types = [self._type(i, texts.get(i)) for i in range(rows)]
        self.tokens = [texts.get(i, f"[PAD{i}]") for i in range(rows)]
        if self.is_sentencepiece:  # GGUF has a user's own pieces as they stand in a text
            own = PieceType.USER_DEFINED
            self.tokens = [
                t.replace(SPACE, " ") if k is own else t for t, k in zip(self.tokens, self.types, strict=True)
            ]
        if len(set(self.tokens)) != rows:
            self.refuse("the tokenizer has two tokens of one spelling, or one that is spelled like a gap")

    def refuse(self, what: str) -> NoReturn:
        raise ModelError(what, where=self.where, remedy="serve the MLX folder that fuse writes instead")

    def _type(self, number: int, text: str | None) -> PieceType:
        if text is None:
            return PieceType.UNUSED
        if self.is_sentencepiece and text == self.unknown:
            return PieceType.UNKNOWN
        if (added := self.added.get(number)) is not None:
            if added.special:
                return PieceType.CONTROL
            # Sentencepiece's spelling of spaces is in no text: merges make such a token, if anything does.
            return PieceType.NORMAL if self.is_sentencepiece and SPACE in text else PieceType.USER_DEFINED
        if self.is_sentencepiece and text in BYTES:
            return PieceType.BYTE
        # sentencepiece_tokenizer.py has such pieces as words that are found whole, since no merges make them
        is_own = self.is_sentencepiece and self.parts["model"].get("ignore_merges") and len(text) > 1
        return PieceType.USER_DEFINED if is_own and text not in self.merged else PieceType.NORMAL

    def name(self, name: str) -> str:
        """The model's name, with Phi 3's in it where, and only where, llama.cpp is to strip as for Phi 3: on other
        vocabularies it would do so too, or look for tokens that are not there, and fail.
        """
        strips = self.is_sentencepiece and any(token.special and token.rstrip for token in self.added.values())
        if not (strips and set(self.tokens) >= PHI_3_TOKENS):
            return re.sub("phi-?3", "phi", name, flags=re.IGNORECASE)
        return name if re.search("phi-?3", name, re.IGNORECASE) else f"Phi-3 {name}"

    def merges(self) -> list[tuple[str, str]]:
        pairs = (one.split(" ") if isinstance(one, str) else one for one in self.parts["model"]["merges"])
        return [(left, right) for left, right in pairs]

    def byte_level(self) -> dict[str, Any]:
        merges = self.merges()
        return {"model": "gpt2", "pre": self._pre(), "merges": [f"{left} {right}" for left, right in merges]}

    def _pre(self) -> str:
        """The name of the first known way to cut text that cuts the probes as this tokenizer does."""
        takes_whole_words = bool(self.parts["model"].get("ignore_merges"))
        mine = [_cut(self.backend, text) for text in PROBES]
        for name, how in PRE_TOKENIZERS.items():
            candidate = byte_level_tokenizer(how, {}, [])
            if how.takes_whole_words == takes_whole_words and mine == [_cut(candidate, text) for text in PROBES]:
                return name
        known = ", ".join(PRE_TOKENIZERS)
        return self.refuse(f"text is cut into words in a way that GGUF has no known name for ({known})")

    def sentencepiece(self) -> dict[str, Any]:
        """The score of a piece is minus the place of the first merge that makes it: the best may merge first."""
        places: dict[str, int] = {}
        for left, right in self.merges():
            places.setdefault(left + right, len(places))
        scores = [-float(places.get(token, len(places) + i)) for i, token in enumerate(self.tokens)]
        pieces = self.backend.encode("a", add_special_tokens=False).tokens
        adds_space = bool(pieces) and pieces[0].startswith(SPACE)
        return {"model": "llama", "pre": "default", "scores": scores, "add_space_prefix": adds_space}

    def named(self, ends: Iterable[int]) -> dict[str, Any]:
        """The tokens that have a part to play, and whether bos and eos stand around every text."""
        keys = {"bos": "bos", "unknown": "unk", "padding": "pad"}
        ids = {key: getattr(self.tokenizer, f"{name}_token_id") for key, name in keys.items()}
        ordered = dict.fromkeys([self.tokenizer.eos_token_id, *sorted(ends)])
        ids |= dict(zip(KEPT_ENDS, (one for one in ordered if one is not None), strict=False))
        named: dict[str, Any] = {
            f"{key}_token_id": i for key, i in ids.items() if i is not None and i < len(self.tokens)
        }
        plain = self.backend.encode("a", add_special_tokens=False).ids
        whole = list(self.tokenizer.encode("a"))
        start = next((i for i in range(len(whole)) if whole[i : i + len(plain)] == plain), 0)
        before, after = whole[:start], whole[start + len(plain) :]
        if before not in ([], [ids["bos"]]) or after not in ([], [ids.get("eos")]):
            self.refuse("the tokenizer puts other tokens than bos and eos around a text")
        return named | {"add_bos_token": bool(before), "add_eos_token": bool(after)}


def _cut(backend: Tokenizer, text: str) -> list[tuple[str, tuple[int, int]]]:
    normalized = backend.normalizer.normalize_str(text) if backend.normalizer else text
    return backend.pre_tokenizer.pre_tokenize_str(normalized) if backend.pre_tokenizer else [(normalized, (0, 0))]


def _differences(made: _Vocabulary, metadata: dict[str, Any], name: str) -> list[str]:
    """In a sentence, where special tokens stand in a text and other ids come out.

    Raises: ModelError, if other ids come out of plain text.
    """
    with tempfile.TemporaryDirectory(prefix="mlxtune-tokenizer-") as folder:
        write_gguf_tokenizer(metadata, Path(folder), where=made.where, rows=len(made.tokens))
        again = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))

    def differs(text: str) -> bool:
        ids = [one.encode(text, add_special_tokens=False).ids for one in (made.backend, again)]
        return ids[0] != ids[1]

    if text := next((text for text in PROBES if differs(text)), None):
        made.refuse(f"GGUF's {name} has no tokenizer that cuts {text[:40]!r} as this one does")
    for kind, what in ((PieceType.CONTROL, "special tokens"), (PieceType.USER_DEFINED, "added tokens")):
        tokens = [token for token, its in zip(made.tokens, made.types, strict=True) if its is kind]
        if any(differs(f"a {token} b{token}c\n{token}\nd") for token in tokens[:SPECIALS_TRIED]):
            return [f"spaces beside {what} are tokenized otherwise by programs that read GGUF"]
    return []
