"""The tokens that all rows of a batch begin with go through the network once.

mlx-lm's cache protocol carries them through every attention family without touching a model's code: the prefix runs
once, [1, P], while each layer's cache records its keys and values; the rows then run, [B, L], with caches that put the
recorded keys and values, broadcast over B, before the row's own. Gradients flow through both. Layers whose cache is
something else (a recurrent state, a quantized cache) do not share; `can_share_prefix` compares logits and says so.
"""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx_lm.models.cache import KVCache, RotatingKVCache, create_attention_mask, make_prompt_cache

Forward = Callable[..., mx.array]
"""Of a network or its backbone: (token_ids [B, L], cache=None or one a layer) -> [B, L, ...]."""

PROBE_TOKENS = 32
"""Token ids that every vocabulary has, for trying sharing out."""


class RecordingCache:
    """One layer's cache while the prefix runs: returns what it is given, and keeps it."""

    def __init__(self, window: int | None) -> None:
        self.offset = 0
        self.window = window
        self.keys: mx.array | None = None
        self.values: mx.array | None = None

    def prefixed(self) -> "PrefixedCache":
        """The same layer's cache for the rows that follow."""
        assert self.keys is not None
        assert self.values is not None
        return PrefixedCache(self.keys, self.values, self.window)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        self.keys, self.values = keys, values
        return keys, values

    def keys_and_values(self) -> tuple[mx.array | None, mx.array | None]:
        return self.keys, self.values

    def make_mask(self, length: int, *, return_array: bool = False, window_size: int | None = None) -> Any:
        return create_attention_mask(length, self.offset, return_array, window_size or self.window)


class PrefixedCache:
    """One layer's cache while the rows run: the recorded prefix, [1, H, P, D], stands before every row's own keys."""

    def __init__(self, prefix_keys: mx.array, prefix_values: mx.array, window: int | None) -> None:
        self.prefix_keys, self.prefix_values = prefix_keys, prefix_values
        self.offset = prefix_keys.shape[2]
        self.window = window
        self.keys: mx.array | None = None
        self.values: mx.array | None = None

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        self.keys = _joined(self.prefix_keys, keys)
        self.values = _joined(self.prefix_values, values)
        return self.keys, self.values

    def keys_and_values(self) -> tuple[mx.array | None, mx.array | None]:
        return self.keys, self.values

    def make_mask(self, length: int, *, return_array: bool = False, window_size: int | None = None) -> Any:
        return create_attention_mask(length, self.offset, return_array, window_size or self.window)


def _joined(prefix: mx.array, rows: mx.array) -> mx.array:
    """[1, H, P, D] and [B, H, L, D] to [B, H, P + L, D]."""
    return mx.concatenate([mx.broadcast_to(prefix, (rows.shape[0], *prefix.shape[1:])), rows], axis=2)


def layer_windows(network: nn.Module) -> list[int | None] | None:
    """The attention window of each layer (None: unlimited), or None when a layer keeps anything but keys and values."""
    caches = make_prompt_cache(network)
    if not all(type(cache) in (KVCache, RotatingKVCache) for cache in caches):
        return None
    return [cache.max_size if isinstance(cache, RotatingKVCache) else None for cache in caches]


def forward_shared(
    forward: Forward, windows: list[int | None] | None, prefix_ids: mx.array, token_ids: mx.array
) -> mx.array:
    """What ``forward`` gives for the rows when ``prefix_ids`` stand before each of them.

    Args:
        forward: of the network or its backbone, or of the blocks above some depth.
        windows: from `layer_windows`, of the same blocks; may be None where P is 0.
        prefix_ids: [P]; P may be 0. Or [P, D], where ``forward`` takes states instead of token ids.
        token_ids: [B, L], or [B, L, D].

    Returns: [B, L, ...], for the row positions alone; equal to ``forward(prefix + row)[:, P:]``.
    """
    return forward_both(forward, windows, prefix_ids, token_ids)[1]


def forward_both(
    forward: Forward, windows: list[int | None] | None, prefix_ids: mx.array, token_ids: mx.array
) -> tuple[mx.array | None, mx.array]:
    """As `forward_shared`, with what ``forward`` gives for the prefix, [1, P, ...], before it; None where P is 0."""
    if prefix_ids.shape[0] == 0:
        return None, forward(token_ids)
    assert windows is not None
    recorders = [RecordingCache(window) for window in windows]
    prefix = forward(prefix_ids[None], cache=recorders)
    return prefix, forward(token_ids, cache=[recorder.prefixed() for recorder in recorders])


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
    shared = forward_shared(network, windows, tokens[0, :5], tokens[:, 5:])
    tolerance = 0.001 if whole.dtype == mx.float32 else 0.06
    whole, shared = whole.astype(mx.float32), shared.astype(mx.float32)
    difference = mx.sqrt(mx.mean(mx.square(whole - shared)))
    return bool(difference <= tolerance * mx.std(whole))
