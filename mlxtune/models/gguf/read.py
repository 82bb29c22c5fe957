"""A GGUF file as an MLX folder that mlx_lm.load opens: tensors, config.json, tokenizer.

Knows the way through; the container is header.py's, what the architectures are architectures.py's, their
metadata config.py's, the block formats blocks.py's. A tensor is read, turned and written before the next, so
memory holds a shard and one tensor; the price is that a file in many parts is refused.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from mlxtune.errors import ModelError
from mlxtune.models import DAMAGED
from mlxtune.models.gguf.architectures import Architecture, tensor_parts
from mlxtune.models.gguf.blocks import BITS, GROUP, READABLE, affine_parts, float_array
from mlxtune.models.gguf.config import architecture_of, make_config
from mlxtune.models.gguf.header import GgufHeader, read_header
from mlxtune.models.gguf.rope import ROPE_TENSORS
from mlxtune.models.gguf.tokenizer import write_gguf_tokenizer
from mlxtune.models.gguf.values import SUPPORTED
from mlxtune.models.write import quantization_config, write_config, write_weights
from mlxtune.progress import Progress, silent

SHARD_BYTES = 1 << 30  # what waits in memory to be written


@dataclass(frozen=True)
class GgufModel:
    """A GGUF file that is known to hold a model we can read whole."""

    header: GgufHeader
    architecture: Architecture
    config: dict[str, Any]
    """config.json, as Hugging Face and mlx_lm write it."""
    names: dict[str, str]
    """GGUF's name of each tensor to mlx_lm's."""

    @property
    def metadata(self) -> dict[str, Any]:
        return self.header.metadata


def read_gguf(path: Path) -> GgufModel:
    """Read and check everything but the weights' values.

    Raises: ModelError, if the file is damaged, of another architecture, has a tensor of another type or shape, one too
        many or one too few.
    """
    header = read_header(path)
    name, architecture = architecture_of(header)
    config = make_config(header)
    if config["num_hidden_layers"] > len(header.tensors):
        what = f"there are {config['num_hidden_layers']:,} blocks but only {len(header.tensors):,} tensors"
        raise ModelError(what, where=path, remedy=DAMAGED)
    parts = tensor_parts(architecture, config)
    _check_tensors(header, name, {stored: shape for stored, (_, shape) in parts.items()})
    names = {stored: mlx_name for stored, (mlx_name, _) in parts.items()}
    config["torch_dtype"] = _dtype(header)
    layers = {
        names[stored].removesuffix(".weight"): {"group_size": GROUP, "bits": BITS[tensor.type], "mode": "affine"}
        for stored, tensor in header.tensors.items()
        if tensor.type in BITS
    }
    if quantization := quantization_config(layers):
        config["quantization"] = quantization
    return GgufModel(header, architecture, config, names)


def read_weights(model: GgufModel) -> Iterator[tuple[str, mx.array]]:
    """Every array of the MLX model and its name, in the file's order, one at a time.

    Floats are as stored, codes are uint32 with scales and biases of float16, and all else is of 16 bits.

    Raises: ModelError, if a scale or an expanded value is not finite.
    """
    config = model.config
    for stored, tensor in model.header.tensors.items():
        if stored in ROPE_TENSORS:
            continue
        name = model.names[stored]
        raw = np.fromfile(model.header.path, np.uint8, count=tensor.byte_count, offset=tensor.begin)
        raw = raw.reshape(tensor.shape[0], -1)
        if heads := _permuted_heads(stored, model.architecture, config):
            raw = raw[unpermuted_rows(len(raw), heads)]
        if tensor.type not in BITS:
            offset = -model.architecture.norm_offset if len(tensor.shape) == 1 and not name.endswith(".bias") else 0.0
            try:
                array = float_array(raw, tensor.type, tensor.shape, offset=offset)
            except ValueError as error:
                what = f"tensor {stored} has values that are no numbers"
                raise ModelError(what, where=model.header.path, remedy=DAMAGED) from error
            yield name, array
            continue
        weight, scales, biases = affine_parts(np.ascontiguousarray(raw), tensor.type)
        if not (np.isfinite(scales).all() and np.isfinite(biases).all()):
            raise ModelError(f"tensor {stored} has scales beyond float16", where=model.header.path, remedy=DAMAGED)
        module = name.removesuffix(".weight")
        yield f"{module}.weight", mx.array(weight)
        yield f"{module}.scales", mx.array(scales)
        yield f"{module}.biases", mx.array(biases)


def write_gguf_folder(path: Path, folder: Path, *, progress: Progress = silent) -> dict[str, Any]:
    """Write the model in the GGUF file ``path`` to ``folder`` as an MLX folder that mlx_lm.load opens.

    Returns: its config.
    Raises: ModelError, if the file cannot be read whole.
    """
    model = read_gguf(path)
    write_gguf_tokenizer(model.metadata, folder, where=path, rows=model.config["vocab_size"])
    count = sum(3 if model.header.tensors[stored].type in BITS else 1 for stored in model.names)
    write_weights(folder, read_weights(model), count=count, shard_bytes=SHARD_BYTES, progress=progress)
    write_config(folder, model.config)
    return model.config


def imported_bytes(model: GgufModel) -> int:
    """Of all the arrays that `read_weights` gives."""
    total = 0
    for stored in model.names:
        tensor = model.header.tensors[stored]
        values = math.prod(tensor.shape)
        if tensor.type in BITS:
            total += values * BITS[tensor.type] // 8 + 2 * 2 * (values // GROUP)
        else:
            total += values * (4 if tensor.type is GGMLQuantizationType.F32 else 2)
    return total


def unpermuted_rows(row_count: int, heads: int) -> np.ndarray:
    """Which stored row is row i of a q or k projection: GGUF's llama interleaves the two halves of each rotation.

    Returns: [row_count]; only rows move, so that quantized ones move whole.
    """
    return np.arange(row_count).reshape(heads, row_count // heads // 2, 2).swapaxes(1, 2).reshape(-1)


def stored_rows(rows: np.ndarray, stored: str, architecture: Architecture, config: Mapping[str, Any]) -> np.ndarray:
    """The rows of a tensor, by its GGUF name, in the order in which GGUF has them: the way back of `read_weights`."""
    if heads := _permuted_heads(stored, architecture, config):
        return rows[np.argsort(unpermuted_rows(len(rows), heads))]
    return rows


def _permuted_heads(stored: str, architecture: Architecture, config: Mapping[str, Any]) -> int | None:
    """How many heads a tensor's rows are of, if GGUF has them in another order."""
    heads = (config["num_attention_heads"], config["num_key_value_heads"])
    return dict(zip(architecture.permuted, heads, strict=False)).get(stored.split(".")[-2])


