"""The gradient of any function of the targets' log-probabilities, at the price of one more look at the head.

By the chain rule it is a sum over the targets, each weighed by the function's slope there. So the slopes are found
first, from log-probabilities without a gradient; then the weighted cross-entropy, whose gradient is formed chunk by
chunk, has that of the function. Neither holds a [T, V] array, and the network's body is read once.
"""

from collections.abc import Callable

import mlx.core as mx

from mlxtune.data.batch import Batch
from mlxtune.inference.likelihood import Reader, target_log_probabilities, target_loss_sum, target_states
from mlxtune.training.objectives.objective import OfRows, RowSums

OfTargets = Callable[[mx.array], tuple[mx.array, list[mx.array]]]
"""Of [T] log-probabilities: a loss sum and sums of figures."""


def through_log_probabilities(reader: Reader, batch: Batch, function: OfTargets) -> tuple[mx.array, list[mx.array]]:
    """What ``function`` says of the batch's targets, differentiable in the network's parameters."""
    states = target_states(reader, batch.prefix_ids, batch.token_ids, batch.target_index)
    known = mx.stop_gradient(target_log_probabilities(reader, mx.stop_gradient(states), batch.target_id))
    (loss, figures), slope = mx.value_and_grad(function)(known)
    weighed = target_loss_sum(reader, states, batch.target_id, mx.stop_gradient(-slope))
    exact = mx.stop_gradient(loss)
    return exact + weighed - mx.stop_gradient(weighed), [mx.stop_gradient(figure) for figure in figures]


def by_rows(reader: Reader, batch: Batch, function: OfRows) -> tuple[mx.array, list[mx.array]]:
    """`through_log_probabilities` of a function of whole rows; ``batch.beside`` has the row's references and
    their reference point, as far as the objective needs them.
    """
    rows, length = batch.token_ids.shape[:2]
    is_of_row = (batch.target_index // length)[None] == mx.arange(rows)[:, None]
    counts = (is_of_row & (batch.target_weight > 0)[None]).astype(mx.float32)
    reference, *point = batch.beside or (mx.zeros((rows,), mx.float32),)

    def of_targets(log_probabilities: mx.array) -> tuple[mx.array, list[mx.array]]:
        return function(RowSums(counts @ log_probabilities, mx.sum(counts, axis=1), reference, *point))

    return through_log_probabilities(reader, batch, of_targets)
