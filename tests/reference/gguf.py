"""GGUF's block formats and llama's two ways of rotating, in numpy, written from their definitions.

Source: ggml-common.h (block_q4_0 to block_q6_K) and ggml-quants.c (dequantize_row_*); RoFormer, section 3.4.2, https://arxiv.org/abs/2104.09864
"""

import numpy as np


def values_of_q4_1(raw: np.ndarray) -> np.ndarray:
    """[rows, blocks * 20] uint8 to [rows, blocks * 32]: value j of a block is d * q_j + m.

    d and m are float16; the low halves of the 16 bytes are q_0 to q_15, the high ones q_16 to q_31.
    """
    rows = []
    for row in raw:
        values = []
        for i in range(0, len(row), 20):
            d, m = np.frombuffer(row[i : i + 4].tobytes(), "<f2").astype(np.float32)
            codes = [int(byte) % 16 for byte in row[i + 4 : i + 20]] + [int(byte) // 16 for byte in row[i + 4 : i + 20]]
            values += [d * np.float32(code) + m for code in codes]
        rows.append(values)
    return np.array(rows, np.float32)


def values_of_q8_0(raw: np.ndarray) -> np.ndarray:
    """[rows, blocks * 34] uint8 to [rows, blocks * 32]: value j of a block is d * q_j, with d float16 and q_j int8."""
    rows = []
    for row in raw:
        values = []
        for i in range(0, len(row), 34):
            d = np.frombuffer(row[i : i + 2].tobytes(), "<f2").astype(np.float32)[0]
            values += [d * np.float32(code) for code in row[i + 2 : i + 34].view(np.int8)]
        rows.append(values)
    return np.array(rows, np.float32)


def values_of_q4_0(raw: np.ndarray) -> np.ndarray:
    """[rows, blocks * 18] uint8 to [rows, blocks * 32]: value j of a block is d * (q_j - 8), with q_j as in Q4_1."""
    return _by_block(raw, 18, lambda block: _half(block, 0) * (_nibbles(block[2:]) - 8))


def values_of_q5_0(raw: np.ndarray) -> np.ndarray:
    """[rows, blocks * 22]: d, 32 bits with the fifth bit of each code, 16 bytes of codes; d * (q_j - 16)."""

    def values(block: np.ndarray) -> np.ndarray:
        high = int.from_bytes(block[2:6].tobytes(), "little")
        codes = _nibbles(block[6:]) + np.array([16 * (high >> j & 1) for j in range(32)])
        return _half(block, 0) * (codes - 16)

    return _by_block(raw, 22, values)


def values_of_q4_k(raw: np.ndarray) -> np.ndarray:
    """[rows, blocks * 144] to [rows, blocks * 256]: d, dmin, 12 bytes of 8 scales and 8 minima in 6 bits, 128 of codes.

    Group i of 32 values is d * scale_i * q - dmin * min_i; groups 2 n and 2 n + 1 share bytes 32 n to 32 n + 31.
    """

    def values(block: np.ndarray) -> np.ndarray:
        packed = block[4:16].astype(int)
        scales = [packed[i] & 63 for i in range(4)]
        scales += [packed[i + 8] & 15 | packed[i] >> 6 << 4 for i in range(4)]
        minima = [packed[i + 4] & 63 for i in range(4)]
        minima += [packed[i + 8] >> 4 | packed[i + 4] >> 6 << 4 for i in range(4)]
        result = []
        for i in range(8):
            codes = block[16 + 32 * (i // 2) : 48 + 32 * (i // 2)] >> (4 * (i % 2)) & 15
            scale, least = _half(block, 0) * np.float32(scales[i]), _half(block, 2) * np.float32(minima[i])
            result.append(scale * codes.astype(np.float32) - least)
        return np.concatenate(result)

    return _by_block(raw, 144, values)


def values_of_q6_k(raw: np.ndarray) -> np.ndarray:
    """[rows, blocks * 210] to [rows, blocks * 256]: 128 bytes of low codes, 64 of high ones, 16 int8 scales, d.

    In each half of 128 values, value l + 32 k has 4 low bits in byte l + 32 (k % 2), the upper ones for k > 1, and 2
    high bits in byte l, from bit 2 k; the value is d * scale * (q - 32), a scale for each 16.
    """

    def values(block: np.ndarray) -> np.ndarray:
        low, high, scales = block[:128].astype(int), block[128:192].astype(int), block[192:208].view(np.int8)
        result = []
        for half in range(2):
            for k in range(4):
                for one in range(32):
                    code = low[64 * half + one + 32 * (k % 2)] >> (4 * (k // 2)) & 15
                    code |= (high[32 * half + one] >> (2 * k) & 3) << 4
                    scale = np.float32(scales[8 * half + 2 * k + one // 16])
                    result.append(_half(block, 208) * scale * np.float32(code - 32))
        return np.array(result)

    return _by_block(raw, 210, values)


def _by_block(raw: np.ndarray, size: int, values) -> np.ndarray:
    rows = [np.concatenate([values(row[i : i + size]) for i in range(0, len(row), size)]) for row in raw]
    return np.array(rows, np.float32)


def _half(block: np.ndarray, place: int) -> np.float32:
    return np.frombuffer(block[place : place + 2].tobytes(), "<f2").astype(np.float32)[0]


def _nibbles(packed: np.ndarray) -> np.ndarray:
    return np.array([int(byte) % 16 for byte in packed] + [int(byte) // 16 for byte in packed], np.float32)


def values_of_affine(weight: np.ndarray, scales: np.ndarray, biases: np.ndarray, bits: int) -> np.ndarray:
    """MLX's affine form, groups of 32: value j is scale * q_j + bias; q_j has the bits from j * bits of the row up."""
    rows = []
    for words, scale, bias in zip(weight, scales.astype(np.float32), biases.astype(np.float32), strict=True):
        whole = int.from_bytes(words.astype("<u4").tobytes(), "little")
        codes = [(whole >> (j * bits)) % 2**bits for j in range(len(scale) * 32)]
        rows.append([scale[j // 32] * np.float32(code) + bias[j // 32] for j, code in enumerate(codes)])
    return np.array(rows, np.float32)


def rotate_pairs(x: np.ndarray, position: int, theta: float) -> np.ndarray:
    """[head_dim]: each pair (x_2i, x_2i+1) turned by position * theta ** (-2 i / head_dim); GGUF's llama does this."""
    result = x.copy()
    for i in range(len(x) // 2):
        angle = position * theta ** (-2 * i / len(x))
        a, b = x[2 * i], x[2 * i + 1]
        result[2 * i], result[2 * i + 1] = a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)
    return result


def rotate_halves(x: np.ndarray, position: int, theta: float) -> np.ndarray:
    """[head_dim]: the same of the pairs (x_i, x_i+head_dim/2); Hugging Face's and MLX's llama do this."""
    half = len(x) // 2
    result = x.copy()
    for i in range(half):
        angle = position * theta ** (-2 * i / len(x))
        a, b = x[i], x[i + half]
        result[i], result[i + half] = a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)
    return result
