"""Several adapters over one base network, all in memory, of which one at a time is on it.

The base's weights are there once. What an adapter brings are the layers that take the place of the base's own, and
putting it on is putting them there, at the price of some hundred assignments. Knows nothing of what the network is
asked.
"""

from pathlib import Path
from typing import Any

from mlx import nn
from mlx.utils import tree_unflatten

from mlxtune.adapters.open import attach_adapter
from mlxtune.errors import AdapterError

BASE = "base"
"""The name under which no adapter is on the network."""


class AdapterBank:
    """A network's adapters by name; ``base``, which is none, is always there."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.selected = BASE
        self._own = dict(network.named_modules())
        self._layers: dict[str, dict[str, nn.Module]] = {BASE: {}}

    @property
    def names(self) -> list[str]:
        """In the order in which they came, the base first."""
        return list(self._layers)

    def add(self, name: str, folder: Path) -> None:
        """Open the adapter in ``folder``; it is not put on.

        Raises: AdapterError, if the name is taken, or the adapter cannot be read or does not fit: then nothing changed.
        """
        if name in self._layers:
            raise AdapterError(f"two models are called {name}", where=folder, remedy="give one of them another name")
        before = self.selected
        self.select(BASE)
        try:
            attach_adapter(self.network, folder)
            self._layers[name] = self._replaced()
        finally:
            self._put(self._own_of(self._replaced()))
            self.select(before)

    def select(self, name: str) -> None:
        """Put this adapter on, in the place of the one that is."""
        if name == self.selected:
            return
        taken_off = self._own_of(self._layers[self.selected])
        self._put(taken_off | self._layers[name])
        self.selected = name

    def _replaced(self) -> dict[str, nn.Module]:
        """The layers that stand in the place of the base's own, by path; none of them is part of another."""
        now = dict(self.network.named_modules())
        found = {path: now[path] for path, own in self._own.items() if path in now and now[path] is not own}
        return {path: layer for path, layer in found.items() if not any(path.startswith(f"{one}.") for one in found)}

    def _own_of(self, layers: dict[str, nn.Module]) -> dict[str, nn.Module]:
        return {path: self._own[path] for path in layers}

    def _put(self, layers: dict[str, Any]) -> None:
        if layers:
            self.network.update_modules(tree_unflatten(list(layers.items())))
