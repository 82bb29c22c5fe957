"""How large an adapter is beside the weights that it changes: one number a layer, |D| / |W|.

W is a layer's weight and D what the adapter adds to it (LoRA: scale B A); both are taken by their Frobenius norm. A new
adapter has D = 0, so an adapter that learned nothing is known by its size alone. Knows networks and nothing of what was
learned. The price is one dequantized layer in memory at a time.
"""

import statistics
from dataclasses import asdict, dataclass

import mlx.core as mx
import numpy as np
from mlx import nn

from mlxtune.adapters.merge import layer_updates


@dataclass(frozen=True)
class UpdateNorm:
    """|D| / |W| over the adapted layers: its median and its largest; how many layers there are."""

    relative_norm: float
    largest: float
    layers: int

    def to_json(self) -> dict[str, float | int]:
        return asdict(self)


def update_norm(network: nn.Module, plain: nn.Module | None = None) -> UpdateNorm | None:
    """The size of the adapter on ``network``; None if there is none, or its weights are not finite.

    Args:
        plain: the base in a network of its own, where full fine-tuning has replaced it in this one.

    A layer whose own weight is zero says nothing and is left out.
    """
    ratios = []
    for _, (weight, update) in layer_updates(network, plain):
        norms = mx.stack([mx.linalg.norm(weight.flatten()), mx.linalg.norm(update.flatten())])
        before, added = np.array(norms).tolist()
        if before > 0:
            ratios.append(added / before)
    if not ratios or not all(ratio < float("inf") for ratio in ratios):
        return None
    return UpdateNorm(statistics.median(ratios), max(ratios), len(ratios))
