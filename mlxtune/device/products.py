"""Products of a few rows with a layer's weights, on a CPU where those are copied for each product.

OpenBLAS first copies a matrix into the order in which it reads it, which pays where many rows follow. Of a step that
writes a token for one row it takes half of the time. There are two ways round: where it has kernels for small matrices,
pieces of the weights that are small enough go through without a copy, the best for a few rows; and with the two factors
exchanged the copy is cheaper. The sums are the same but for rounding, and no weight moves. Only CPUs for which there is
`exponentials` go these ways.
"""

from typing import Any

import mlx.core as mx

from mlxtune.device.blas import open_blas

FEW, SOME = 8, 32
"""Rows up to which the weights go in pieces, and up to which factors are exchanged."""
SMALL_KERNELS = ("SkylakeX", "Cooperlake", "SapphireRapids")
"""OpenBLAS's kernels, by processor, that multiply small matrices as they lie: of CPUs with AVX-512."""
PIECE = 32
"""Of a layer's outputs, that go together."""
SMALL = 1_000_000
"""Multiplications of one product, up to which these copy nothing."""
MANY_OUTPUTS = 16_384
"""From which on an exchange gains nothing."""


def few_rows(x: mx.array, weight: mx.array) -> mx.array:
    """``x @ weight.T``, [..., D_in] and [D_out, D_in] to [..., D_out]."""
    outputs, inputs = weight.shape
    rows = x.size // inputs
    if not 0 < rows <= SOME or x.dtype != mx.float32 or weight.dtype != mx.float32:
        return x @ weight.T
    flat = x.reshape(rows, inputs)
    is_small = rows <= FEW and outputs % PIECE == 0 and rows * PIECE * inputs <= SMALL
    if is_small and open_blas().kernels in SMALL_KERNELS:
        pieces = flat @ weight.reshape(-1, PIECE, inputs).swapaxes(1, 2)
        return pieces.swapaxes(0, 1).reshape(*x.shape[:-1], outputs)
    if outputs < MANY_OUTPUTS:
        return (weight @ flat.T).T.reshape(*x.shape[:-1], outputs)
    return x @ weight.T


def linear(layer: Any, x: mx.array) -> mx.array:
    """What `nn.Linear` does."""
    found = few_rows(x, layer["weight"])
    return found + layer["bias"] if "bias" in layer else found


def embedding_as_linear(layer: Any, x: mx.array) -> mx.array:
    """What `nn.Embedding.as_linear` does."""
    return few_rows(x, layer["weight"])
