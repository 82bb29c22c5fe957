"""A model folder again, in other number formats: as stored, as floats, or quantized.

What is already stored as asked is passed through to the last bit, because quantizing dequantized values gives another
grid. Knows networks as mlx_lm builds them. All is decided on lazy arrays, whose sizes are known before a value is; the
values are computed one by one, while they are written.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten, tree_map_with_path, tree_unflatten

from mlxtune.device.dequantize import dequantize_network, is_quantized
from mlxtune.device.precision import casting
from mlxtune.device.reductions import all_finite
from mlxtune.errors import ModelError
from mlxtune.models.load import load_network
from mlxtune.models.quantization import Setting, quantization_of, quantization_wanted
from mlxtune.models.write import (
    DTYPES,
    SHARD_BYTES,
    copy_companions,
    plain_config,
    quantization_config,
    write_config,
    write_weights,
)
from mlxtune.progress import Progress, silent

Choice = Callable[[nn.Module], Mapping[str, Setting]]
"""Names the layers of a network that are to be quantized, and how."""


@dataclass(frozen=True, eq=False)
class Rewriting:
    """A model in its new form, complete but for its values."""

    source: Path
    config: dict[str, Any]
    weights: dict[str, mx.array]
    """Lazy; `write_rewriting` empties it."""
    bytes: int
    parameters: int
    layers: dict[str, dict[str, Any]]
    """Of each layer that is or could be quantized, by path: its setting, or ``{"dtype"}``."""
    kept_layers: int
    """Quantized layers that are passed through."""
    requantized_layers: int
    """Layers that were quantized otherwise, and lose for the second time."""
    is_exact: bool
    """Whether every value is the one that was stored."""
    checks_range: bool
    """Whether a value may lie beyond what its new type holds."""

    def forms(self) -> list[dict[str, Any]]:
        """Each setting or ``dtype``, and how many ``layers`` have it, the commonest first."""
        counts = Counter(tuple(sorted(setting.items())) for setting in self.layers.values())
        return [dict(setting) | {"layers": count} for setting, count in counts.most_common()]


def rewrite_folder(
    source: Path,
    folder: Path,
    *,
    quantize: tuple[int, int] | None = None,
    dtype: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress = silent,
) -> Rewriting:
    """Write the model in ``source`` to the empty ``folder``, in MLX's form; memory holds one tensor at a time.

    Args:
        quantize: bits and group size, for every linear layer and embedding.
        dtype, shard_bytes: as of `plan_rewriting` and `write_rewriting`.

    Raises: ModelError, as these do.
    """
    choose = None
    if quantize is not None:
        bits, group_size = quantize
        choose = partial(quantization_wanted, bits=bits, group_size=group_size)
    rewriting = plan_rewriting(source, choose=choose, dtype=dtype)
    write_rewriting(rewriting, folder, shard_bytes=shard_bytes, progress=progress)
    return rewriting


def plan_rewriting(source: Path, *, choose: Choice | None = None, dtype: str | None = None) -> Rewriting:
    """Decide what the model in ``source`` becomes; nothing is computed or written.

    Args:
        choose: how each layer is to be quantized.
        dtype: of all floats, a quantized layer's scales and biases included. Without ``choose`` nothing stays
            quantized.

    Raises: ModelError, if the source is not whole or a layer's width is no multiple of its group size.
    """
    from mlx_lm.utils import get_total_parameters

    network, config = load_network(source)
    before = {name: array.dtype for name, array in dict(tree_flatten(network.parameters())).items()}
    packed = {path for path, module in network.named_modules() if is_quantized(module)}
    kept, made = packed, set()
    if choose is not None:
        kept, made = _quantize(network, choose(network), where=source)
    elif dtype is not None:
        kept = set()
        dequantize_network(network)
    if dtype is not None:
        network.update(tree_map_with_path(casting(network, DTYPES[dtype]), network.parameters()))
    settings = {path: quantization_of(module) for path, module in network.named_modules() if is_quantized(module)}
    plain = {
        path: {"dtype": _name(module.weight.dtype)}
        for path, module in network.named_modules()
        if hasattr(module, "to_quantized")
    }
    if choose is not None or dtype is not None:
        config = plain_config(config, dtype)
        if settings:
            config["quantization"] = quantization_config(settings)
    parameters = get_total_parameters(network)
    weights = dict(tree_flatten(network.parameters()))
    # The network would hold on to every array that is computed, until the end.
    network.update(tree_unflatten([(name, mx.array([])) for name in weights]))
    return Rewriting(
        source=source,
        config=config,
        weights=weights,
        bytes=sum(array.nbytes for array in weights.values()),
        parameters=parameters,
        layers=plain | settings,
        kept_layers=len(kept),
        requantized_layers=len(made & packed),
        is_exact=not made and all(array.dtype in (before[name], mx.float32) for name, array in weights.items()),
        checks_range=dtype == "float16",
    )


def write_rewriting(
    rewriting: Rewriting, folder: Path, *, shard_bytes: int = SHARD_BYTES, progress: Progress = silent
) -> None:
    """Work out the values and write them to the empty ``folder``, with the config and what belongs to the model.

    Args:
        shard_bytes: no file of weights is larger, except for a tensor that is.

    Raises: ModelError, at a value beyond float16.
    """
    weights, count = rewriting.weights, len(rewriting.weights)
    stream = _finite(weights, rewriting.source) if rewriting.checks_range else _popped(weights)
    write_weights(folder, stream, count=count, shard_bytes=shard_bytes, progress=progress)
    write_config(folder, rewriting.config)
    copy_companions(rewriting.source, folder)


def is_stored_as(folder: Path, bits: int, group_size: int) -> bool:
    """Whether quantizing the model in ``folder`` so would leave every layer as it is. Raises: ModelError."""
    network, _ = load_network(folder)
    wanted = quantization_wanted(network, bits, group_size)
    return all(_has(module, wanted[path]) for path, module in network.named_modules() if path in wanted)


def _has(module: nn.Module, setting: Setting) -> bool:
    return is_quantized(module) and quantization_of(module) == setting


def _quantize(network: nn.Module, wanted: Mapping[str, Setting], *, where: Path) -> tuple[set[str], set[str]]:
    """Quantize in place, from float32 where a layer was quantized otherwise; scales come in the type its floats had.

    Returns: the paths of the layers that had their setting already, and are untouched; and of those quantized here.
    """
    before = {path: module for path, module in network.named_modules() if path in wanted or is_quantized(module)}
    kept = {path for path, module in before.items() if path in wanted and _has(module, wanted[path])}
    made = wanted.keys() - kept
    dtypes = {path: _dtype_of_floats(module) for path, module in before.items()}
    dequantize_network(network, kept)
    for path, module in network.named_modules():
        if path in made and (width := module.weight.shape[-1]) % (size := wanted[path]["group_size"]):
            raise ModelError(
                f"layer {path} is {width} wide, which is no multiple of the group size {size}",
                where=where,
                remedy="choose a smaller group size",
            )
    nn.quantize(network, class_predicate=lambda path, _: wanted[path] if path in made else False)
    for path, module in network.named_modules():
        if path in dtypes and path not in kept:
            module.set_dtype(dtypes[path])
    return kept, made


def _name(dtype: mx.Dtype) -> str:
    return str(dtype).rpartition(".")[2]


def _dtype_of_floats(module: nn.Module) -> mx.Dtype:
    """The type of a layer's floats; where a quantized one has bytes for scales, that of MLX's own expansion."""
    dtype = module["scales" if is_quantized(module) else "weight"].dtype
    return dtype if mx.issubdtype(dtype, mx.floating) else mx.bfloat16


def _popped(weights: dict[str, mx.array]) -> Iterator[tuple[str, mx.array]]:
    """The items of ``weights``, which is emptied on the way."""
    for name in list(weights):
        yield name, weights.pop(name)


def _finite(weights: dict[str, mx.array], where: Path) -> Iterator[tuple[str, mx.array]]:
    """As ``_popped``. Raises: ModelError, at a value beyond float16."""
    for name, array in _popped(weights):
        if array.dtype == mx.float16 and not all_finite(array):
            raise ModelError(
                f"{name} has values beyond the range of float16", where=where, remedy="choose --dtype bfloat16"
            )
        yield name, array
