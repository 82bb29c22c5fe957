"""Quantized layers expanded into plain ones, in float32: for the CPU, for another grid, and for a fused model.

Affine scales and biases are cast first: in float16 the product would be rounded before the sum (error up to 3e-3). The
scales of the other modes are exponents in bytes and stay as they are. Knows modules, not model families.
"""

from collections.abc import Container, Mapping, Sequence
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_unflatten

from mlxtune.device.limits import import_mlx_lm

SCALES = ("scales", "biases", "global_scale")
"""What a quantized layer has beside its packed weight, where its mode has them."""


def is_quantized(module: Any) -> bool:
    """Whether ``module`` is a layer whose weight is packed."""
    return "scales" in module and hasattr(module, "bits")


def unpacked_weight(layer: Any) -> mx.array:
    """The weight of a quantized layer by MLX's rule for its mode, [..., D_out, D_in], float32; lazy."""
    scales, biases = layer.scales, layer.get("biases")
    if layer.mode == "affine":
        scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)
    settings = {"group_size": layer.group_size, "bits": layer.bits, "mode": layer.mode, "dtype": mx.float32}
    global_scales = layer.get("global_scale")
    if global_scales is None:
        return mx.dequantize(layer.weight, scales, biases, **settings)
    # A mixture has one scale an expert beside those of its groups, and MLX takes one at a time.
    experts = zip(layer.weight, scales, global_scales, strict=True)
    return mx.stack([mx.dequantize(weight, own, global_scale=scale, **settings) for weight, own, scale in experts])


def rounded_weight(weight: mx.array, setting: Mapping[str, Any]) -> mx.array:
    """What is left of a weight, [..., D_out, D_in], quantized by ``setting`` (config.json has such); float32."""
    return expanded(mx.quantize(weight, setting["group_size"], setting["bits"], setting["mode"]), setting)


def expanded(packed: Sequence[mx.array], setting: Mapping[str, Any]) -> mx.array:
    """The float32 weight that packed numbers, scales and, in affine groups, biases stand for."""
    weight, scales, *biases = packed
    if biases:  # affine: the scales of the other modes are exponents in bytes
        scales, biases = scales.astype(mx.float32), [biases[0].astype(mx.float32)]
    bits, group_size, mode = setting["bits"], setting["group_size"], setting["mode"]
    return mx.dequantize(weight, scales, *biases, group_size=group_size, bits=bits, mode=mode, dtype=mx.float32)


def dequantize_network(network: nn.Module, kept: Container[str] = ()) -> None:
    """Put a plain layer with float32 weights in the place of every quantized one, in place; lazy.

    Args:
        kept: paths of quantized layers to leave.
    """
    import_mlx_lm()
    from mlx_lm.models.mla import MultiLinear, QuantizedMultiLinear
    from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear

    plain_kinds = {
        nn.QuantizedLinear: nn.Linear,
        nn.QuantizedEmbedding: nn.Embedding,
        QuantizedSwitchLinear: SwitchLinear,
        QuantizedMultiLinear: MultiLinear,
    }
    expanded = []
    for path, module in network.named_modules():
        kind = next((plain for quantized, plain in plain_kinds.items() if isinstance(module, quantized)), None)
        if kind is None or path in kept:
            continue
        weight = unpacked_weight(module)
        layer = kind(*weight.shape[::-1])  # its own random weights are lazy, and never worked out
        layer.weight = weight
        layer.pop("bias", None)
        if "bias" in module:
            layer.bias = module.bias.astype(mx.float32)
        expanded.append((path, layer))
    network.update_modules(tree_unflatten(expanded))
