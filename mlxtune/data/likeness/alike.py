"""Rows that nearly say what another says, as statistics count them: each once for every split that it meets.

Who is compared, and what alike means, is duplicates.py's; rows that say exactly the same are repeats.py's, and not
counted here again.
"""

from dataclasses import dataclass

from mlxtune.data.likeness.duplicates import RowIndex
from mlxtune.progress import Progress, silent


@dataclass(frozen=True, slots=True)
class Alike:
    """A row and the one that it is like, both as ``file:line``; ``similarity`` is 1 where they ask the same."""

    where: str
    like: str
    similarity: float


def find_alike(index: RowIndex, progress: Progress = silent) -> dict[tuple[int, int], list[Alike]]:
    """Rows that are like an earlier one, by the number of their split and that of the earlier one, which may be the
    same; in the order of the rows.

    Args:
        index: of rows of one or more splits, finished.
    """
    met: dict[tuple[int, int], Alike | None] = {}

    def is_news(first: int, row: int) -> bool:
        return (row, int(index.splits[first])) not in met

    for pair in index.pairs(is_news, progress):
        exact = pair.likeness == "same"
        found = None if exact else Alike(index.where(pair.row), index.where(pair.first), pair.similarity)
        met.setdefault((pair.row, int(index.splits[pair.first])), found)
    by_splits: dict[tuple[int, int], list[Alike]] = {}
    for (row, earlier), found in sorted(met.items()):
        if found is not None:
            by_splits.setdefault((int(index.splits[row]), earlier), []).append(found)
    return by_splits
