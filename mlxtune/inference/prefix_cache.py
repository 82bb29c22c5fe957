"""Caches of prompts that begin alike: the beginning's keys and values are held once, each prompt has what follows.

They keep to the protocol of mlx-lm's `KVCache` and `BatchKVCache`, so that its batch generation works with them, and
are read by `attention`, which knows of the beginning. Rows of one batch may begin differently, or with nothing in
common. A long system message takes its memory once, and a step reads it once, not once a row ("Hydragen",
https://arxiv.org/abs/2402.05099). Only for layers that keep all keys: a window or a state has no part that stays.
"""

from collections.abc import Sequence
from typing import Any
from weakref import WeakValueDictionary

import mlx.core as mx
from mlx_lm.models.cache import BatchKVCache, KVCache

WORTH_SHARING = 128
"""Tokens from which on a beginning is a prefix: a shorter one takes less time as each row's own."""
NO_WINDOW = "a layer with a window has no prefix"


class Prefix:
    """One layer's keys and values, [1, H, P, D] each, of tokens that prompts begin with. Nothing changes them."""

    def __init__(self, keys: mx.array, values: mx.array, whole: "Prefix | None" = None) -> None:
        self.keys = keys
        self.values = values
        self._whole = whole
        self._shorter: WeakValueDictionary[int, Prefix] = WeakValueDictionary()

    def __len__(self) -> int:
        return self.keys.shape[2]

    def __deepcopy__(self, memo: Any) -> "Prefix":
        return self

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    @property
    def whole(self) -> "Prefix":
        """The prefix whose memory this one has a part of, or is."""
        return self if self._whole is None else self._whole

    def first(self, length: int) -> "Prefix":
        """The first so many of its tokens: one and the same for all who go on from there."""
        if length == len(self):
            return self
        found = self._shorter.get(length)
        if found is None:
            first = self.keys[:, :, :length], self.values[:, :, :length]
            found = self._shorter[length] = Prefix(*first, self.whole)
        return found


class PrefixedCache:
    """One layer's cache of one prompt: what it begins with, and ``own`` for the tokens that follow."""

    def __init__(self, prefix: Prefix | None = None, own: KVCache | None = None) -> None:
        self.prefix = prefix
        self.own: Any = KVCache() if own is None else own

    @property
    def offset(self) -> int:
        """Tokens that were read."""
        return (len(self.prefix) if self.prefix else 0) + self.own.offset

    @property
    def state(self) -> Any:
        """Its arrays."""
        before = [] if self.prefix is None else [self.prefix.keys, self.prefix.values]
        return [*before, *self.own.state[:2]]

    @property
    def nbytes(self) -> int:
        """Of its own part."""
        return self.own.nbytes

    def is_trimmable(self) -> bool:
        return True

    @property
    def groups(self) -> "Groups":
        return [(self.prefix, None)]

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Take in what follows; gives the own part alone."""
        return self.own.update_and_fetch(keys, values)

    def make_mask(self, length: int, *, return_array: bool = False, window_size: int | None = None) -> Any:
        """Of the own part; all of the prefix is seen. Raises: ValueError, for a window."""
        _check(window_size)
        return self.own.make_mask(length, return_array=return_array, window_size=None)

    def first(self, length: int) -> "PrefixedCache":
        """The cache of the first so many tokens, which may go on by itself; no memory is copied."""
        before = min(length, self.offset - self.own.offset)
        if self.prefix and before == length and length < WORTH_SHARING:
            return PrefixedCache(None, _holding(self.prefix, length))
        own = _holding(self.own, length - before) if length > before else None
        return PrefixedCache(self.prefix.first(before) if self.prefix else None, own)

    def as_prefix(self) -> "PrefixedCache":
        """The same tokens, all of them as a prefix."""
        parts = [self.prefix] if self.prefix else []
        if self.own.offset:
            length = self.own.offset
            parts.append(Prefix(self.own.keys[:, :, :length], self.own.values[:, :, :length]))
        if not parts or (self.prefix and len(parts) == 1):
            return PrefixedCache(self.prefix)
        keys = mx.concatenate([part.keys for part in parts], axis=2)  # of one part too: a copy without spare room
        return PrefixedCache(Prefix(keys, mx.concatenate([part.values for part in parts], axis=2)))

    @staticmethod
    def merge(caches: "Sequence[PrefixedCache]") -> "PrefixedBatch":
        return PrefixedBatch.merge(caches)


Groups = list[tuple[Prefix | None, list[int] | None]]
"""Prefixes with the rows that have them; None: all rows."""


class PrefixedBatch(BatchKVCache):
    """One layer's cache of many prompts: mlx-lm's own for what follows, and each row's prefix.

    ``offset`` counts the prefix too, since it places the tokens that come; everything else is of the own part.
    """

    prefixes: list[Prefix | None]
    groups: Groups

    @classmethod
    def merge(cls, caches: Sequence[PrefixedCache]) -> "PrefixedBatch":
        batch = super().merge([cache.own for cache in caches])
        if type(batch) is not cls:  # mlx-lm makes its own where nothing is read yet
            batch = cls([0] * len(caches))
        batch.offset = batch.offset + mx.array([cache.offset - cache.own.offset for cache in caches])
        batch._begin([cache.prefix for cache in caches])
        return batch

    def _begin(self, prefixes: list[Prefix | None]) -> None:
        self.prefixes = prefixes
        rows: dict[int, list[int]] = {}
        for row, prefix in enumerate(prefixes):
            rows.setdefault(id(prefix), []).append(row)
        groups: Groups = [(prefixes[of[0]], of) for of in rows.values()]
        self.groups = [(groups[0][0], None)] if len(groups) == 1 else groups

    def make_mask(self, N: int, return_array: bool = False, **kwargs: Any) -> Any:  # noqa: N803 - mlx-lm's name
        """Of the own part; all of a prefix is seen. Raises: ValueError, for a window."""
        _check(kwargs.get("window_size"))
        return super().make_mask(N, return_array, **kwargs)

    def filter(self, batch_indices: list[int]) -> None:
        super().filter(batch_indices)
        self._begin([self.prefixes[i] for i in batch_indices])

    def extend(self, other: "PrefixedBatch") -> None:
        super().extend(other)
        self._begin(self.prefixes + other.prefixes)

    def extract(self, idx: int) -> PrefixedCache:  # pyright: ignore[reportIncompatibleMethodOverride]
        return PrefixedCache(self.prefixes[idx], super().extract(idx))


def _holding(held: Any, length: int) -> KVCache:
    """A cache of the first ``length`` tokens of what holds keys and values, without a copy."""
    own: Any = KVCache()
    if length:
        own.keys, own.values, own.offset = held.keys[:, :, :length], held.values[:, :, :length], length
    return own


def _check(window_size: int | None) -> None:
    if window_size is not None:
        raise ValueError(NO_WINDOW)