def _dtype(header: GgufHeader) -> str:
    """The number format that config.json names: that of the most values, quantized ones having scales of float16."""
    own = {GGMLQuantizationType.F32: "float32", GGMLQuantizationType.BF16: "bfloat16"}
    sizes: Counter[str] = Counter()
    for tensor in header.tensors.values():
        sizes[own.get(tensor.type, "float16")] += math.prod(tensor.shape)
    return sizes.most_common(1)[0][0]


def _check_tensors(header: GgufHeader, name: str, expected: dict[str, tuple[int, ...]]) -> None:
    """Raises: ModelError, if the tensors are not those of ``expected``, or one is of a type that is not read."""

    def refuse(what: str, remedy: str = DAMAGED) -> None:
        raise ModelError(what, where=header.path, remedy=remedy)

    if missing := sorted(expected.keys() - header.tensors.keys()):
        refuse(f"{len(missing)} tensors are missing, such as {missing[0]}")
    if extra := sorted(header.tensors.keys() - expected.keys() - set(ROPE_TENSORS)):
        refuse(f"a plain {name} has no tensor {extra[0]}", SUPPORTED)
    for stored, tensor in header.tensors.items():
        is_whole = len(tensor.shape) > 1 or GGML_QUANT_SIZES[tensor.type][0] == 1  # biases move value by value
        if tensor.type not in READABLE or not is_whole:
            known = ", ".join(kind.name for kind in READABLE)
            refuse(f"tensor {stored} is stored as {tensor.type.name}; matrices in {known} can be read", SUPPORTED)
        if tensor.shape != expected.get(stored, tensor.shape):
            refuse(f"tensor {stored} has the shape {tensor.shape}, not {expected[stored]}")
