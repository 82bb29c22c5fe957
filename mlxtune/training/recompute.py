"""Gradient checkpointing: a block's inside is computed again in the backward pass instead of kept from the forward.

Memory for activations falls to about one input a block, at the price of a second forward pass of those blocks. What the
backward pass works out again must be what the forward pass did, so all that has a gradient is an explicit input or
output of the recomputed function: the trainable factors, and the keys and values of a shared prefix or of a row's
earlier pieces, which otherwise get wrong gradients without a word. Dropout draws from its layer's key both times.

Source: Training Deep Nets with Sublinear Memory Cost, https://arxiv.org/abs/1604.06174
"""

from typing import Any

import mlx.core as mx
from mlx import nn

from mlxtune.inference.shared_prefix import StretchCache
from mlxtune.training.frozen_prefix import trains


def recompute_blocks(network: Any, every: int | None) -> int:
    """Let every ``every``-th block that trains be recomputed, in place, from the topmost down; how many those are.

    Only the blocks' class changes, so that their parameters keep their names. Caches of generation are not affected.

    Args:
        every: None recomputes none; whatever was set before no longer counts.
    """
    for block in network.layers:
        block.__class__ = getattr(type(block), "plain", type(block))
    chosen = [block for block in network.layers if trains(block)][::-1][::every] if every else []
    for block in chosen:
        block.__class__ = _recomputed(type(block))
    return len(chosen)


def _recomputed(kind: type[nn.Module]) -> type[nn.Module]:
    """The block's class with its forward pass inside `mx.checkpoint`."""

    class Recomputed(kind):
        plain = kind

        def __call__(self, x: mx.array, mask: Any = None, cache: Any = None, *rest: Any, **options: Any) -> mx.array:
            def run(parameters: dict[str, Any], x: mx.array, inner: Any) -> mx.array:
                self.update(parameters)
                return kind.__call__(self, x, mask, inner, *rest, **options)

            parameters = self.trainable_parameters()
            if cache is None:
                return mx.checkpoint(lambda parameters, x: run(parameters, x, None))(parameters, x)
            if not isinstance(cache, StretchCache):
                return kind.__call__(self, x, mask, cache, *rest, **options)

            def stretch(parameters: dict[str, Any], x: mx.array, *before: mx.array) -> tuple[Any, ...]:
                inner = StretchCache(cache.window, *before)
                return run(parameters, x, inner), inner.keys, inner.values

            before = () if cache.keys is None or cache.values is None else (cache.keys, cache.values)
            result, cache.keys, cache.values = mx.checkpoint(stretch)(parameters, x, *before)
            return result

    Recomputed.__name__ = Recomputed.__qualname__ = kind.__name__
    return Recomputed
