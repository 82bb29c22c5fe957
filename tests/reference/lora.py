"""LoRA in numpy, float64, written from the paper's equation 3, h = W x + (alpha / r) B A x, with the paper's shapes.

The paper's A is [R, D_in] and its B [D_out, R], so ours are their transposes. https://arxiv.org/abs/2106.09685
"""

import numpy as np


def lora_forward(x, weight, a, b, *, alpha, bias=None):
    """x [..., D_in], weight [D_out, D_in], a [R, D_in], b [D_out, R] to [..., D_out]."""
    x, weight, a, b = (np.asarray(array, np.float64) for array in (x, weight, a, b))
    rank = a.shape[0]
    update = np.einsum("...i,ri,or->...o", x, a, b)
    return np.einsum("...i,oi->...o", x, weight) + (alpha / rank) * update + (0.0 if bias is None else bias)


def lora_merge(weight, a, b, *, alpha):
    """Section 4.1, no additional inference latency: W + (alpha / r) B A."""
    weight, a, b = (np.asarray(array, np.float64) for array in (weight, a, b))
    return weight + (alpha / a.shape[0]) * np.einsum("or,ri->oi", b, a)


def dora_merge(weight, a, b, *, scale, magnitude, axis=1):
    """DoRA, equation 5 with V = W0: m (W0 + scale B A) / ||W0 + scale B A||, https://arxiv.org/abs/2402.09353

    Args:
        weight: [D_out, D_in], or an embedding [V, D], whose update is ``b`` [V, R] times ``a`` [R, D].
        axis: along which lengths are taken: 1, one a row of the weight; 0, one a column.
    """
    weight, a, b = (np.asarray(array, np.float64) for array in (weight, a, b))
    moved = weight + scale * np.einsum("or,ri->oi", b, a)
    lengths = np.sqrt((moved**2).sum(axis=axis, keepdims=True))
    return np.expand_dims(np.asarray(magnitude, np.float64), axis) * moved / lengths


def affine_dequantize(packed, scales, biases, *, bits):
    """MLX's affine groups, from the definition: value = scale * code + bias, codes packed low bits first in uint32."""
    packed, scales, biases = (
        np.asarray(packed, np.uint32),
        np.asarray(scales, np.float64),
        np.asarray(biases, np.float64),
    )
    codes = (packed[..., None] >> (bits * np.arange(32 // bits, dtype=np.uint32))) & (2**bits - 1)
    codes = codes.reshape(*packed.shape[:-1], -1)
    group_size = codes.shape[-1] // scales.shape[-1]
    return codes * np.repeat(scales, group_size, axis=-1) + np.repeat(biases, group_size, axis=-1)


def rslora_scale(alpha, rank):
    """rsLoRA, theorem 3.2: gamma_r = alpha / sqrt(r), https://arxiv.org/abs/2312.03732"""
    return alpha / np.sqrt(np.float64(rank))


def dora_forward(x, weight, a, b, *, scale, magnitude, length=None, bias=None):
    """DoRA, equation 5: x [..., D_in] times the decomposed weight; a [R, D_in], b [D_out, R].

    Args:
        length: [D_out], what stands below the line where it is not to be worked out: section 4.3 takes it for a
            constant when the gradient is formed.
    """
    x, weight, a, b = (np.asarray(array, np.float64) for array in (x, weight, a, b))
    moved = weight + scale * np.einsum("or,ri->oi", b, a)
    length = np.sqrt((moved**2).sum(axis=1)) if length is None else length
    directed = (np.asarray(magnitude, np.float64) / length)[:, None] * moved
    return np.einsum("...i,oi->...o", x, directed) + (0.0 if bias is None else np.asarray(bias, np.float64))


def finite_differences(function, arrays, step=1e-6):
    """The gradient of a scalar function of float64 arrays, in each of them, by central differences."""
    gradients = []
    for array in arrays:
        gradient = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            kept = array[index]
            array[index] = kept + step
            above = function(*arrays)
            array[index] = kept - step
            gradient[index] = (above - function(*arrays)) / (2 * step)
            array[index] = kept
        gradients.append(gradient)
    return gradients
