"""One metric of one model on held-out rows, kept as what each row adds to its sums; everything else follows from that.

A mean of means would weigh a token by the length of its row, and a macro F1 or a BLEU is no mean at all: but each is a
function of sums over rows. So a row keeps its k numbers, the figure is made of their sums, and one bootstrap
serves intervals and paired differences of all metrics alike. Knows rows by number; nothing of models or texts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlxtune.evaluation.figures import FIGURES
from mlxtune.evaluation.statistics import (
    CONFIDENCE,
    Difference,
    Interval,
    bootstrap_figure_interval,
    bootstrap_rate_interval,
    paired_difference,
    widen_at_ends,
)


@dataclass(frozen=True, eq=False)
class Measured:
    """What N rows of a split say of one metric.

    ``rows`` [N] are their numbers in the split, rising: a metric that means nothing for a row leaves it out. ``sums``
    [N, k] is what each row adds to the sums that ``figure``, a name in `figures.FIGURES`, is made of.
    """

    rows: np.ndarray
    sums: np.ndarray
    figure: str = "ratio"

    @property
    def value(self) -> float:
        """The figure over all rows."""
        return float(FIGURES[self.figure](self.sums.sum(axis=0)))

    @property
    def is_rate(self) -> bool:
        """Whether it is a mean of values from 0 to 1, one a row."""
        return (
            self.figure == "ratio"
            and bool((self.sums[:, 1] == 1).all())
            and bool(((self.sums[:, 0] >= 0) & (self.sums[:, 0] <= 1)).all())
        )

    @property
    def _is_share(self) -> bool:
        """Whether each row adds how many of how many, as of its tokens those that are right."""
        if self.figure != "ratio":
            return False
        counts, totals = self.sums.T
        return bool((counts == np.rint(counts)).all() and (counts >= 0).all() and (counts <= totals).all())

    def interval(self, *, seed: int, confidence: float = CONFIDENCE) -> Interval:
        """The figure and its bootstrap interval. Raises: ValueError, for no rows or numbers that are not finite."""
        if self.is_rate:
            return bootstrap_rate_interval(self.sums[:, 0], seed=seed, confidence=confidence)
        interval = bootstrap_figure_interval(self.sums, FIGURES[self.figure], seed=seed, confidence=confidence)
        return widen_at_ends(interval) if self._is_share else interval

    def minus(self, other: "Measured", *, seed: int, confidence: float = CONFIDENCE) -> Difference:
        """This model's figure less the other's, on the rows that they were both asked.

        Raises: ValueError, if the two are not the same metric of the same rows.
        """
        if self.figure != other.figure or not np.array_equal(self.rows, other.rows):
            raise ValueError("the two were not measured alike, on the same rows")
        return paired_difference(other.sums, self.sums, FIGURES[self.figure], seed=seed, confidence=confidence)

    def to_json(self) -> dict[str, Any]:
        return {"rows": self.rows.tolist(), "sums": self.sums.tolist(), "figure": self.figure}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "Measured":
        """What `to_json` gave. Raises: KeyError or ValueError, for anything else."""
        if content["figure"] not in FIGURES:
            raise ValueError(f"{content['figure']} is no figure")
        rows, sums = np.array(content["rows"], np.int64), np.array(content["sums"], np.float64)
        return Measured(rows, sums.reshape(len(rows), -1), content["figure"])


def rates(values: Mapping[int, float]) -> Measured:
    """A metric that is a value a row, by row number; its figure is their mean."""
    rows = np.array(sorted(values), np.int64)
    return ratio(rows, np.array([values[row] for row in rows.tolist()], np.float64), np.ones(len(rows)))


def ratio(rows: np.ndarray, numerators: np.ndarray, denominators: np.ndarray) -> Measured:
    """A metric that is a ratio of two sums over rows [N]: nats over tokens, bits over bytes."""
    return Measured(rows, np.stack([np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)], axis=1))
