"""GGUF's tensor types as MLX arrays: three are MLX's own form in another order, the rest become floats of 16 bits.

Q4_0, Q4_1 and Q8_0 are affine in groups of 32, as MLX has it; quantizing dequantized values again would give another
grid, so their codes are only rearranged, to the last bit. MLX has nothing like the others (K-quants scale their
scales), so they are expanded by the ``gguf`` package's formulas: to float16, whose 11 bits of mantissa lose least, and
to bfloat16 where a tensor has a value beyond 65,504, or is stored so. Knows bytes and values, not models.
"""

import math
from collections.abc import Iterator

import gguf.quants
import mlx.core as mx
import numpy as np
from gguf.constants import GGMLQuantizationType as Type

GROUP = 32  # values in a block of each type that is passed through
BITS = {Type.Q4_0: 4, Type.Q4_1: 4, Type.Q8_0: 8}
"""The types that are passed through, and the width of their codes."""

FLOATS = {Type.F32: np.dtype("<f4"), Type.F16: np.dtype("<f2")}
EXPANDED = tuple(
    Type[name]
    for name in (
        *("Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "TQ1_0", "TQ2_0", "MXFP4", "NVFP4"),
        *("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS"),
    )
)
READABLE = (*FLOATS, Type.BF16, *BITS, *EXPANDED)
HALF_LIMIT = 65504.0
SLICE_VALUES = 1 << 20
"""How many values are expanded at once: float32 and the steps on the way to it take some tens of MiB."""


def affine_parts(raw: np.ndarray, kind: Type) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The blocks of a type in ``BITS`` in MLX's order: value = scale * code + bias.

    Args:
        raw: [rows, bytes], uint8, contiguous.

    Returns: codes [rows, D_in * bits / 32] uint32, scales and biases [rows, D_in / 32] float16; a bias is infinite
        where float16 does not hold it.
    """
    unpack = {Type.Q4_0: q4_0_to_affine, Type.Q4_1: q4_1_to_affine, Type.Q8_0: q8_0_to_affine}
    return unpack[kind](raw)


def q4_0_to_affine(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Q4_0: a block is one float16 and 16 bytes of codes, and a value is scale * (code - 8)."""
    blocks = raw.reshape(len(raw), -1, 18)
    scales = _halves(blocks[..., 0:2])
    with np.errstate(all="ignore"):  # a power of two times a float16 is exact, or infinite
        biases = scales * np.float16(-8)
    return _nibbles(blocks[..., 2:]), scales, biases


def q4_1_to_affine(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Q4_1: a block is two float16, scale and bias, and 16 bytes of codes."""
    blocks = raw.reshape(len(raw), -1, 20)
    return _nibbles(blocks[..., 4:]), _halves(blocks[..., 0:2]), _halves(blocks[..., 2:4])


def q8_0_to_affine(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Q8_0: a block is one float16 and 32 int8, which become unsigned by adding 128; the bias is -128 * scale."""
    blocks = raw.reshape(len(raw), -1, 34)
    scales = _halves(blocks[..., 0:2])
    with np.errstate(all="ignore"):
        biases = scales * np.float16(-128)
    return _words(blocks[..., 2:] ^ 0x80), scales, biases


def float_array(raw: np.ndarray, kind: Type, shape: tuple[int, ...], *, offset: float = 0.0) -> mx.array:
    """The values of a tensor: as stored where they are floats, else of 16 bits; evaluated.

    Args:
        raw: [rows, bytes], uint8, of any type in ``READABLE``.
        offset: added in float32 before the values are rounded.

    Raises: ValueError, if an expanded value is infinite or no number.
    """
    if kind in FLOATS and not offset:
        return mx.array(np.ascontiguousarray(raw).view(FLOATS[kind]).reshape(shape))
    if kind is Type.BF16 and not offset:
        return mx.array(np.ascontiguousarray(raw).view("<u2").reshape(shape)).view(mx.bfloat16)
    dtype = {Type.F32: mx.float32, Type.BF16: mx.bfloat16}.get(kind, mx.float16)

    def rounded(values: np.ndarray) -> mx.array:
        part = mx.array(values + np.float32(offset)).astype(dtype)
        mx.eval(part)
        return part

    parts = []
    for values in _expand(raw, kind):
        if dtype == mx.float16 and max(values.max(), -values.min()) > HALF_LIMIT:
            dtype = mx.bfloat16
            parts = [rounded(again) for again in _expand(raw, kind)]
            break
        parts.append(rounded(values))
    whole = mx.concatenate(parts).reshape(shape)
    mx.eval(whole)
    return whole


def _expand(raw: np.ndarray, kind: Type) -> Iterator[np.ndarray]:
    """The values as float32, a few rows at a time: expanded at once, a vocabulary would take gigabytes.

    Raises: ValueError, if one is infinite or no number, as damaged scales may make it.
    """
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    width = raw.shape[1] // block_bytes * block
    count = max(1, SLICE_VALUES // max(1, width))
    for begin in range(0, len(raw), count):
        with np.errstate(all="ignore"):
            values = gguf.quants.dequantize(np.ascontiguousarray(raw[begin : begin + count]), kind)
        # cheaper than to ask of each: where one is no number, both of these are none
        if not (math.isfinite(values.min()) and math.isfinite(values.max())):
            raise ValueError("a value is infinite or no number")
        yield values


def _nibbles(packed: np.ndarray) -> np.ndarray:
    """Of 16 bytes byte j has code j below and code j + 16 above; MLX wants code 2 j below and code 2 j + 1 above."""
    codes = np.concatenate([packed & 0x0F, packed >> 4], axis=-1)
    return _words(codes[..., 0::2] | (codes[..., 1::2] << 4))


def _words(codes: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(codes).view("<u4").reshape(len(codes), -1)


def _halves(pairs: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pairs).view("<f2")[..., 0]
