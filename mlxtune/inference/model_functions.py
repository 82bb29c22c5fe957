"""Functions that stand in for mlx-lm's own in the modules of a network while the engine has it.

mlx-lm's networks call ``scaled_dot_product_attention`` and ``swiglu`` by the names that their modules imported. The
engine gives those names other functions for as long as a step takes, and takes them back: training and everything else
runs as it is. A network that calls neither by these names is left as it is too. On the CPUs that `exponentials` is for,
linear layers multiply as `products` says for as long, whatever network they are of.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mlx import nn

from mlxtune.device import exponentials, products
from mlxtune.inference.attention import attention


class ModelFunctions:
    """Those of one network."""

    def __init__(self, network: nn.Module) -> None:
        wanted: dict[str, Any] = {"scaled_dot_product_attention": attention}
        if exponentials.are_slow():
            wanted["swiglu"] = exponentials.swiglu
        modules = [sys.modules[name] for name in {type(part).__module__ for part in network.modules()}]
        self._places: list[tuple[Any, str, Any]] = [
            (module, name, function) for module in modules for name, function in wanted.items() if hasattr(module, name)
        ]
        if exponentials.are_slow():
            self._places.append((nn.Linear, "__call__", products.linear))
            self._places.append((nn.Embedding, "as_linear", products.embedding_as_linear))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """While the block runs."""
        before = [getattr(place, name) for place, name, _ in self._places]
        try:
            for place, name, function in self._places:
                setattr(place, name, function)
            yield
        finally:
            for (place, name, _), function in zip(self._places, before, strict=True):
                setattr(place, name, function)
