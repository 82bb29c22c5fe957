"""Gradient checkpointing: a block's inside is computed again in the backward pass instead of kept from the forward.

Memory for activations falls to about one input a block, at the price of a second forward pass of those blocks. What the
backward pass works out again must be what the forward pass did, so all that has a gradient is an explicit input or
output of the recomputed function: the trainable factors, every array that a block is handed, and the keys and values of
a shared prefix or of a row's earlier pieces, which otherwise get wrong gradients without a word. Dropout draws from its
layer's key both times.

Source: Training Deep Nets with Sublinear Memory Cost, https://arxiv.org/abs/1604.06174
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_map

from mlxtune.inference.shared_prefix import StretchCache, StretchState
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
    """The block's class with its forward pass inside `mx.checkpoint`.

    Families hand their blocks more than states: an earlier block's keys and values, or states of their own beside.
    """

    class Recomputed(kind):
        plain = kind

        def __call__(self, *args: Any, **options: Any) -> Any:
            given = (*args, *options.values())
            cache = next((one for one in given if isinstance(one, StretchCache | StretchState)), None)
            if cache is None and any(hasattr(one, "state") for one in given):
                return kind.__call__(self, *args, **options)  # a cache of generation is no function of arrays
            places, arrays = _taken_out([args, options, [] if cache is None else cache.contents])
            rest: list[Any] = []

            def run(parameters: dict[str, Any], arrays: list[mx.array]) -> list[mx.array]:
                self.update(parameters)
                args, options, before = _put_back(places, arrays)
                inner = None
                if cache is not None:
                    inner = cache.holding(before)
                    args, options = tree_map(lambda one: inner if one is cache else one, [args, options])
                result = kind.__call__(self, *args, **options)
                rest[:], found = _taken_out([result, [] if inner is None else inner.contents])
                return found

            result, after = _put_back(rest, mx.checkpoint(run)(self.trainable_parameters(), arrays))
            if cache is not None:
                cache.contents = after
            return result

    Recomputed.__name__ = Recomputed.__qualname__ = kind.__name__
    return Recomputed


@dataclass(frozen=True)
class _Place:
    """Where an array stood."""

    number: int


def _taken_out(tree: Any) -> tuple[Any, list[mx.array]]:
    """The tree with a place for each array that may have a gradient, and these arrays, each of them once.

    Of an array that came out twice, only one of the gradients would count.
    """
    arrays: list[mx.array] = []

    def take(leaf: Any) -> Any:
        if not isinstance(leaf, mx.array) or not mx.issubdtype(leaf.dtype, mx.floating):
            return leaf
        number = next((number for number, array in enumerate(arrays) if array is leaf), len(arrays))
        if number == len(arrays):
            arrays.append(leaf)
        return _Place(number)

    return tree_map(take, tree), arrays


def _put_back(tree: Any, arrays: Sequence[mx.array]) -> Any:
    """The tree with the arrays in their places."""
    return tree_map(lambda leaf: arrays[leaf.number] if isinstance(leaf, _Place) else leaf, tree)
