"""The tokens that all rows of a batch begin with go through the network once, and long rows piece by piece.

mlx-lm's cache protocol carries both through every attention family without touching a model's code: a stretch of
positions runs while each layer's cache records its keys and values, and what follows it runs with caches that put the
recorded ones, broadcast over the rows, before its own. Gradients flow through all of it. So a prefix is read for one
row instead of many; and a row of L positions, in pieces of `PIECE`, makes attention score little more than the L^2 / 2
pairs that causality leaves of L^2. The price is a longer graph of smaller products. A recurrent layer starts from the
states that the stretch before left. Networks with other caches, or that read their inside, do not share;
`can_share_prefix` compares logits and says so.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx_lm.models.cache import ArraysCache, KVCache, RotatingKVCache, create_attention_mask, make_prompt_cache

Contents = Sequence[mx.array | None]
Forward = Callable[..., mx.array]
"""Of a network or its backbone: (token_ids [B, L], cache=None or one a layer) -> [B, L, ...]."""

PIECE = 256
"""Positions of a long row that run together, at most."""
PROBE_TOKENS = 32
"""Token ids that every vocabulary has, for trying sharing out."""


class StretchCache:
    """One layer's cache while a stretch of positions runs: the keys and values of the positions before it, if there are
    any, stand before its own.

    ``keys`` and ``values`` are those before the stretch, [1 or B, H, P, D], until it has run, then those with it.
    """

    def __init__(self, window: int | None, keys: mx.array | None = None, values: mx.array | None = None) -> None:
        self.offset = 0 if keys is None else keys.shape[2]
        self.window = window
        self.keys = keys
        self.values = values

    @property
    def contents(self) -> Contents:
        return [self.keys, self.values]

    @contents.setter
    def contents(self, contents: Contents) -> None:
        self.keys, self.values = contents

    def holding(self, contents: Contents) -> "StretchCache":
        """The same layer's cache for the stretch that follows after these contents."""
        return StretchCache(self.window, *contents)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        if self.keys is not None and self.values is not None:
            keys, values = joined(self.keys, keys), joined(self.values, values)
        self.keys, self.values = keys, values
        return keys, values

    def keys_and_values(self) -> tuple[mx.array | None, mx.array | None]:
        return self.keys, self.values

    def make_mask(self, length: int, *, return_array: bool = False, window_size: int | None = None) -> Any:
        return create_attention_mask(length, self.offset, return_array, window_size or self.window)


def joined(before: mx.array, rows: mx.array) -> mx.array:
    """[1 or B, H, P, D] and [B, H, L, D] to [B, H, P + L, D]."""
    return mx.concatenate([mx.broadcast_to(before, (rows.shape[0], *before.shape[1:])), rows], axis=2)


class StretchState(ArraysCache):
    """A recurrent layer's cache while a stretch runs: it starts from the states after the positions before it."""

    @property
    def contents(self) -> Contents:
        return self.cache

    @contents.setter
    def contents(self, contents: Contents) -> None:
        self.cache = list(contents)

    def holding(self, contents: Contents) -> "StretchState":
        """The same layer's cache for the stretch that follows after these contents."""
        following = StretchState(len(contents))
        following.contents = contents
        return following


@dataclass(frozen=True)
class States:
    """What a recurrent layer keeps, in place of keys and values: ``count`` arrays, of one size at every position."""

    count: int


Window = int | States | None
"""What a layer looks back at: so many positions, the states that it keeps, or (None) all."""


def layer_windows(network: nn.Module) -> list[Window] | None:
    """The attention window of each layer (None: unlimited), or its states; None when a layer keeps anything else."""
    windows: list[Window] = []
    for cache in make_prompt_cache(network):
        if type(cache) is ArraysCache:
            windows.append(States(len(cache.cache)))
        elif type(cache) in (KVCache, RotatingKVCache):
            windows.append(cache.max_size if isinstance(cache, RotatingKVCache) else None)
        else:
            return None
    return windows


def forward_shared(
    forward: Forward,
    windows: list[Window] | None,
    prefix_ids: mx.array,
    token_ids: mx.array,
    *,
    piece: int = PIECE,
) -> mx.array:
    """What ``forward`` gives for the rows when ``prefix_ids`` stand before each of them.

    Args:
        forward: of the network or its backbone, or of the blocks above some depth.
        windows: from `layer_windows`, of the same blocks; may be None where P is 0: rows then run whole.
        prefix_ids: [P]; P may be 0. Or [P, D], where ``forward`` takes states instead of token ids.
        token_ids: [B, L], or [B, L, D].
        piece: positions that run together, at most.

    Returns: [B, L, ...], for the row positions alone; equal to ``forward(prefix + row)[:, P:]``.
    """
    return forward_both(forward, windows, prefix_ids, token_ids, piece=piece)[1]


