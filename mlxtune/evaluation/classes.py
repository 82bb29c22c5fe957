"""Figures of rows that are of one class each: macro F1, and which class is taken for which.

Knows classes by name, two a row: the right one and the one that was chosen. Classes that the rows have and nobody could
choose count as well: all their rows are wrong.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlxtune.evaluation.measured import Measured


def macro_f1(right: Sequence[str], chosen: Sequence[str], labels: Sequence[str]) -> Measured:
    """What each row adds to macro F1 (`figures.macro_f1`); a class that neither column has is not in the mean.

    Args:
        right, chosen: a class a row.
        labels: the classes that could be chosen.
    """
    names = _names(right, labels)
    number = {name: i for i, name in enumerate(names)}
    sums = np.zeros((len(right), 2 * len(names)))
    for row, (expected, found) in enumerate(zip(right, chosen, strict=True)):
        a, b = number[expected.strip()], number[found.strip()]
        sums[row, a] += a == b
        sums[row, len(names) + a] += 1
        sums[row, len(names) + b] += 1
    return Measured(np.arange(len(right)), sums, "macro_f1")


def confusion(right: Sequence[str], chosen: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    """``labels`` [C], and ``confusion`` [C][C]: of the rows of each class, how many were given each."""
    names = _names(right, labels)
    number = {name: i for i, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), int)
    for expected, found in zip(right, chosen, strict=True):
        counts[number[expected.strip()], number[found.strip()]] += 1
    return {"labels": names, "confusion": counts.tolist()}


def _names(right: Sequence[str], labels: Sequence[str]) -> list[str]:
    """The labels, then what else the rows are of, in its order there; without white space at the ends."""
    return list(dict.fromkeys(name.strip() for name in (*labels, *right)))
