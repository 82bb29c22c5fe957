"""One update's arithmetic: the gradient of a batch, and what a window's gradients make of the parameters.

All are functions of arrays alone, so that they can be compiled: what changes comes in and goes out. Knows a loss as a
function of a batch; nothing of data, schedules or files.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx import nn, optimizers
from mlx.utils import tree_flatten, tree_map

from mlxtune.adapters.lora import forget_gains, set_dropout_keys
from mlxtune.data.batch import Batch
from mlxtune.training.masters import AtUse, as_they_are

Loss = Callable[[Batch], tuple[mx.array, list[mx.array]]]
"""The loss of one batch, summed over all that it is a mean of, and sums of figures that are told with it: float32
scalars."""

Tree = dict[str, Any]

COMPILED_AT_MOST = 1 << 24
"""Numbers that train, of which the update is compiled where a step is. A compiled one has fewer kernels to start, but
MLX gives the place of an old array to at most one of a kernel's results: with many numbers memory matters more."""


@dataclass(frozen=True)
class Step:
    """The parts of an update; see `make_step`."""

    gradient: Callable[[Batch, mx.array], tuple[mx.array, list[mx.array], Tree]]
    """The loss sum of a batch, with the key that dropout draws from; its figures; and the sum's gradient in the
    trainable parameters."""
    norm: Callable[[Tree, mx.array], mx.array]
    """(gradient sum, weight sum) to the L2 norm of the mean gradient, by which one knows whether to update at all."""
    apply: Callable[[Tree, Tree, Tree, mx.array, mx.array], tuple[Tree, Tree]]
    """(parameters, optimizer state, gradient sum, weight sum, norm) to (parameters, optimizer state). It takes hardly
    any memory of its own if nobody holds what it is given by the time that the result is evaluated."""


def make_step(
    network: nn.Module,
    optimizer: optimizers.Optimizer,
    loss: Loss,
    *,
    max_grad_norm: float | None,
    compiled: bool = False,
    at_use: AtUse = as_they_are,
) -> Step:
    """The arithmetic of a run's updates.

    The sums over all batches of a window are divided by the sum of their weights, so that the result is the same
    however the rows were cut into batches. A mean of the batches' means would weigh a target by the company it keeps.

    Args:
        compiled: whether each shape of batch is compiled when it is first met.
        at_use: what the forward pass computes with, made of the parameters.
    """

    def loss_of(parameters: Tree, key: mx.array, *arrays: mx.array) -> tuple[mx.array, list[mx.array]]:
        network.update(at_use(parameters))
        set_dropout_keys(network, key)
        return loss(Batch.of_arrays(arrays))

    def norm(gradient_sum: Tree, weight_sum: mx.array) -> mx.array:
        return norm_of(mean(gradient_sum, weight_sum))

    def apply(
        parameters: Tree, state: Tree, gradient_sum: Tree, weight_sum: mx.array, norm: mx.array
    ) -> tuple[Tree, Tree]:
        gradients = clip(mean(gradient_sum, weight_sum), norm, max_grad_norm)
        optimizer.state = tree_map(lambda array: array, state)
        updated = optimizer.apply_gradients(gradients, parameters)
        return updated, optimizer.state

    loss_and_gradient = mx.value_and_grad(loss_of)
    if compiled:
        loss_and_gradient, norm = mx.compile(loss_and_gradient), mx.compile(norm)
        if sum(array.size for array in leaves(network.trainable_parameters())) <= COMPILED_AT_MOST:
            apply = mx.compile(apply)

    def gradient(batch: Batch, key: mx.array) -> tuple[mx.array, list[mx.array], Tree]:
        parameters = network.trainable_parameters()
        try:
            (loss_sum, figures), gradients = loss_and_gradient(parameters, key, *batch.arrays())
            return loss_sum, figures, gradients
        finally:  # tracing left its own arrays in the network
            network.update(parameters)
            set_dropout_keys(network, None)
            forget_gains(network)

    return Step(gradient, norm, apply)


def leaves(tree: Tree) -> list[mx.array]:
    """The arrays of a tree, in its order."""
    return [array for _, array in tree_flatten(tree) if isinstance(array, mx.array)]


def mean(gradient_sum: Tree, weight_sum: mx.array) -> Tree:
    """The gradient of the mean loss."""
    return tree_map(lambda gradient: gradient / weight_sum, gradient_sum)


def norm_of(gradients: Tree) -> mx.array:
    """The L2 norm over all of them: a float32 scalar."""
    # row by row: on the CPU MLX adds a whole array to one float32, which stands still from 2^24 times what comes
    arrays = [gradient.astype(mx.float32) for gradient in leaves(gradients)]
    rows = [mx.sum(mx.square(array), axis=-1 if array.ndim else None) for array in arrays]
    return mx.sqrt(mx.sum(mx.stack([mx.sum(row) for row in rows])))


def clip(gradients: Tree, norm: mx.array, max_norm: float | None) -> Tree:
    """Scale the gradients, whose L2 norm is ``norm``, down so that it is at most ``max_norm``.

    Source: Pascanu et al., 2013, algorithm 1, https://arxiv.org/abs/1211.5063
    """
    if max_norm is None:
        return gradients
    factor = mx.minimum(1.0, max_norm / norm)
    return tree_map(lambda gradient: gradient * factor.astype(gradient.dtype), gradients)
