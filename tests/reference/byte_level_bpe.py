"""Byte-level BPE as GPT-2's paper has it, one merge at a time; slow, and plain enough to be read.

Words come from a pattern, by the ``regex`` module; a text's bytes are spelled as printable letters, and in each word
the pair of the best rank is merged, the leftmost of equals first.

Source: https://github.com/openai/gpt-2/blob/master/src/encoder.py
"""

import unicodedata
from itertools import pairwise

import regex

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# Each as the family's own tokenizer.json has it.
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK_CODER = [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+", r"\p{N}"]
PATTERNS = {
    "gpt-2": [GPT2],
    "smollm": [r"\p{N}", GPT2],
    "llama-bpe": [LLAMA3],
    "llama3": [LLAMA3],
    "llama-v3": [LLAMA3],
    "dbrx": [LLAMA3],
    "qwen2": [QWEN2],
    "tekken": [TEKKEN],
    "gpt-4o": [GPT4O],
    "deepseek-coder": DEEPSEEK_CODER,
}


def letters() -> list[str]:
    """How byte 0, 1, ... is spelled: printable Latin-1 as itself, the others as the letters from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def words(text: str, patterns: list[str]) -> list[str]:
    """Cut by each pattern in turn: its matches, and what lies between them, which the next one may cut."""
    pieces = [(text, False)]
    for pattern in patterns:
        finer = []
        for piece, _ in pieces:
            place = 0
            for match in regex.finditer(pattern, piece):
                if match.start() > place:
                    finer.append((piece[place : match.start()], False))
                if match.end() > match.start():
                    finer.append((match.group(), True))
                place = match.end()
            if place < len(piece):
                finer.append((piece[place:], False))
        pieces = finer
    return [piece for piece, _ in pieces]


def encode(
    text: str, ids: dict[str, int], merges: list[tuple[str, str]], pre: str, *, whole_words: bool, composed: bool
) -> list[int]:
    """The ids of a text without special tokens."""
    if composed:
        text = unicodedata.normalize("NFC", text)
    spelling = letters()
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    result = []
    for word in words(text, PATTERNS[pre]):
        parts = [spelling[byte] for byte in word.encode()]
        if whole_words and "".join(parts) in ids:
            result.append(ids["".join(parts)])
            continue
        while len(parts) > 1:
            pairs = list(pairwise(parts))
            best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
            if best not in ranks:
                break
            merged, i = [], 0
            while i < len(parts):
                if i + 1 < len(parts) and (parts[i], parts[i + 1]) == best:
                    merged.append(parts[i] + parts[i + 1])
                    i += 2
                else:
                    merged.append(parts[i])
                    i += 1
            parts = merged
        result += [ids[part] for part in parts]
    return result
