"""Kahneman-Tversky optimization: each answer is judged by itself, as one to say or one not to say.

What counts is how much likelier an answer is than before training, beside how much likelier the network finds answers
in general: gains and losses are felt less and less the larger they are, so that no single answer is run after for ever.

Source: Ethayarajh et al., 2024, section 4.1, https://arxiv.org/abs/2402.01306. Rows are pairs: `chosen` is desirable,
`rejected` undesirable. The point of comparison, z0, is estimated as there from answers under prompts that they do not
belong to, without a gradient; over all of an update, and from one such answer a pair.
"""

import mlx.core as mx

from mlxtune.training.objectives.objective import Objective, RowSums
from mlxtune.training.objectives.preference import preference


def kto(*, beta: float, desirable_weight: float = 1.0, undesirable_weight: float = 1.0) -> Objective:
    """The objective. With r, how much more likely than at the start an answer is, in nats, and z0: the weight times
    sigmoid(beta (z0 - r)) of a desirable answer, sigmoid(beta (r - z0)) of an undesirable one; the mean over answers.
    """

    def pair_loss(chosen: RowSums, rejected: RowSums) -> tuple[mx.array, mx.array, mx.array]:
        better, worse = (side.log_probability - side.reference for side in (chosen, rejected))
        above, below = better - chosen.reference_point, worse - rejected.reference_point
        desirable = desirable_weight * mx.sigmoid(-beta * above)
        undesirable = undesirable_weight * mx.sigmoid(beta * below)
        return (desirable + undesirable) / 2, beta * better, beta * worse

    return preference(pair_loss, needs_reference=True, needs_reference_point=True)
