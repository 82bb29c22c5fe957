"""Which number format each part of a network has on a device, and bringing a network to it.

On the CPU everything is float32 and quantized weights are dequantized once, because MLX's CPU backend multiplies
float32 through BLAS and everything else slowly. On an Apple GPU weights stay as stored and activations are bfloat16;
scales, biases and norms are brought to it, since one float16 or float32 factor would widen every product after it.
Knows modules, not model families.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_map_with_path

from mlxtune.device.dequantize import dequantize_network


@dataclass(frozen=True)
class Precision:
    """The number formats of one device."""

    name: Literal["cpu-float32", "gpu-bfloat16", "gpu-float16"]
    dtype: mx.Dtype
    """Of activations, and of all floating point weights of the base."""
    dequantize: bool
    """Whether quantized weights are expanded once, at load."""


CPU_FLOAT32 = Precision("cpu-float32", mx.float32, dequantize=True)
GPU_BFLOAT16 = Precision("gpu-bfloat16", mx.bfloat16, dequantize=False)
GPU_FLOAT16 = Precision("gpu-float16", mx.float16, dequantize=False)
"""Only to ask a model whose weights are stored so: bfloat16 would round away what a fused one keeps of its tuning."""


def apply_precision(network: nn.Module, precision: Precision) -> None:
    """Bring the base weights of ``network`` to ``precision``, in place; before adapters are attached.

    Dequantized layers are new modules: ``freeze()`` and ``eval()`` come after this.
    """
    if precision.dequantize:
        dequantize_network(network)
    network.update(tree_map_with_path(casting(network, precision.dtype), network.parameters()))
    mx.eval(network.parameters())


def casting(network: nn.Module, dtype: mx.Dtype) -> Callable[[str, mx.array], mx.array]:
    """The function that brings a weight of ``network``, by its name, to ``dtype``, if it is a float.

    A family may name weights that a 16-bit format would spoil (``cast_predicate``: a router's correction, a state's
    decay); its own code reads those in float32, and they stay as they are.
    """
    is_castable = None if dtype == mx.float32 else getattr(network, "cast_predicate", None)

    def cast(name: str, array: mx.array) -> mx.array:
        if not mx.issubdtype(array.dtype, mx.floating) or (is_castable is not None and not is_castable(name)):
            return array
        return array.astype(dtype)

    return cast
