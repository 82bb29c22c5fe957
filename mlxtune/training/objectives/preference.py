"""What objectives that learn from pairs have in common: who is better, and the figures that tell how it goes.

Rows come as pairs, the better answer first. A loss is that of each pair; an update is the mean over pairs.
"""

from collections.abc import Callable

import mlx.core as mx

from mlxtune.training.objectives.log_probabilities import by_rows
from mlxtune.training.objectives.objective import Objective, RowSums

FIGURES = ("reward_chosen", "reward_rejected", "reward_margin", "reward_accuracy")
"""Means over pairs: the implicit reward of either answer, their difference, and how often it is above zero."""
POINT = "kl"
"""Beside them, where losses are compared with a reference point: that point, an estimate of the KL divergence."""

PairLoss = Callable[[RowSums, RowSums], tuple[mx.array, mx.array, mx.array]]
"""Of N better answers and the N others: [N] losses, and [N] rewards of each."""


def preference(pair_loss: PairLoss, *, needs_reference: bool, needs_reference_point: bool = False) -> Objective:
    """The objective whose loss of a pair is ``pair_loss``."""

    def of_rows(rows: RowSums) -> tuple[mx.array, list[mx.array]]:
        chosen, rejected = (
            RowSums(rows.log_probability[side::2], rows.count[side::2], rows.reference[side::2], rows.reference_point)
            for side in (0, 1)
        )
        losses, better, worse = pair_loss(chosen, rejected)
        figures = [better, worse, better - worse, (better > worse).astype(mx.float32)]
        if needs_reference_point:
            figures.append(rows.reference_point * mx.ones_like(losses))
        return mx.sum(losses), [mx.sum(figure) for figure in figures]

    return Objective(
        lambda reader, batch: by_rows(reader, batch, of_rows),
        figures=(*FIGURES, POINT) if needs_reference_point else FIGURES,
        pairs=True,
        needs_reference=needs_reference,
        needs_reference_point=needs_reference_point,
        of_rows=of_rows,
    )


def log_sigmoid(x: mx.array) -> mx.array:
    """log(1 / (1 + exp(-x))), without overflow."""
    return -mx.logaddexp(mx.zeros_like(x), -x)
