"""A GGUF file from metadata and tensors that come one by one: types, sizes, bytes.

Knows the format's types, and which of them fits a tensor; what tensors are named and hold is their maker's business.
The gguf package does the writing and the quantizing, which is of the types of blocks of 32: of K-quants it only reads.
Memory holds one tensor; the price is that a value that float16 cannot hold is met when its turn comes.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import mlx.core as mx
import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType

from mlxtune.errors import ModelError
from mlxtune.models.gguf.blocks import HALF_LIMIT
from mlxtune.recipe.choices import GGUF_TYPES

TYPES: Mapping[str, GGMLQuantizationType] = {name: GGMLQuantizationType[name.upper()] for name in GGUF_TYPES}

FILE_TYPES = {"f32": LlamaFileType.ALL_F32} | {
    name: LlamaFileType[f"MOSTLY_{name.upper()}"] for name in TYPES if name != "f32"
}
WIDE = (GGMLQuantizationType.F32, GGMLQuantizationType.BF16)  # hold whatever float32 holds, nearly or to the bit


@dataclass(frozen=True)
class Stored:
    """What one tensor is written as."""

    shape: tuple[int, ...]
    """Rows first."""
    type: GGMLQuantizationType

    @property
    def byte_count(self) -> int:
        values, size = GGML_QUANT_SIZES[self.type]
        return math.prod(self.shape) // values * size


def header_bytes(metadata: Mapping[str, Any]) -> int:
    """About how much a file's metadata takes, for `check_disk_space`."""
    values = (one for value in metadata.values() for one in (value if isinstance(value, list) else [value]))
    return sum(8 + (4 * len(one) if isinstance(one, str) else 8) for one in values)


def choose_type(wanted: str, shape: tuple[int, ...], *, is_head: bool = False) -> GGMLQuantizationType:
    """The type for a tensor where a file of ``wanted`` is asked for.

    Norms and biases stay float32, as in llama.cpp's files; rows that are no whole number of blocks stay float16. The
    matrix that gives logits gets more bits than the rest, as llama-quantize has it; there 6, which cannot be written
    here, so 8.
    """
    if len(shape) == 1:
        return GGMLQuantizationType.F32
    kind = TYPES[wanted]
    block, _ = GGML_QUANT_SIZES[kind]
    if shape[-1] % block:
        return GGMLQuantizationType.F16
    return GGMLQuantizationType.Q8_0 if is_head and block > 1 else kind


def encode(array: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    """float32 values as the bytes of a type. Raises: ValueError, for values that it cannot hold."""
    low, high = array.min(), array.max()  # no numbers, both, where one value is none
    if not np.isfinite([low, high]).all() or (kind not in WIDE and max(high, -low) > HALF_LIMIT):
        raise ValueError("a value is no number, or beyond the type's range")
    if kind is GGMLQuantizationType.BF16:  # gguf's own takes eight times the memory
        return np.array(mx.array(array).astype(mx.bfloat16).view(mx.uint16))
    with np.errstate(all="ignore"):  # a block of zeros has no scale to divide by
        return gguf.quants.quantize(np.ascontiguousarray(array), kind)


def decode(encoded: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    """What a reader finds in what `encode` gave, float32."""
    if kind is GGMLQuantizationType.BF16:
        encoded = np.ascontiguousarray(encoded).view(np.uint8)
    return gguf.quants.dequantize(encoded, kind)


def write_gguf(
    path: Path,
    metadata: Mapping[str, Any],
    layout: Mapping[str, Stored],
    arrays: Iterator[np.ndarray],
    *,
    where: Path,
    written: Callable[[str, np.ndarray], None] = lambda _name, _encoded: None,
) -> None:
    """Write a GGUF file, plainly: whoever calls gives a name that nobody sees yet (``files.new_file``).

    Args:
        metadata: ``general.architecture`` among them. A list is of one type.
        layout: every tensor, in the order in which ``arrays`` come, float32.
        where: the model comes from, for an error.
        written: is told each tensor's name, and the bytes that `encode` made of it.

    Raises: ModelError, if a value does not fit its tensor's type.
    """
    writer = gguf.GGUFWriter(path, metadata["general.architecture"])
    try:
        for key, value in metadata.items():
            if key != "general.architecture":
                _add(writer, key, value)
        for name, stored in layout.items():
            writer.add_tensor_info(name, stored.shape, np.dtype(np.float32), stored.byte_count, raw_dtype=stored.type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for (name, stored), array in zip(layout.items(), arrays, strict=True):
            try:
                encoded = encode(array, stored.type)
            except ValueError as error:
                what = f"{name} has values that {stored.type.name} cannot hold"
                raise ModelError(what, where=where, remedy="choose --type bf16 or f32, or check the model") from error
            writer.write_tensor_data(encoded)
            written(name, encoded)
    finally:
        writer.close()


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, list):
        writer.add_array(key, value)
        return
    add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    add[type(value)](key, value)
