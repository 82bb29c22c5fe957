"""Folding a low-rank update into the weight beside it, so that nothing of the adapter remains.

All arithmetic is float32, and the sum is rounded once, to the type it is stored in. Knows arrays and networks, not
files; deployment/fuse.py has those.
"""

from collections.abc import Iterator
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten

from mlxtune.adapters.lora import LoRALinear
from mlxtune.device.dequantize import is_quantized, unpacked_weight
from mlxtune.errors import AdapterError


def merge_lora(weight: mx.array, lora_a: mx.array, lora_b: mx.array, scale: float) -> mx.array:
    """The weight of one linear layer with its adapter folded in: W + scale (A B)^T.

    Formed in float32 and rounded once, at the end; rounding the product first would round twice.

    Args:
        weight: [D_out, D_in], dequantized.
        lora_a, lora_b: [D_in, R] and [R, D_out].
        scale: alpha / R.

    Returns: [D_out, D_in], in the type of ``weight``.
    Raises: AdapterError, if the factors do not fit the weight.
    Source: LoRA, section 4.1, https://arxiv.org/abs/2106.09685
    """
    if weight.shape != (lora_b.shape[1], lora_a.shape[0]) or lora_a.shape[1] != lora_b.shape[0]:
        raise AdapterError(
            f"factors of {list(lora_a.shape)} and {list(lora_b.shape)} do not fit a weight of {list(weight.shape)}"
        )
    update = lora_b.T.astype(mx.float32) @ lora_a.T.astype(mx.float32)
    return (weight.astype(mx.float32) + scale * update).astype(weight.dtype)


def merged_weights(network: nn.Module, dtype: mx.Dtype) -> Iterator[tuple[str, mx.array]]:
    """The weights that a plain network, without adapter and quantization, would need to answer as ``network`` does.

    Lazy: an array is worked out when it is evaluated, so that whoever writes them one by one holds one.

    Yields: name and array, floats in ``dtype`` and others as they are.
    """
    modules: dict[str, Any] = dict(network.named_modules())
    parameters: dict[str, mx.array] = tree_flatten(network.parameters(), destination={})  # pyright: ignore[reportAssignmentType]
    for name, stored in parameters.items():
        path, _, leaf = name.rpartition(".")
        module, parent = modules.get(path), modules.get(path.rpartition(".")[0])
        is_packed = module is not None and is_quantized(module)
        if leaf in ("lora_a", "lora_b") or (is_packed and leaf in ("scales", "biases", "global_scale")):
            continue
        array = unpacked_weight(module) if is_packed and leaf == "weight" else stored
        if isinstance(parent, LoRALinear):
            path = path.removesuffix(".linear")
            if leaf == "weight":
                array = merge_lora(array.astype(mx.float32), parent.lora_a, parent.lora_b, parent.scale)
        floating = mx.issubdtype(array.dtype, mx.floating)
        yield f"{path}.{leaf}".removeprefix("."), array.astype(dtype) if floating else array
