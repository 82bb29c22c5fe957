"""GGUF's block formats and llama's two ways of rotating, in numpy, written from their definitions.

Source: ggml-common.h (block_q4_1, block_q8_0); RoFormer, section 3.4.2, https://arxiv.org/abs/2104.09864
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
