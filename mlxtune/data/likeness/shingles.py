"""What a row asks as a set of word trigrams, and MinHash signatures by which rows with like sets are found.

Two rows are alike by the Jaccard similarity of their sets: the trigrams that both have, over those that one has.
A signature is 128 minima over as many permutations; two rows agree in one with a probability that is their similarity.
Signatures are cut into bands, and rows that agree in a whole band are candidates: at a similarity of 0.7, 9,998 pairs
of 10,000 become one (1 - (1 - 0.7^4)^32). Whoever takes candidates compares their sets: none is alike by chance.

Rows are compared by what they ask: the words before the last answer, system message left out, because it is the same
in every row. Words are what stands between white space, in lower case; where a script writes none between words, each
character is one. A row of one or two words is one shingle, which only an equal row has.

The permutations are those of datasketch 2 (`affine32`, seed 1), and a test compares signatures with its own, bit for
bit. It is not called here: it needs scipy, 140 MB, and holds its index in memory. The price is these lines.
"""

import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np

from mlxtune.data.example import Example

THRESHOLD = 0.7
"""The Jaccard similarity from which two rows are near-duplicates."""
SHINGLE_WORDS = 3
PERMUTATIONS = 128
BANDS = 32
VOCABULARY = 200_000
"""Words after which those that were met are forgotten: about 30 MB."""

_UNSPACED = re.compile(  # Thai, Lao, Burmese, Khmer; kana and Chinese characters, of any plane
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
    "|[^\\s\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]+"
)
# Odd, so that multiplying loses nothing: what a word weighs depends on its place in the trigram.
_PLACES = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)


def question_and_answer(example: Example) -> tuple[str, str]:
    """What a row asks, without its system message, and what it answers; a text row asks all that it says."""
    if example.kind == "text" or not example.messages:
        return example.text, ""
    *before, last = example.messages
    return "\n".join(turn.content for turn in before if turn.role != "system"), last.content


def words_of(text: str) -> list[str]:
    """The words that count, in lower case."""
    text = text.lower()
    return text.split() if text.isascii() else _UNSPACED.findall(text)


def hash_words(words: Sequence[str]) -> int:
    """64 bits, the same for texts that differ in case and white space alone."""
    return _hash64(" ".join(words))


def _hash64(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


class _Vocabulary(dict[str, int]):
    """Words that were met, numbered; ``hashes`` has the hash of each."""

    def __init__(self) -> None:
        self.hashes = array("Q")

    def __missing__(self, word: str) -> int:
        self.hashes.append(_hash64(word))
        number = self[word] = len(self)
        return number

    def hashes_of(self, words: Sequence[str]) -> np.ndarray:
        """Of each word its hash: uint64."""
        if len(self) > VOCABULARY:
            self.clear()
            self.hashes = array("Q")
        numbers = np.fromiter(map(self.__getitem__, words), np.int64, len(words))
        return np.array(self.hashes, np.uint64)[numbers]  # a copy: a view would keep the words from growing


@dataclass(eq=False)
class Shingles:
    """Word trigrams of many rows as hashes of 32 bits."""

    _vocabulary: _Vocabulary = field(default_factory=_Vocabulary)

    def of(self, rows: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """Of each row, given as its words, the different shingles, ascending: uint32 arrays, empty without words."""
        padded = [[*words, *[""] * (SHINGLE_WORDS - len(words))] if words else words for words in rows]
        lengths = np.array([len(words) for words in padded])
        flat = [word for words in padded for word in words]
        if not flat:
            return [np.zeros(0, np.uint32) for _ in rows]
        hashes = self._vocabulary.hashes_of(flat)
        count = len(flat) - SHINGLE_WORDS + 1
        mixed = np.zeros(count, np.uint64)
        for place, factor in enumerate(_PLACES):
            mixed += (hashes[place : place + count] ^ (hashes[place : place + count] >> np.uint64(29))) * factor
        mixed ^= mixed >> np.uint64(32)
        mixed *= _PLACES[0]
        # A shingle belongs to the row of its first word, unless it runs on into the next.
        row = np.repeat(np.arange(len(rows), dtype=np.uint64), lengths)
        inside = row[:count] == row[SHINGLE_WORDS - 1 :]
        keys = np.unique((row[:count][inside] << np.uint64(32)) | (mixed[inside] >> np.uint64(32)))
        ends = np.searchsorted(keys, np.arange(1, len(rows), dtype=np.uint64) << np.uint64(32))
        return np.split((keys & np.uint64(0xFFFFFFFF)).astype(np.uint32), ends)


def permutations() -> tuple[np.ndarray, np.ndarray]:
    """The factors (odd) and summands of ``h -> a h + b mod 2^32``: those that datasketch draws with seed 1."""
    draw = np.random.RandomState(1)
    factors = draw.randint(0, 1 << 31, PERMUTATIONS, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return factors, draw.randint(0, 1 << 32, PERMUTATIONS, dtype=np.uint32)


def signatures(rows: Sequence[np.ndarray]) -> np.ndarray:
    """The MinHash signatures of rows given as shingles, none empty: [rows, PERMUTATIONS] uint32.

    Source: datasketch 2.0.0, `MinHash` with ``scheme="affine32"``; Broder 1997, On the resemblance of documents.
    """
    if not rows:
        return np.zeros((0, PERMUTATIONS), np.uint32)
    hashes = np.concatenate(rows)
    starts = np.cumsum([0, *(len(row) for row in rows[:-1])])
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):  # MurmurHash3's finalizer
        hashes = (hashes ^ (hashes >> np.uint32(shift))) * np.uint32(factor)
    hashes ^= hashes >> np.uint32(16)
    factors, summands = permutations()
    minima = np.empty((PERMUTATIONS, len(rows)), np.uint32)
    room = np.empty_like(hashes)
    for number in range(PERMUTATIONS):
        np.multiply(hashes, factors[number], out=room)
        room += summands[number]
        np.minimum.reduceat(room, starts, out=minima[number])
    return minima.T


def band_keys(signatures: np.ndarray) -> np.ndarray:
    """For each band a hash of its minima: [BANDS, rows] uint32. Rows with an equal key in a band are candidates."""
    width = PERMUTATIONS // BANDS
    keys = np.zeros((BANDS, len(signatures)), np.uint64)
    for number in range(width):
        keys = (keys ^ signatures[:, number::width].T) * _PLACES[number % len(_PLACES)]
        keys ^= keys >> np.uint64(31)
    return (keys >> np.uint64(32)).astype(np.uint32)


def similarity(first: np.ndarray, second: np.ndarray) -> float:
    """The Jaccard similarity of two rows' shingles; 0 where one has none."""
    shared = len(np.intersect1d(first, second, assume_unique=True))
    return shared / max(1, len(first) + len(second) - shared)