def forward_both(
    forward: Forward,
    windows: list[Window] | None,
    prefix_ids: mx.array,
    token_ids: mx.array,
    *,
    piece: int = PIECE,
) -> tuple[mx.array | None, mx.array]:
    """As `forward_shared`, with what ``forward`` gives for the prefix, [1, P, ...], before it; None where P is 0."""
    stretches = [(prefix_ids[None], part) for part in pieces(prefix_ids.shape[0], piece)]
    begun = len(stretches)
    stretches += [(token_ids, part) for part in pieces(token_ids.shape[1], piece)]
    if windows is None or len(stretches) == 1:
        assert begun == 0
        return None, forward(token_ids, cache=None)
    caches = new_caches(windows)
    found: list[mx.array] = []
    for ids, part in stretches:
        if found:
            caches = [cache.holding(for_rows(cache, cache.contents, ids.shape[0])) for cache in caches]
        found.append(forward(ids[:, part], cache=caches))
    prefix = mx.concatenate(found[:begun], axis=1) if begun else None
    return prefix, mx.concatenate(found[begun:], axis=1)


def new_caches(windows: Sequence[Window]) -> list[StretchCache | StretchState]:
    """A cache for each layer, before anything is read."""
    return [StretchState(one.count) if isinstance(one, States) else StretchCache(one) for one in windows]


def for_rows(cache: StretchCache | StretchState, contents: Contents, count: int) -> Contents:
    """``contents`` of a layer, of one row or of ``count``, for so many rows; keys and values are made as many where
    they are joined.
    """
    if isinstance(cache, StretchCache):
        return contents
    return [None if one is None else mx.broadcast_to(one, (count, *one.shape[1:])) for one in contents]


def pieces(length: int, most: int) -> list[slice]:
    """So many positions in pieces of like size, of ``most`` at most."""
    count = -(-length // most)
    bounds = [length * number // count for number in range(count + 1)] if count else [0]
    return [slice(start, end) for start, end in itertools.pairwise(bounds)]


def common_prefix_length(rows: list[np.ndarray]) -> int:
    """How many tokens all ``rows`` begin with alike."""
    shortest = min(len(row) for row in rows)
    same = np.all(np.stack([row[:shortest] for row in rows]) == rows[0][:shortest], axis=0)
    return shortest if same.all() else int(np.argmin(same))


def can_share_prefix(network: nn.Module) -> bool:
    """Whether sharing leaves this network's logits as they are: tried, once, on a few tokens.

    The root mean square of the difference is held against the logits' spread. Other shapes may take other kernels, so
    16-bit logits differ by some percent (SmolLM2-135M, bfloat16 against float32: 4 %); a position that is off by one
    makes a third there.
    """
    windows = layer_windows(network)
    if windows is None:
        return False
    tokens = mx.array(np.random.default_rng(0).integers(0, PROBE_TOKENS, (2, 12)))
    prefix = mx.broadcast_to(tokens[:1, :5], (2, 5))
    whole = network(mx.concatenate([prefix, tokens[:, 5:]], axis=1))[:, 5:]
    shared = forward_shared(network, windows, tokens[0, :5], tokens[:, 5:], piece=4)
    return is_alike(shared, whole)


def needs_caches(network: nn.Module) -> bool:
    """Whether this network is another one without caches: tried, once, on a few tokens.

    gemma3n's upper blocks take an earlier block's keys and values where there are caches, as they do in an answer, and
    else work out their own, from weights that were never trained.
    """
    tokens = mx.array(np.random.default_rng(0).integers(0, PROBE_TOKENS, (2, 12)))
    return not is_alike(network(tokens), network(tokens, cache=make_prompt_cache(network)))


def is_alike(found: mx.array, expected: mx.array) -> bool:
    """Whether logits differ by no more than other shapes of the same work make of them."""
    tolerance = 0.001 if expected.dtype == mx.float32 else 0.06
    found, expected = found.astype(mx.float32), expected.astype(mx.float32)
    difference = mx.sqrt(mx.mean(mx.square(found - expected)))
    return bool(difference <= tolerance * mx.std(expected))
