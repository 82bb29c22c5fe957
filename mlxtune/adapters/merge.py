"""Folding an adapter into the weights beside it, so that nothing of the adapter remains.

All arithmetic is float32, and the sum is rounded once, to the type it is stored in. Knows arrays and networks, not
files; deployment/fuse.py has those.
"""

from collections.abc import Iterator
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten

from mlxtune.adapters.full import trained_weights
from mlxtune.adapters.lora import LowRank, base_weight, lora_layers
from mlxtune.adapters.saved import SavedModule, SeparateHead, saved_modules
from mlxtune.device.dequantize import SCALES, is_quantized, unpacked_weight
from mlxtune.errors import AdapterError


def merged_weights(network: nn.Module, dtype: mx.Dtype) -> Iterator[tuple[str, mx.array]]:
    """The weights that a plain network, without adapter and quantization, would need to answer as ``network`` does.

    Lazy: an array is worked out when it is evaluated, so that whoever writes them one by one holds one.

    Yields: name and array, floats in ``dtype`` and others as they are.
    Raises: AdapterError, where no plain network of the family answers so: an adapter has parted the head from the
        embedding that it is tied to.
    """
    modules: dict[str, Any] = dict(network.named_modules())
    for path, module in modules.items():
        if isinstance(module, SeparateHead):
            raise AdapterError(
                f"the adapter changes one of {path} and the head tied to it, which a merged model has as one",
                remedy="use base and adapter as they are; or train with ensure_weight_tying in PEFT",
            )
    parameters: dict[str, mx.array] = tree_flatten(network.parameters(), destination={})  # pyright: ignore[reportAssignmentType]
    for name, stored in parameters.items():
        path, _, leaf = name.rpartition(".")
        module, parent = modules.get(path), modules.get(path.rpartition(".")[0])
        if isinstance(module, LowRank) or (isinstance(parent, SavedModule) and module is parent.original):
            continue
        is_packed = module is not None and is_quantized(module)
        if is_packed and leaf in SCALES:
            continue
        array = unpacked_weight(module) if is_packed and leaf == "weight" else stored
        if isinstance(parent, LowRank | SavedModule):
            path = path.rpartition(".")[0]
        if isinstance(parent, LowRank) and leaf == "weight":
            array = parent.merged()
        floating = mx.issubdtype(array.dtype, mx.floating)
        yield f"{path}.{leaf}".removeprefix("."), array.astype(dtype) if floating else array


def layer_updates(
    network: nn.Module, plain: nn.Module | None = None
) -> Iterator[tuple[str, tuple[mx.array, mx.array]]]:
    """What an adapter adds to the weights: W of the base and D, the merged weight being W + D; of every adapted layer.

    Args:
        plain: the same network without the adapter, which is asked for the weights that full fine-tuning has replaced.

    Yields: path, and W and D, float32, lazy.
    """
    for path, layer in lora_layers(network):
        weight = base_weight(layer.base)
        yield path, (weight, layer.merged() - weight if "m" in layer else layer.scale * layer.product())
    for path, module in saved_modules(network):
        weight = base_weight(module.original)
        yield path, (weight, base_weight(module.saved) - weight)
    if plain is not None:
        modules: dict[str, Any] = dict(plain.named_modules())
        for name, array in trained_weights(network).items():
            path, _, leaf = name.rpartition(".")
            if leaf == "weight":
                weight = base_weight(modules[path])
                yield path, (weight, array.astype(mx.float32) - weight)
