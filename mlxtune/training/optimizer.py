"""The optimizers, by their names in a recipe: MLX's, with the settings that their papers have.

A recipe has one learning rate and one decay whatever the optimizer, so each takes the rate as it is, and a decay never
goes into what the gradient's direction is worked out from. Where MLX does otherwise by default, it is said below.
"""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
from mlx import optimizers

from mlxtune.recipe.choices import OptimizerName

Make = Callable[[float], optimizers.Optimizer]
"""Of a weight decay; the learning rate is set before each update."""


class Muon(optimizers.Muon):
    """MLX's Muon with the weight decay beside the update, as AdamW has it.

    MLX adds the decay to the gradient, whose length is then normalized away: where gradients are short, as in training
    adapters, the weights themselves become the direction of the update.

    Source: Muon is Scalable for LLM Training, section 2.2, https://arxiv.org/abs/2502.16982
    """

    def __init__(self, decay: float) -> None:
        super().__init__(0.0, weight_decay=0.0)
        self.decay = decay

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict[str, Any]) -> mx.array:
        """The parameter's next value."""
        rate = self.learning_rate.astype(gradient.dtype)
        return super().apply_single(gradient, parameter * (1 - rate * self.decay), state)


OPTIMIZERS: dict[OptimizerName, Make] = {
    # The bias of the moments is corrected, as in the papers and in PyTorch and not by MLX's default: without it the
    # first updates are three to seven times too large, which a short run notices.
    # https://arxiv.org/abs/1711.05101, algorithm 2
    "adamw": lambda decay: optimizers.AdamW(0.0, [0.9, 0.999], 1e-8, decay, bias_correction=True),
    # https://arxiv.org/abs/1412.6980; it knows no decay of its own, and decaying is what makes it AdamW
    "adam": lambda _: optimizers.Adam(0.0, [0.9, 0.999], 1e-8, bias_correction=True),
    # Nothing is normalized here, so decay in the gradient (https://arxiv.org/abs/1711.05101, algorithm 1) does no harm.
    "sgd": lambda decay: optimizers.SGD(0.0, momentum=0.9, weight_decay=decay),
    "lion": lambda decay: optimizers.Lion(0.0, weight_decay=decay),  # https://arxiv.org/abs/2302.06675
    # https://arxiv.org/abs/1804.04235, algorithm 4 with absolute steps, those of the recipe's schedule. Steps relative
    # to the parameter's size would all but stop a factor B of LoRA, which starts at zero.
    "adafactor": lambda decay: optimizers.Adafactor(
        0.0, weight_decay=decay, relative_step=False, scale_parameter=False
    ),
    "muon": Muon,  # https://kellerjordan.github.io/posts/muon
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
