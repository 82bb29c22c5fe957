"""The tokenizer in a GGUF file's metadata as the two files that Hugging Face's AutoTokenizer opens.

Knows byte-level BPE (GGUF calls it ``gpt2``) with the pre-tokenizers named below. Any other is refused: splitting text
in another way than the model was trained with gives other tokens, which nobody would notice but in the quality.
"""

from pathlib import Path
from typing import Any, NoReturn

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from mlxtune.errors import ModelError
from mlxtune.files import write_json
from mlxtune.models import DAMAGED

CONTROL, USER_DEFINED = 3, 4  # llama.cpp's token types: never part of a text, and always a token of its own
PRE_TOKENIZERS = ("smollm", "gpt-2")


def write_gguf_tokenizer(metadata: dict[str, Any], folder: Path, *, where: Path, rows: int) -> None:
    """Write tokenizer.json and tokenizer_config.json, chat template included.

    Args:
        metadata: of the GGUF file ``where``.
        rows: of the model's vocabulary matrix; no token may lie beyond them.

    Raises: ModelError, if the tokenizer is of another kind or its parts do not fit each other.
    """

    def refuse(what: str, remedy: str = DAMAGED) -> NoReturn:
        raise ModelError(what, where=where, remedy=remedy)

    kind, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    if kind != "gpt2" or pre not in PRE_TOKENIZERS:
        what = f"the tokenizer is of the kind {kind} with the pre-tokenizer {pre}"
        refuse(f"{what}; gpt2 with {' or '.join(PRE_TOKENIZERS)} is supported", "use the model's safetensors version")
    tokens = _texts(metadata.get("tokenizer.ggml.tokens"))
    types = metadata.get("tokenizer.ggml.token_type", [1] * len(tokens or ()))
    if not tokens or len(tokens) > rows or len(set(tokens)) != len(tokens) or "" in tokens:
        refuse(f"the list of tokens is empty, has one twice, or is longer than the {rows} rows of the vocabulary")
    if not isinstance(types, list) or len(types) != len(tokens):
        refuse("the list of token types does not go with the list of tokens")
    ids = {token: i for i, token in enumerate(tokens)}
    backend = Tokenizer(models.BPE(vocab=ids, merges=_merges(metadata, ids, refuse)))
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    digits = pre_tokenizers.Digits(individual_digits=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, words]) if pre == "smollm" else words
    backend.decoder = decoders.ByteLevel()
    special = [
        AddedToken(token, special=kind == CONTROL, normalized=False)
        for token, kind in zip(tokens, types, strict=True)
        if kind in (CONTROL, USER_DEFINED)
    ]
    backend.add_tokens(special)
    named = {
        f"{name}_token": _token(metadata, f"tokenizer.ggml.{key}_token_id", tokens, refuse)
        for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
    }
    _add_ends(backend, metadata, named, ids, refuse)
    backend.save(str(folder / "tokenizer.json"))
    template = metadata.get("tokenizer.chat_template")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": metadata.get("llama.context_length"),
        "chat_template": template if isinstance(template, str) else None,
        **named,
    }
    write_json(folder / "tokenizer_config.json", {key: value for key, value in config.items() if value is not None})


def _texts(value: Any) -> list[str] | None:
    return value if isinstance(value, list) and all(isinstance(text, str) for text in value) else None


def _merges(metadata: dict[str, Any], ids: dict[str, int], refuse: Any) -> list[tuple[str, str]]:
    """Pairs of tokens whose union is a token, as the BPE of the tokenizers package insists."""
    merges = []
    for text in _texts(metadata.get("tokenizer.ggml.merges")) or []:
        left, _, right = text.partition(" ")
        if not (left in ids and right in ids and left + right in ids):
            refuse(f"the merge {text!r} is not of two tokens to a third")
        merges.append((left, right))
    return merges


def _token(metadata: dict[str, Any], key: str, tokens: list[str], refuse: Any) -> str | None:
    number = metadata.get(key)
    if number is None:
        return None
    if type(number) is not int or not 0 <= number < len(tokens):
        refuse(f"{key} is {number!r}, which is no token")
    return tokens[number]


def _add_ends(
    backend: Tokenizer, metadata: dict[str, Any], named: dict[str, str | None], ids: dict[str, int], refuse: Any
) -> None:
    """Have every text begin with bos, or end with eos, where the file asks for it."""
    ends = {
        name: named[f"{name}_token"]
        for name in ("bos", "eos")
        if metadata.get(f"tokenizer.ggml.add_{name}_token") is True
    }
    if not ends:
        return
    if None in ends.values():
        refuse("a token is to be added to every text, but none is named")
    parts = [str(ends["bos"])] if "bos" in ends else []
    parts += ["$A"]
    parts += [str(ends["eos"])] if "eos" in ends else []
    used = [(token, ids[token]) for token in ends.values() if token is not None]
    backend.post_processor = processors.TemplateProcessing(single=parts, special_tokens=used)
