"""What prompts begin with, read once and kept: a system prompt, the turns of a conversation so far.

What each layer keeps of some tokens is held; a prompt that begins with them, or with a part of them where the layers
can go back, is read from there on. Each adapter has its own. Where the network's layers can have a prefix
(`PrefixedCache`), what was read once is handed out without a copy, and prompts that share it share its memory. Knows
nothing of batches.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx_lm.models.cache import can_trim_prompt_cache, make_prompt_cache, trim_prompt_cache

from mlxtune.inference.prefix_cache import WORTH_SHARING, PrefixedCache
from mlxtune.inference.shared_prefix import common_prefix_length

MOST = 64
"""Beginnings that are kept, at most."""
STEP = 512
"""Tokens that are read at once, at most."""
WORTH_READING = 16
"""Tokens from which on a beginning is read apart from the prompts that have it."""

Cache = list[Any]
"""What each layer of a network keeps: mlx-lm's, or `PrefixedCache`."""


@dataclass(frozen=True, eq=False)
class _Kept:
    """What was read of some tokens."""

    adapter: str
    token_ids: np.ndarray
    """int64."""
    cache: Cache
    can_go_back: bool

    def usable(self, token_ids: np.ndarray) -> int:
        """How many tokens of another prompt's beginning it serves."""
        same = common_prefix_length([self.token_ids, token_ids])
        return same if same == len(self.token_ids) or self.can_go_back else 0

    @property
    def is_bare(self) -> bool:
        """Whether it is a prefix and nothing more, which costs no memory beside those that have the prefix."""
        return all(isinstance(layer, PrefixedCache) and layer.own.empty() for layer in self.cache)


class Beginnings:
    """What one network has read, by adapter; it has that adapter on whenever it is asked to read."""

    def __init__(self, network: nn.Module, *, most_bytes: int, has_prefixes: bool = False) -> None:
        """Args:
        most_bytes: of everything that is kept.
        has_prefixes: of what is read from now on, whether caches are `PrefixedCache`, which its layers take.
        """
        self._network = network
        self._most_bytes = most_bytes
        self.has_prefixes = has_prefixes
        self._kept: list[_Kept] = []  # those used last at the end
        self.nbytes = 0
        """Of everything that is kept; a prefix that several have counts once, and as a whole where they have a part."""

    def new(self) -> Cache:
        """A cache of nothing."""
        layers = make_prompt_cache(self._network)
        return [PrefixedCache() for _ in layers] if self.has_prefixes else layers

    def longest(self, adapter: str, prompt: Sequence[int]) -> tuple[Cache | None, int]:
        """A cache to go on with, of what was read of the prompt's beginning, and how many tokens that is: never all of
        them; 0 with None.
        """
        token_ids = np.asarray(prompt[:-1], np.int64)
        found = [(one.usable(token_ids), -len(one.token_ids), one) for one in self._kept if one.adapter == adapter]
        length, _, best = max(found, default=(0, 0, None), key=lambda one: one[:2])
        if best is None or length == 0:
            return None, 0
        self._kept.remove(best)
        self._kept.append(best)
        return _first(best.cache, length, len(best.token_ids)), length

    def read(self, adapter: str, beginning: Sequence[int]) -> None:
        """Read these tokens, and keep them, unless all but a few are there."""
        cache, length = self.longest(adapter, [*beginning, 0])
        if len(beginning) - length >= WORTH_READING:
            cache = self.new() if cache is None else cache
            for start in range(length, len(beginning), STEP):
                part = beginning[start : min(start + STEP, len(beginning))]
                self._network(mx.array([list(part)]), cache=cache)
                mx.eval([layer.state for layer in cache])
            length = len(beginning)
        elif cache is None or not self.has_prefixes or cache[0].own.offset < WORTH_SHARING:
            return
        if self.has_prefixes and length >= WORTH_SHARING:
            cache = [layer.as_prefix() for layer in cache]
        self.keep(adapter, beginning[:length], cache)

    def keep(self, adapter: str, token_ids: Sequence[int], cache: Cache) -> None:
        """Keep what was read of these tokens; the oldest others go where they are too many or too large."""
        mx.eval([layer.state for layer in cache])
        new = _Kept(adapter, np.asarray(token_ids, np.int64), cache, can_trim_prompt_cache(cache))
        self._kept = [one for one in self._kept if not _is_served_by(one, new)]
        self._kept.append(new)
        while len(self._kept) > MOST or _nbytes(self._kept) > self._most_bytes:
            del self._kept[0]
        self.nbytes = _nbytes(self._kept)


def _nbytes(kept: Sequence[_Kept]) -> int:
    layers = [layer for one in kept for layer in one.cache]
    prefixes = {layer.prefix.whole for layer in layers if getattr(layer, "prefix", None) is not None}
    return sum(layer.nbytes for layer in layers) + sum(one.nbytes for one in prefixes)


def _is_served_by(one: _Kept, new: _Kept) -> bool:
    """Whether nothing is lost without ``one``."""
    if one.adapter != new.adapter or new.usable(one.token_ids) < len(one.token_ids):
        return False
    return len(one.token_ids) == len(new.token_ids) or not one.is_bare


def _first(cache: Cache, length: int, read: int) -> Cache:
    """A cache that goes on after the first ``length`` of the ``read`` tokens and leaves ``cache`` as it is."""
    if all(isinstance(layer, PrefixedCache) for layer in cache):
        return [layer.first(length) for layer in cache]
    cache = copy.deepcopy(cache)
    if length < read:
        trim_prompt_cache(cache, read - length)
    return cache
