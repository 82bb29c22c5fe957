"""The tokenizer in a GGUF file's metadata as the two files that Hugging Face's AutoTokenizer opens.

Knows the metadata's keys, which tokens are special and what stands around every text; how text is cut is
byte_level.py's business for GGUF's ``gpt2`` kind, and sentencepiece_tokenizer.py's for its ``llama`` kind.
"""

from pathlib import Path
from typing import Any, NoReturn

from tokenizers import AddedToken, Tokenizer

from mlxtune.errors import ModelError
from mlxtune.files import write_json
from mlxtune.models import DAMAGED
from mlxtune.models.gguf.byte_level import PRE_TOKENIZERS, PreTokenizer, byte_level_tokenizer
from mlxtune.models.gguf.values import short
from mlxtune.models.sentencepiece_tokenizer import Pieces, PieceType, problem_of, sentencepiece_tokenizer
from mlxtune.models.tokenizer import add_ends

ADDED = (PieceType.CONTROL, PieceType.USER_DEFINED)
"""The types of tokens that are found whole in a text; the first kind is never part of an answer."""
PLAIN_ENDS = ("<unk>", "<s>", "<|endoftext|>")  # phi 3's special tokens that leave the white space after them alone


class _Metadata:
    """The tokenizer's part of the metadata, each value checked on its way out."""

    def __init__(self, metadata: dict[str, Any], where: Path, rows: int) -> None:
        self.whole = metadata
        self.where = where
        self.tokens = self._tokens(rows)
        self.ids = {token: i for i, token in enumerate(self.tokens)}
        types = self.get("token_type")
        self.types: list[int] = [PieceType.NORMAL] * len(self.tokens) if types is None else types
        if not isinstance(self.types, list) or len(self.types) != len(self.tokens):
            self.refuse("the list of token types does not go with the list of tokens")

    def get(self, key: str) -> Any:
        return self.whole.get(f"tokenizer.ggml.{key}")

    def refuse(self, what: str, remedy: str = DAMAGED) -> NoReturn:
        raise ModelError(what, where=self.where, remedy=remedy)

    def _tokens(self, rows: int) -> list[str]:
        tokens = _texts(self.get("tokens"))
        if not tokens or len(tokens) > rows or len(set(tokens)) != len(tokens) or "" in tokens:
            self.refuse(
                f"the list of tokens is empty, has one twice, or is longer than the {rows} rows of the vocabulary"
            )
        return tokens

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key)
        if not isinstance(value, bool | None):
            self.refuse(f"tokenizer.ggml.{key} is {short(value)}, neither true nor false")
        return default if value is None else value

    def token(self, key: str) -> str | None:
        """The token that the key names by its number."""
        number = self.get(f"{key}_token_id")
        if number is None:
            return None
        if type(number) is not int or not 0 <= number < len(self.tokens):
            self.refuse(f"tokenizer.ggml.{key}_token_id is {short(number)}, which is no token")
        return self.tokens[number]


def write_gguf_tokenizer(metadata: dict[str, Any], folder: Path, *, where: Path, rows: int) -> None:
    """Write tokenizer.json and tokenizer_config.json, chat template included.

    Args:
        metadata: of the GGUF file ``where``.
        rows: of the model's vocabulary matrix; no token may lie beyond them.

    Raises: ModelError, if the tokenizer is of another kind or its parts do not fit each other.
    """
    kind, pre = (metadata.get(f"tokenizer.ggml.{key}") for key in ("model", "pre"))
    how = PRE_TOKENIZERS.get(pre) if kind == "gpt2" and isinstance(pre, str) else None
    if kind != "llama" and how is None:
        what = f"the tokenizer is of the kind {short(kind)} with the pre-tokenizer {short(pre)}"
        known = f"gpt2 with {', '.join(PRE_TOKENIZERS)}, and llama, are supported"
        raise ModelError(f"{what}; {known}", where=where, remedy="use the model's safetensors version")
    if metadata.get("general.architecture") == "qwen2" and pre != "qwen2":
        # whatever tokenizer.json says: transformers gives every model of this type the one pre-tokenizer
        what = f"a qwen2 model with the pre-tokenizer {short(pre)} is not supported"
        raise ModelError(what, where=where, remedy="use the model's safetensors version")
    parts = _Metadata(metadata, where, rows)
    backend = _sentencepiece(parts) if how is None else _byte_level(parts, how)
    keys = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    named = {f"{name}_token": parts.token(key) for name, key in keys.items()}
    # llama.cpp's defaults, for files that do not say
    adds_bos = how is None or how.adds_bos
    asked = {"bos": adds_bos and named["bos_token"] is not None, "eos": False}
    wanted = [name for name, default in asked.items() if parts.flag(f"add_{name}_token", default)]
    if any(named[f"{name}_token"] is None for name in wanted):
        parts.refuse("a token is to be added to every text, but none is named")
    add_ends(backend, **{name: named[f"{name}_token"] for name in wanted})
    backend.save(str(folder / "tokenizer.json"))
    template = metadata.get("tokenizer.chat_template")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": metadata.get(f"{metadata.get('general.architecture')}.context_length"),
        "chat_template": template if isinstance(template, str) else None,
        **named,
    }
    write_json(folder / "tokenizer_config.json", {key: value for key, value in config.items() if value is not None})


def _byte_level(parts: _Metadata, how: PreTokenizer) -> Tokenizer:
    backend = byte_level_tokenizer(how, parts.ids, _merges(parts))
    backend.add_tokens(
        [
            AddedToken(token, special=kind == PieceType.CONTROL, normalized=False)
            for token, kind in zip(parts.tokens, parts.types, strict=True)
            if kind in ADDED
        ]
    )
    return backend


def _sentencepiece(parts: _Metadata) -> Tokenizer:
    """As sentencepiece does it; after a special token a text begins anew, as it does for llama.cpp."""
    scores = parts.get("scores")
    if not isinstance(scores, list) or len(scores) != len(parts.tokens):
        parts.refuse("the list of scores does not go with the list of tokens")
    strips: list[str] = []
    if parts.whole.get("general.architecture") == "phi3":
        special = zip(parts.tokens, parts.types, strict=True)
        strips = [token for token, kind in special if kind in ADDED and token not in PLAIN_ENDS]
    pieces = Pieces(
        texts=parts.tokens,
        scores=scores,
        types=parts.types,
        adds_space=parts.flag("add_space_prefix", True),
        strips_after_special=strips,
        finds_user_defined_first=True,
    )
    if problem := problem_of(pieces):
        parts.refuse(problem)
    return sentencepiece_tokenizer(pieces)


def _texts(value: Any) -> list[str] | None:
    return value if isinstance(value, list) and all(isinstance(text, str) for text in value) else None


def _merges(parts: _Metadata) -> list[tuple[str, str]]:
    """Pairs of tokens whose union is a token, as the BPE of the tokenizers package insists."""
    ids, merges = parts.ids, []
    for text in _texts(parts.get("merges")) or []:
        left, _, right = text.partition(" ")
        if not (left in ids and right in ids and left + right in ids):
            parts.refuse(f"the merge {short(text)} is not of two tokens to a third")
        merges.append((left, right))
    return merges
