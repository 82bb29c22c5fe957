"""Rows that say exactly what another says, in a file and across splits, at 20 bytes a row.

Of each row a piece of its content hash and its place are kept, not its words, so five million rows take 100 MB.
64 bits: among so many rows the chance that any two different ones are called equal is under one in a million. What is
merely alike is alike.py's to count.
"""

from array import array
from dataclasses import dataclass

import numpy as np

from mlxtune.data.store.rows import Places, PlacesWriter


@dataclass(frozen=True, slots=True)
class Repeat:
    """A row that says what an earlier one says; both as ``file:line``."""

    where: str
    repeats: str


class Fingerprints:
    """Of the rows of a split, in order: what each says, in 64 bits, and where it is."""

    def __init__(self) -> None:
        self._hashes = array("Q")
        self._places = PlacesWriter()

    def add(self, where: str, content: str) -> None:
        """One row, by its place and its content hash."""
        self._hashes.append(int(content[:16], 16))
        self._places.add(where)

    def __len__(self) -> int:
        return len(self._hashes)

    def finish(self) -> tuple[np.ndarray, Places]:
        """The hashes, [rows] uint64, and the places."""
        return np.array(self._hashes, np.uint64), self._places.finish()


def find_repeats(rows: Fingerprints, others: Fingerprints | None = None) -> list[Repeat]:
    """Rows that say exactly what an earlier one of the same split says; or, with ``others``, what one of those says.

    The row that is repeated is always the first that says it.
    """
    hashes, places = rows.finish()
    known, known_places = (hashes, places) if others is None else others.finish()
    if not len(hashes) or not len(known):
        return []
    firsts, first_rows = np.unique(known, return_index=True)
    at = np.searchsorted(firsts, hashes).clip(max=len(firsts) - 1)
    first_row = first_rows[at]
    is_known = firsts[at] == hashes
    if others is None:
        is_known &= first_row != np.arange(len(hashes))
    found = np.flatnonzero(is_known)
    pairs = zip(found.tolist(), first_row[found].tolist(), strict=True)
    return [Repeat(places[row], known_places[first]) for row, first in pairs]
