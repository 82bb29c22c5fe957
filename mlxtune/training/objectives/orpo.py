"""Odds ratio preference optimization: the better answer is learned, and its odds gain on the other's; no reference.

Source: Hong et al., 2024, equations 3 to 7, https://arxiv.org/abs/2403.07691. Probabilities are of answers as the
geometric mean of their tokens'.
"""

import mlx.core as mx

from mlxtune.training.objectives.objective import Objective, RowSums
from mlxtune.training.objectives.preference import log_sigmoid, preference

MOST = -1e-6
"""The log-probability that odds are worked out from, at most: a certain answer has infinite odds."""


def orpo(*, beta: float) -> Objective:
    """The objective; ``beta`` is the paper's lambda, what the odds' part counts beside the answer's loss a token."""

    def mean(rows: RowSums) -> mx.array:
        return rows.log_probability / mx.maximum(rows.count, 1)

    def log_odds(log_probability: mx.array) -> mx.array:
        below = mx.minimum(log_probability, MOST)
        return below - mx.log(-mx.expm1(below))

    def pair_loss(chosen: RowSums, rejected: RowSums) -> tuple[mx.array, mx.array, mx.array]:
        better, worse = mean(chosen), mean(rejected)
        losses = -better - beta * log_sigmoid(log_odds(better) - log_odds(worse))
        return losses, beta * better, beta * worse

    return preference(pair_loss, needs_reference=False)
