"""Attention over a prefix that rows share and what is each row's own, as if they were one.

The queries of all rows meet the prefix in one product ("Hydragen", https://arxiv.org/abs/2402.05099). Both parts of a
row's scores have one softmax, so that the answer is that of whole rows; scores are float32 as in MLX's own, for those
of some networks are so high that 16 bits could not tell them apart. Where MLX takes exponentials one by one, rows
without a prefix go this way too.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import mlx.core as mx
from mlx_lm.models import base

from mlxtune.device import exponentials
from mlxtune.inference.prefix_cache import Groups, Prefix, PrefixedBatch, PrefixedCache
from mlxtune.inference.shared_prefix import joined

FEW_QUERIES = 16
"""Of a row, up to which the parts are put together on a GPU; more are a prompt that is read."""
AXES = 4
"""Of queries, keys, values, and of a mask that rows differ in."""
NO_SINKS = "attention with sinks knows of no prefix"


def attention(
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    cache: Any,
    scale: float,
    mask: Any,
    sinks: mx.array | None = None,
) -> mx.array:
    """mlx-lm's ``scaled_dot_product_attention``, which knows of prefixes.

    Args:
        queries: [B, H, L, D].
        keys, values: [B, G, C, D], of the own part.
        cache: which knows the rows' prefixes.
        mask: of the own part, an array with True or 0 for what is seen; None: all is; ``causal``: what was before.

    Raises: ValueError, for sinks where there may be a prefix.
    """
    is_prefixed = isinstance(cache, PrefixedCache | PrefixedBatch)
    if is_prefixed and sinks is not None:
        raise ValueError(NO_SINKS)
    if not is_prefixed and (sinks is not None or hasattr(cache, "bits") or not exponentials.are_slow()):
        return base.scaled_dot_product_attention(
            queries, keys, values, cache=cache, scale=scale, mask=mask, sinks=sinks
        )
    groups: Groups = cache.groups if is_prefixed else [(None, None)]
    rows, heads, length, _ = queries.shape
    has_prefix = any(prefix is not None for prefix, _ in groups)
    if not exponentials.are_slow():
        in_parts = has_prefix and length <= FEW_QUERIES
    else:
        in_parts = has_prefix or rows * heads * length * keys.shape[2] >= exponentials.FEW
    if not in_parts:
        (found,) = _by_group(
            groups, lambda prefix, of: (_whole(of(queries), of(keys), of(values), prefix, scale, of(mask)),)
        )
        return found
    folded = (queries.astype(mx.float32) * scale).reshape(rows, keys.shape[1], heads // keys.shape[1] * length, -1)
    scores = _own_scores(folded, keys.astype(mx.float32), mask, length)
    width = values.shape[-1] if has_prefix else 0
    weights, before = _by_group(groups, lambda prefix, of: _weights(of(folded), of(scores), prefix, width))
    found = weights.astype(values.dtype) @ values
    return (found + before if has_prefix else found).reshape(rows, heads, length, -1)


def _by_group(
    groups: Groups, attend: Callable[[Prefix | None, Callable[[Any], Any]], tuple[mx.array, ...]]
) -> tuple[mx.array, ...]:
    """What ``attend`` finds for each prefix and the rows that have it, in the rows' order; it is given the prefix, and
    what takes those rows of an array.
    """
    if len(groups) == 1:
        return attend(groups[0][0], lambda array: array)
    parts, order = [], []
    for prefix, rows in groups:
        assert rows is not None
        parts.append(attend(prefix, partial(_rows_of, mx.array(rows))))
        order += rows
    back = mx.argsort(mx.array(order))
    return tuple(mx.concatenate(list(found))[back] for found in zip(*parts, strict=True))


def _rows_of(rows: mx.array, array: Any) -> Any:
    """Of an array [B, ...] of four axes; a mask that all rows have, or that is none, stays as it is."""
    return array[rows] if isinstance(array, mx.array) and array.ndim == AXES and array.shape[0] > 1 else array


def _whole(
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    prefix: Prefix | None,
    scale: float,
    mask: mx.array | str | None,
) -> mx.array:
    """MLX's own attention, over copies of the prefix: of many queries the scores, which its kernels for a GPU never
    hold, take more memory than the copies.
    """
    if prefix is not None:
        keys, values = joined(prefix.keys, keys), joined(prefix.values, values)
        if isinstance(mask, mx.array):
            made = mx.ones if mask.dtype == mx.bool_ else mx.zeros
            seen = made((*mask.shape[:-1], len(prefix)), mask.dtype)
            mask = mx.concatenate([seen, mask], axis=-1)
    return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask)


def _own_scores(queries: mx.array, keys: mx.array, mask: mx.array | str | None, length: int) -> mx.array:
    """[B, G, T, C], of each row's own keys; T are the queries that meet the same keys."""
    scores = queries @ keys.swapaxes(-1, -2)
    if mask is None:
        return scores
    rows, groups, _, own = scores.shape
    apart = scores.reshape(rows, groups, -1, length, own)
    return (apart + _bias(mask, groups, length, own, scores.dtype)).reshape(scores.shape)


def _weights(queries: mx.array, scores: mx.array, prefix: Prefix | None, width: int) -> tuple[mx.array, mx.array]:
    """Of rows with one prefix: the weights of their own keys, [B, G, T, C] float32, and what the prefix's values come
    to by theirs, [B, G, T, width].
    """
    if prefix is None:
        (weights,) = exponentials.softmax_over(scores)
        return weights, mx.zeros((*queries.shape[:-1], width))
    rows, groups, together, _ = queries.shape
    prefix_keys = prefix.keys.astype(mx.float32).swapaxes(-1, -2)
    met = queries.swapaxes(0, 1).reshape(1, groups, rows * together, -1) @ prefix_keys
    weights, before = exponentials.softmax_over(scores, met.reshape(groups, rows, together, -1).swapaxes(0, 1))
    before = before.swapaxes(0, 1).reshape(met.shape).astype(prefix.values.dtype) @ prefix.values
    return weights, before.reshape(groups, rows, together, width).swapaxes(0, 1)


def _bias(mask: mx.array | str, groups: int, length: int, own: int, dtype: mx.Dtype) -> mx.array:
    """What is added to scores, [B or 1, G or 1, H/G or 1, L, C].

    It is the least number where nothing is seen; of an infinity, rows that see nothing (padding) would be no numbers.
    """
    if isinstance(mask, str):
        mask = mx.tri(length, own, own - length, dtype=mx.bool_)
    if mask.dtype == mx.bool_:
        mask = mx.where(mask, mx.array(0, dtype), mx.array(mx.finfo(dtype).min, dtype))
    mask = mask.reshape(*(1,) * (4 - mask.ndim), *mask.shape)
    return mask[:, :, None] if mask.shape[1] == 1 else mask.reshape(mask.shape[0], groups, -1, *mask.shape[2:])
