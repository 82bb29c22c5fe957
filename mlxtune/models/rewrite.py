"""A model folder again, in other number formats: as stored, as floats, or quantized.

What is already stored as asked is passed through to the last bit, because quantizing dequantized values gives another
grid. Knows networks as mlx_lm builds them; the values are computed one shard at a time, while they are written.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten, tree_map_with_path, tree_unflatten

from mlxtune.device.dequantize import dequantize_network, is_quantized
from mlxtune.errors import ModelError
from mlxtune.models.load import load_network
from mlxtune.models.write import DTYPES, SHARD_BYTES, copy_companions, quantization_config, write_config, write_weights
from mlxtune.progress import Progress, silent


def rewrite_folder(
    source: Path,
    folder: Path,
    *,
    quantize: tuple[int, int] | None = None,
    dtype: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Write the model in ``source`` to the empty ``folder``, in MLX's form; memory holds one shard at a time.

    Args:
        quantize: bits and group size, for every linear layer and embedding.
        dtype: of all floats, a quantized layer's scales and biases included. Without ``quantize`` nothing stays
            quantized.
        shard_bytes: no file of weights is larger, except for a tensor that is.

    Returns: ``{"config", "bytes", "parameters", "kept_layers"}``: the new config, the bytes of the tensors, the number
        of weights, and how many quantized layers were passed through.
    Raises: ModelError, if the source is not whole or a layer's width is no multiple of the group size.
    """
    from mlx_lm.utils import get_total_parameters

    network, config = load_network(source)
    kept = [path for path, module in network.named_modules() if is_quantized(module)]
    if quantize is not None:
        kept = _quantize(network, *quantize, where=source)
        layers = {path: _setting(module) for path, module in network.named_modules() if is_quantized(module)}
        config["quantization"] = quantization_config(layers)
    elif dtype is not None:
        kept = []
        dequantize_network(network)
        config.pop("quantization", None)
        config.pop("quantization_config", None)
    if dtype is not None:
        _cast(network, DTYPES[dtype])
        config["torch_dtype"] = dtype
        config.pop("dtype", None)
    parameters = get_total_parameters(network)
    weights = dict(tree_flatten(network.parameters()))
    count = len(weights)
    # The network would hold on to every array that is computed for a shard until the end.
    network.update(tree_unflatten([(name, mx.array([])) for name in weights]))
    stream = _finite(weights, source) if dtype == "float16" else _popped(weights)
    byte_count = write_weights(folder, stream, count=count, shard_bytes=shard_bytes, progress=progress)
    write_config(folder, config)
    copy_companions(source, folder)
    return {"config": config, "bytes": byte_count, "parameters": parameters, "kept_layers": len(kept)}


def is_stored_as(folder: Path, bits: int, group_size: int) -> bool:
    """Whether quantizing the model in ``folder`` so would leave every layer as it is. Raises: ModelError."""
    network, _ = load_network(folder)
    wanted = _wanted(network, bits, group_size)
    return all(_has(module, wanted[path]) for path, module in network.named_modules() if path in wanted)


def _setting(module: nn.Module) -> dict[str, Any]:
    return {"group_size": module.group_size, "bits": module.bits, "mode": module.mode}


def _has(module: nn.Module, setting: dict[str, Any]) -> bool:
    return is_quantized(module) and _setting(module) == setting


def _wanted(network: nn.Module, bits: int, group_size: int) -> dict[str, dict[str, Any]]:
    """The setting of each layer that is to be quantized, by path.

    A family's exceptions are respected: mlx_lm's ``quant_predicate`` names layers that stay floats or get more bits.
    """
    predicate = getattr(network, "quant_predicate", None)
    wanted = {}
    for path, module in network.named_modules():
        if is_quantized(module) or hasattr(module, "to_quantized"):
            verdict = True if predicate is None else predicate(path, module)
            if verdict:
                own = verdict if isinstance(verdict, dict) else {}
                wanted[path] = {"group_size": group_size, "bits": bits, "mode": "affine"} | own
    return wanted


def _quantize(network: nn.Module, bits: int, group_size: int, *, where: Path) -> list[str]:
    """Quantize in place, from float32 where a layer was quantized otherwise; scales come in the type its floats had.

    Returns: the paths of the layers that had their setting already, and are untouched.
    """
    wanted = _wanted(network, bits, group_size)
    before = {path: module for path, module in network.named_modules() if path in wanted or is_quantized(module)}
    kept = {path: module for path, module in before.items() if path in wanted and _has(module, wanted[path])}
    dtypes = {path: _dtype_of_floats(module) for path, module in before.items()}
    dequantize_network(network, kept)
    for path, module in network.named_modules():
        if path not in wanted or path in kept:
            continue
        if (width := module.weight.shape[-1]) % (size := wanted[path]["group_size"]):
            raise ModelError(
                f"layer {path} is {width} wide, which is no multiple of the group size {size}",
                where=where,
                remedy="choose a smaller group size",
            )
    nn.quantize(network, class_predicate=lambda path, _: wanted.get(path, False) if path not in kept else False)
    for path, module in network.named_modules():
        if path in dtypes and path not in kept:
            module.set_dtype(dtypes[path])
    return list(kept)


def _dtype_of_floats(module: nn.Module) -> mx.Dtype:
    """The type of a layer's floats; where a quantized one has bytes for scales, that of MLX's own expansion."""
    dtype = module["scales" if is_quantized(module) else "weight"].dtype
    return dtype if mx.issubdtype(dtype, mx.floating) else mx.bfloat16


def _cast(network: nn.Module, dtype: mx.Dtype) -> None:
    """Bring all floats to ``dtype``, but for those that by a family's ``cast_predicate`` 16 bits would spoil."""
    is_castable = getattr(network, "cast_predicate", lambda _: True)

    def bring(name: str, array: mx.array) -> mx.array:
        return array.astype(dtype) if mx.issubdtype(array.dtype, mx.floating) and is_castable(name) else array

    network.update(tree_map_with_path(bring, network.parameters()))


def _popped(weights: dict[str, mx.array]) -> Iterator[tuple[str, mx.array]]:
    """The items of ``weights``, which is emptied on the way."""
    for name in list(weights):
        yield name, weights.pop(name)


def _finite(weights: dict[str, mx.array], where: Path) -> Iterator[tuple[str, mx.array]]:
    """As ``_popped``. Raises: ModelError, at a value beyond float16."""
    for name, array in _popped(weights):
        if not mx.isfinite(array).all().item():
            raise ModelError(
                f"{name} has values beyond the range of float16", where=where, remedy="choose --dtype bfloat16"
            )
        yield name, array
