"""One update's arithmetic: the gradient of a window of batches, and its clipping.

Knows an objective as a function of a batch; nothing of data, schedules or files.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.nn import utils as nn_utils
from mlx.utils import tree_flatten, tree_map

from mlxtune.data.batch import Batch
from mlxtune.device.workers import ONE_WORKER, Workers

Objective = Callable[[Batch], mx.array]
"""The loss of one batch, summed over its targets: a float32 scalar."""


@dataclass(frozen=True)
class WindowGradient:
    """What a window of batches says: sums and counts, and the gradient of ``loss``, the weighted mean over targets."""

    loss_sum: float
    weight_sum: float
    target_count: int
    gradients: dict[str, Any]

    @property
    def loss(self) -> float:
        """Nats a target."""
        return self.loss_sum / self.weight_sum


def accumulate(
    network: nn.Module,
    objective: Objective,
    window: Sequence[Batch],
    *,
    before_batch: Callable[[int], None] = lambda _: None,
    workers: Workers = ONE_WORKER,
) -> WindowGradient:
    """The gradient, in the trainable parameters, of the window's loss over its targets.

    The sums of all batches are divided by the sum of their weights, so that the result is the same however the rows
    were cut into batches. A mean of the batches' means would weigh a target by the company it keeps.

    Args:
        before_batch: called with each batch's number in the window before it runs (dropout draws its key there).
        workers: threads that work on batches side by side.
    """
    loss_and_gradient = nn_utils.value_and_grad(network, objective)
    tracing = threading.Lock()

    def run(numbered: tuple[int, Batch]) -> tuple[float, dict[str, Any]]:
        number, batch = numbered
        with tracing:  # tracing puts tracers into the network itself; only the arithmetic goes on side by side
            before_batch(number)
            loss, gradients = loss_and_gradient(batch)
            mx.eval(network.trainable_parameters())
        mx.eval(loss, gradients)
        return float(loss), gradients

    loss_sum, total = 0.0, None
    for loss, gradients in workers.map(run, list(enumerate(window))):
        loss_sum += loss
        total = gradients if total is None else tree_map(mx.add, total, gradients)
        mx.eval(total)
    assert total is not None
    weight_sum = sum(float(mx.sum(batch.target_weight)) for batch in window)
    return WindowGradient(
        loss_sum=loss_sum,
        weight_sum=weight_sum,
        target_count=sum(batch.target_count for batch in window),
        gradients=tree_map(lambda gradient: gradient / weight_sum, total),
    )


def clip(gradients: dict[str, Any], max_norm: float | None) -> tuple[dict[str, Any], float]:
    """Scale the gradients down so that the L2 norm over all of them is at most ``max_norm``; and that norm before.

    Source: Pascanu et al., 2013, algorithm 1, https://arxiv.org/abs/1211.5063
    """
    squares = [mx.sum(mx.square(gradient.astype(mx.float32))) for gradient in _leaves(gradients)]
    norm = float(mx.sqrt(mx.sum(mx.stack(squares))))
    if max_norm is None or norm <= max_norm:
        return gradients, norm
    return tree_map(lambda gradient: gradient * (max_norm / norm), gradients), norm


def _leaves(tree: dict[str, Any]) -> list[mx.array]:
    flat = tree_flatten(tree)
    assert isinstance(flat, list)  # a dict is what it gives for another destination
    return [array for _, array in flat if isinstance(array, mx.array)]
