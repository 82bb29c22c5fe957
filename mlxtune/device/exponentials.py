"""Exponentials on a CPU where MLX works them out one by one.

MLX's wheel for Linux on x86 has no vector instructions in its exponential: attention takes some 20 ns a score, which is
more than the products around it. NumPy's has them, and reads an array's own memory. So where nothing is differentiated,
NumPy does this part: eight times as fast, and the graph is worked out up to there, in which time nothing of what comes
next is put together: as long as some ten thousand exponentials take. Elsewhere MLX does it.
"""

import functools
import platform
import sys

import mlx.core as mx
import numpy as np

FEW = 16_384
"""Fewer values than these are MLX's in any case."""


def are_slow() -> bool:
    """Whether MLX's default device takes exponentials one by one."""
    return sys.platform == "linux" and platform.machine() == "x86_64" and mx.default_device() == mx.Device(mx.cpu)


def softmax_over(*parts: mx.array) -> list[mx.array]:
    """A softmax over the last axis of several parts, [..., C] scores each, as if they were one: what it makes of each,
    in float32.

    The memory of float32 parts may be written over: they are the caller's alone, and so is what they are views of.
    """
    scores = [part.astype(mx.float32) for part in parts]
    if sum(part.size for part in scores) < FEW or not are_slow():
        highest = functools.reduce(mx.maximum, [mx.max(part, axis=-1, keepdims=True) for part in scores])
        found = [mx.exp(part - highest) for part in scores]
        total = functools.reduce(mx.add, [mx.sum(part, axis=-1, keepdims=True) for part in found])
        return [part / total for part in found]
    memories = _memories(*scores)
    most = functools.reduce(np.maximum, [memory.max(axis=-1, keepdims=True) for memory in memories])
    for memory in memories:
        np.subtract(memory, most, out=memory)
        np.exp(memory, out=memory)
    share = 1 / sum(memory.sum(axis=-1, keepdims=True) for memory in memories)
    for memory in memories:
        np.multiply(memory, share, out=memory)
    return scores


def categorical(logits: mx.array, key: mx.array) -> mx.array:
    """A number below V, [1] uint32, that is drawn by [1, V] logits; some one, where these are no numbers.

    Where exponentials are slow a uniform number is looked up in the cumulative distribution: ``mx.random.categorical``
    takes two logarithms a logit, and draws another number with the same key.
    """
    if not are_slow():
        return mx.random.categorical(logits, key=key)
    values, place = _memories(logits.astype(mx.float32), mx.random.uniform(key=key))
    highest = values[0].max()
    if not np.isfinite(highest):
        return mx.argmax(logits, axis=-1)
    cumulative = np.cumsum(np.exp(values[0] - highest), dtype=np.float64)
    return mx.array([int(np.searchsorted(cumulative, place * cumulative[-1], side="right"))], mx.uint32)


def swiglu(gate: mx.array, x: mx.array) -> mx.array:
    """``silu(gate) * x`` (https://arxiv.org/abs/2002.05202)."""
    if gate.dtype != mx.float32 or gate.size < FEW or not are_slow():
        return gate * mx.sigmoid(gate) * x
    (gates,) = _memories(gate)
    with np.errstate(over="ignore"):  # exp(-gate) of a gate below -88 is infinite, and the quotient 0
        found = np.exp(-gates)
    found += 1
    np.divide(gates, found, out=found)
    return mx.array(found) * x


def _memories(*arrays: mx.array) -> list[np.ndarray]:
    """Arrays' own memory, worked out together."""
    mx.eval(*arrays)
    return [np.array(array, copy=False) for array in arrays]
