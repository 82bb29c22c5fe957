"""The optimizers, by their names in a recipe."""

from collections.abc import Callable

import mlx.core as mx
from mlx import optimizers

from mlxtune.recipe.choices import OptimizerName

Make = Callable[[float], optimizers.Optimizer]
"""Of a weight decay; the learning rate is set before each update."""

OPTIMIZERS: dict[OptimizerName, Make] = {
    # The bias of the moments is corrected, as in the papers and in PyTorch and not by MLX's default: without it the
    # first updates are three to seven times too large, which a short run notices.
    # https://arxiv.org/abs/1711.05101, algorithm 2
    "adamw": lambda decay: optimizers.AdamW(0.0, [0.9, 0.999], 1e-8, decay, bias_correction=True),
    # https://arxiv.org/abs/1412.6980; it knows no decay of its own, and decaying is what makes it AdamW
    "adam": lambda _: optimizers.Adam(0.0, [0.9, 0.999], 1e-8, bias_correction=True),
    "sgd": lambda decay: optimizers.SGD(0.0, momentum=0.9, weight_decay=decay),
    "lion": lambda decay: optimizers.Lion(0.0, weight_decay=decay),  # https://arxiv.org/abs/2302.06675
    # https://arxiv.org/abs/1804.04235, with the recipe's own rate and schedule
    "adafactor": lambda decay: optimizers.Adafactor(0.0, weight_decay=decay, relative_step=False),
    "muon": lambda decay: optimizers.Muon(0.0, weight_decay=decay),  # https://kellerjordan.github.io/posts/muon
}


def make_optimizer(name: OptimizerName, *, weight_decay: float) -> optimizers.Optimizer:
    """An optimizer without a learning rate of its own: the loop sets that before each update.

    Weight decay is for matrices: biases, norms and other vectors are left out of it.
    """
    make = OPTIMIZERS[name]
    if weight_decay == 0.0:
        return make(0.0)
    return optimizers.MultiOptimizer([make(weight_decay), make(0.0)], [is_decayed])


def is_decayed(path: str, array: mx.array) -> bool:  # noqa: ARG001 - the shape of an optimizer's filter
    """Whether weight decay applies to a parameter."""
    return array.ndim > 1
