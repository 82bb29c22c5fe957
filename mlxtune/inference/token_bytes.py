"""The bytes that one token stands for, which may be a part of a letter and then have no text of their own."""

import json
import re
from typing import Any

from transformers.convert_slow_tokenizer import bytes_to_unicode

BYTE = re.compile(r"<0x([0-9A-F]{2})>")
"""How SentencePiece's vocabularies spell a byte."""
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""How they spell a space."""


class TokenBytes:
    """The bytes of a tokenizer's tokens, as they stand in the middle of a text.

    Args:
        tokenizer: mlx_lm's TokenizerWrapper, or Hugging Face's.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._added = frozenset(tokenizer.added_tokens_decoder)
        backend = getattr(tokenizer, "backend_tokenizer", None)
        decoder = None if backend is None or backend.decoder is None else json.loads(backend.decoder.__getstate__())
        self._letters = {letter: byte for byte, letter in bytes_to_unicode().items()} if _spells_bytes(decoder) else {}

    def of(self, token: int) -> bytes:
        """A special token's are those of its name; b"" for a number that is no token."""
        spelled = self._tokenizer.convert_ids_to_tokens(token)
        if spelled is None:
            return b""
        if token in self._added:
            return spelled.encode()
        if self._letters:
            return bytes(self._letters[letter] for letter in spelled)
        if found := BYTE.fullmatch(spelled):
            return bytes.fromhex(found[1])
        return spelled.replace(SPACE, " ").encode()


def _spells_bytes(decoder: Any) -> bool:
    """Whether a vocabulary spells bytes as letters, as GPT-2's does, by its decoder's settings."""
    if not isinstance(decoder, dict):
        return False
    return decoder["type"] == "ByteLevel" or any(_spells_bytes(one) for one in decoder.get("decoders", ()))
