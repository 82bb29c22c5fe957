"""One update's arithmetic: the gradient of a batch, and what a window's gradients make of the parameters.

Both are functions of arrays alone, so that they can be compiled: all that changes comes in and goes out. Knows an
objective as a function of a batch; nothing of data, schedules or files.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx import nn, optimizers
from mlx.utils import tree_flatten, tree_map

from mlxtune.adapters.lora import set_dropout_keys
from mlxtune.data.batch import Batch

Objective = Callable[[Batch], mx.array]
"""The loss of one batch, summed over its targets: a float32 scalar."""

Tree = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """The two halves of an update; see `make_step`."""

    gradient: Callable[[Batch, mx.array], tuple[mx.array, Tree]]
    """Of a batch's loss sum in the trainable parameters, with the key that dropout draws from; and the sum itself."""
    apply: Callable[[Tree, Tree, Tree, mx.array], tuple[Tree, Tree, mx.array]]
    """(parameters, optimizer state, gradient sum, weight sum) to (parameters, optimizer state, norm of the mean
    gradient before clipping)."""


def make_step(
    network: nn.Module,
    optimizer: optimizers.Optimizer,
    objective: Objective,
    *,
    max_grad_norm: float | None,
    compiled: bool = False,
) -> Step:
    """The arithmetic of a run's updates.

    The sums over all batches of a window are divided by the sum of their weights, so that the result is the same
    however the rows were cut into batches. A mean of the batches' means would weigh a target by the company it keeps.

    Args:
        compiled: whether each shape of batch is compiled when it is first met.
    """

    def loss_of(parameters: Tree, key: mx.array, *arrays: mx.array) -> mx.array:
        network.update(parameters)
        set_dropout_keys(network, key)
        return objective(Batch.of_arrays(arrays))

    def apply(parameters: Tree, state: Tree, gradient_sum: Tree, weight_sum: mx.array) -> tuple[Tree, Tree, mx.array]:
        gradients, norm = clip(tree_map(lambda gradient: gradient / weight_sum, gradient_sum), max_grad_norm)
        optimizer.state = tree_map(lambda array: array, state)
        updated = optimizer.apply_gradients(gradients, parameters)
        return updated, optimizer.state, norm

    loss_and_gradient = mx.value_and_grad(loss_of)
    if compiled:
        loss_and_gradient, apply = mx.compile(loss_and_gradient), mx.compile(apply)

    def gradient(batch: Batch, key: mx.array) -> tuple[mx.array, Tree]:
        parameters = network.trainable_parameters()
        try:
            return loss_and_gradient(parameters, key, *batch.arrays())
        finally:  # tracing left its own arrays in the network
            network.update(parameters)
            set_dropout_keys(network, None)

    return Step(gradient, apply)


def leaves(tree: Tree) -> list[mx.array]:
    """The arrays of a tree, in its order."""
    return [array for _, array in tree_flatten(tree) if isinstance(array, mx.array)]


def clip(gradients: Tree, max_norm: float | None) -> tuple[Tree, mx.array]:
    """Scale the gradients down so that the L2 norm over all of them is at most ``max_norm``; and that norm before.

    Source: Pascanu et al., 2013, algorithm 1, https://arxiv.org/abs/1211.5063
    """
    # row by row: on the CPU MLX adds a whole array to one float32, which stands still from 2^24 times what comes
    rows = [mx.sum(mx.square(gradient.astype(mx.float32)), axis=-1) for gradient in leaves(gradients)]
    norm = mx.sqrt(mx.sum(mx.stack([mx.sum(row) for row in rows])))
    if max_norm is None:
        return gradients, norm
    factor = mx.minimum(1.0, max_norm / norm)
    return tree_map(lambda gradient: gradient * factor.astype(gradient.dtype), gradients), norm
