"""Direct preference optimization: the better answer gains on the other, measured against where training started.

Sources: Rafailov et al., 2023, equation 7, https://arxiv.org/abs/2305.18290; the loss ``ipo`` is Azar et al., 2023,
equation 17, https://arxiv.org/abs/2310.12036; label smoothing, by which a share of the pairs counts as swapped, is
Mitchell's note on conservative DPO, https://ericmitchell.ai/cdpo.pdf.
"""

from typing import Literal

import mlx.core as mx

from mlxtune.training.objectives.objective import Objective, RowSums
from mlxtune.training.objectives.preference import log_sigmoid, preference


def dpo(
    *,
    beta: float,
    loss: Literal["sigmoid", "ipo"] = "sigmoid",
    label_smoothing: float = 0.0,
    length_normalized: bool = False,
) -> Objective:
    """The objective. With h, how much more likely than at the start the better answer is, less the same of the other,
    in nats: ``sigmoid`` is -log sigmoid(beta h), log 2 at the start; ``ipo`` is (h - 1 / (2 beta))^2.

    Args:
        length_normalized: nats are those of a token on average, so that long answers count no more than short ones.
    """

    def gained(rows: RowSums) -> mx.array:
        nats = rows.log_probability - rows.reference
        return nats / mx.maximum(rows.count, 1) if length_normalized else nats

    def pair_loss(chosen: RowSums, rejected: RowSums) -> tuple[mx.array, mx.array, mx.array]:
        better, worse = gained(chosen), gained(rejected)
        h = better - worse
        if loss == "ipo":
            losses = mx.square(h - 1 / (2 * beta))
        else:
            losses = -(1 - label_smoothing) * log_sigmoid(beta * h) - label_smoothing * log_sigmoid(-beta * h)
        return losses, beta * better, beta * worse

    return preference(pair_loss, needs_reference=True)
