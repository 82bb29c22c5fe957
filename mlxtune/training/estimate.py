"""What batches take, foretold from a few that were measured: seconds and bytes, as sums over what a batch is made of.

A step's time and memory grow with the positions that go through the network, with the pairs of positions that attention
looks at, and with the targets that go through the head. How much each costs is not worked out from a network's
dimensions, which differ by family, precision and machine, but fitted to measured batches. The price: a forecast is as
good as the batches measured are like those foretold, so these are chosen from the run's own.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlxtune.data.batch import Shape

TERMS = ("position", "pair", "target", "batch")
TERM_PRICE = 0.002
"""How much nearer a fit must come, as a share of what is measured, to be worth one term more."""


@dataclass(frozen=True)
class Costs:
    """What each part of a batch costs, in seconds or bytes; see `fit_costs`."""

    position: float
    pair: float
    target: float
    batch: float

    def of(self, shape: Shape) -> float:
        """What a batch of this shape costs."""
        return float(np.dot(_terms(shape), [getattr(self, name) for name in TERMS]))


def fit_costs(shapes: Sequence[Shape], measured: Sequence[float]) -> Costs:
    """The costs, none below zero, that come nearest to what was measured, in relative terms.

    A term is only used where it brings the forecast nearer by `TERM_PRICE`: with few batches measured, or all of one
    shape, many sums explain them, and the one of the fewest terms errs least elsewhere.

    Args:
        measured: of each shape, seconds or bytes, above zero.
    """
    if not shapes:
        raise ValueError("nothing was measured")
    table = np.array([_terms(shape) for shape in shapes], float)
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
    return Costs(**dict(zip(TERMS, best.tolist(), strict=True)))


def highest_cost(shape: Shape, measured: Shape, cost: float) -> float:
    """The most that ``shape`` can cost, where ``measured`` cost ``cost``: as if its dearest part were all of it.

    For the moment before a larger batch is tried, when a fit would be a guess.
    """
    pairs = zip(_terms(shape), _terms(measured), strict=True)
    return cost * max(1.0, *(more / max(1, less) for more, less in pairs))


def _terms(shape: Shape) -> tuple[float, ...]:
    """What the costs are multiplied with, in the order of `TERMS`."""
    return (shape.positions, shape.pairs, shape.targets, 1)
