"""What batches take, foretold from a few that were measured: seconds and bytes, as sums over what a batch is made of.

A step's time and memory grow with the positions that go through the network, with the pairs of positions that attention
looks at, and with the targets that go through the head. How much each costs is not worked out from a network's
dimensions, which differ by family, precision and machine, but fitted to measured batches. The price: a forecast is as
good as the batches measured are like those foretold, so these are chosen from the run's own.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from mlxtune.data.batch import Batch

TERM_PRICE = 0.002
"""How much nearer a fit must come, as a share of what is measured, to be worth one term more."""
QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Of the batches by size: which ones stand for all."""


@dataclass(frozen=True)
class Work:
    """The shape of a batch: P prefix positions, B rows of L positions, T targets."""

    prefix: int
    rows: int
    length: int
    targets: int

    @classmethod
    def of(cls, batch: Batch) -> Self:
        """Of a batch of token ids, or of states in their place."""
        rows, length = batch.token_ids.shape[:2]
        return cls(batch.prefix_ids.shape[0], rows, length, batch.target_id.shape[0])

    @property
    def positions(self) -> int:
        """That go through the network: P + B L."""
        return self.prefix + self.rows * self.length

    @property
    def pairs(self) -> int:
        """Of positions, that attention scores: every one with all of its row, masked or not."""
        return self.prefix**2 + self.rows * self.length * (self.prefix + self.length)


@dataclass(frozen=True)
class Costs:
    """What each part of a batch costs, in seconds or bytes; see `fit_costs`."""

    batch: float
    position: float
    pair: float
    target: float
    chunked_target: float
    chunk: int
    """Targets that the head reads at once: beyond it one target more takes no more memory there."""

    def of(self, work: Work) -> float:
        """What a batch of this shape costs."""
        return float(np.dot(_terms(work, self.chunk), [getattr(self, name) for name in TERMS]))


TERMS = ("position", "pair", "target", "batch", "chunked_target")


def fit_costs(works: Sequence[Work], measured: Sequence[float], *, chunk: int | None = None) -> Costs:
    """The costs, none below zero, that come nearest to what was measured, in relative terms.

    A term is only used where it brings the forecast nearer by `TERM_PRICE`: with few batches measured, or all of one
    shape, many sums explain them, and the one of the fewest terms errs least elsewhere.

    Args:
        measured: of each work, seconds or bytes, above zero.
        chunk: targets that the head reads at once, if the costs depend on that.
    """
    if not works:
        raise ValueError("nothing was measured")
    limit = chunk or 0
    table = np.array([_terms(work, limit) for work in works], float)
    values = np.array(measured, float)
    size = np.maximum(table.max(axis=0), 1)  # so that no column is lost in rounding beside another
    scaled = table / size / values[:, None]
    best, best_price = np.zeros(len(TERMS)), math.inf
    for count in range(1, len(TERMS) + 1):
        for chosen in itertools.combinations(range(len(TERMS)), count):
            columns = list(chosen)
            found, *_ = np.linalg.lstsq(scaled[:, columns], np.ones(len(values)), rcond=None)
            if (found < 0).any():
                continue
            errors = scaled[:, columns] @ found - 1
            price = math.sqrt(float(np.mean(errors**2))) + TERM_PRICE * count
            if price < best_price - 1e-9:
                best, best_price = np.zeros(len(TERMS)), price
                best[columns] = found / size[columns]
    return Costs(**dict(zip(TERMS, best.tolist(), strict=True)), chunk=limit)


def _terms(work: Work, chunk: int) -> tuple[float, ...]:
    """What the costs are multiplied with, in the order of `TERMS`."""
    return (work.positions, work.pairs, work.targets, 1, min(work.targets, chunk))


def highest_cost(work: Work, measured: Work, cost: float) -> float:
    """The most that ``work`` can cost, where ``measured`` cost ``cost``: as if its dearest part were all of it.

    For the moment before a larger batch is tried, when a fit would be a guess.
    """
    pairs = zip(_terms(work, 0)[:3], _terms(measured, 0)[:3], strict=True)
    return cost * max(1.0, *(more / max(1, less) for more, less in pairs))


def typical_works(works: Iterable[Work]) -> list[Work]:
    """A few of the shapes that stand for all, from the smallest to the largest: those at `QUANTILES`."""
    ordered = sorted(works, key=lambda work: (work.positions, work.pairs, work.targets))
    chosen = [ordered[round(share * (len(ordered) - 1))] for share in QUANTILES]
    return list(dict.fromkeys(chosen))
