"""Texts that were met before, exactly or nearly, by word trigrams and MinHash as of rows for training (shingles.py).

Holds the trigrams of every text, some kilobytes each: the texts of a folder of documents, not of a data set.
"""

from typing import TYPE_CHECKING

from mlxtune.data.likeness.shingles import BANDS, Shingles, band_keys, hash_words, signatures, similarity, words_of

if TYPE_CHECKING:
    import numpy as np

ALIKE = 0.8
"""The Jaccard similarity from which a text repeats another."""


class Seen:
    """Grows by every new text."""

    def __init__(self) -> None:
        self._shingles = Shingles()
        self._exact: set[int] = set()
        self._sets: list[np.ndarray] = []
        self._bands: list[dict[int, list[int]]] = [{} for _ in range(BANDS)]

    def is_new(self, text: str) -> bool:
        """Whether no text before was equal (but for case and white space) or alike; it is remembered, if so."""
        words = words_of(text)
        key = hash_words(words)
        if key in self._exact:
            return False
        (own,) = self._shingles.of([words])
        if len(own) == 0:
            return False
        keys = band_keys(signatures([own]))[:, 0].tolist()
        candidates = {other for band, one in zip(self._bands, keys, strict=True) for other in band.get(one, ())}
        if any(similarity(own, self._sets[other]) >= ALIKE for other in candidates):
            return False
        self._exact.add(key)
        for band, one in zip(self._bands, keys, strict=True):
            band.setdefault(one, []).append(len(self._sets))
        self._sets.append(own)
        return True
