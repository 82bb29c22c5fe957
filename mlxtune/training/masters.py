"""Master weights: what trains is float32, also where the network computes in fewer bits.

An optimizer's step is often smaller than bfloat16 can tell apart, so that weights kept in it would stand still. LoRA's
factors are brought to the activations' type inside their layers; the network's own weights have no such place, and are
brought to it here, all at once, before a step or a validation. The gradient goes back through that and arrives in
float32. The price, on a GPU: 4 bytes a trained weight for the master and 2 for the copy, beside the optimizer's.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_map, tree_map_with_path

from mlxtune.device.precision import casting

Tree = dict[str, Any]
AtUse = Callable[[Tree], Tree]
"""Of the parameters that train: what the network computes with."""


def as_they_are(parameters: Tree) -> Tree:
    """Nothing is to be brought to anything: on the CPU, and for LoRA everywhere."""
    return parameters


def brought_to(network: nn.Module, dtype: mx.Dtype) -> AtUse:
    """A function that brings weights of ``network`` to ``dtype``, but those that its family needs in float32."""
    cast = casting(network, dtype)
    return lambda parameters: tree_map_with_path(cast, parameters)


def keep_masters(network: nn.Module) -> None:
    """Bring what trains to float32, in place."""
    network.update(tree_map(lambda array: array.astype(mx.float32), network.trainable_parameters()))


@contextmanager
def in_use(network: nn.Module, at_use: AtUse) -> Iterator[None]:
    """While it lasts the network has what it computes with, and its masters again afterwards."""
    masters = network.trainable_parameters()
    network.update(at_use(masters))
    try:
        yield
    finally:
        network.update(masters)
