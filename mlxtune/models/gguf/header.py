"""The container of a GGUF file: its metadata and where each tensor lies, every length held against the file's.

Knows the format, not models. The ``gguf`` package's own reader follows whatever a damaged file says (an array that
claims 2**40 entries keeps it busy for ever), and MLX's loader crashes on some; so the header is walked here, with
nothing believed before it is checked. That is also faster: 0.1 s for 49,152 tokens instead of 2 s.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType

from mlxtune.errors import ModelError
from mlxtune.models import DAMAGED

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
DIMENSIONS_LIMIT = 4
NAME_LIMIT = 64  # ggml's own
# What no model comes near, and what keeps a file that was made to fill memory from doing so: each number of a list,
# each text and each tensor becomes an object some ten times as large.
HEADER_LIMIT = 1 << 26  # bytes
LIST_LIMIT = 1 << 22
TENSOR_LIMIT = 1 << 16

_UINT32 = struct.Struct("<I")
_UINT64 = struct.Struct("<Q")
_SCALARS = {
    GGUFValueType.UINT8: struct.Struct("<B"),
    GGUFValueType.INT8: struct.Struct("<b"),
    GGUFValueType.UINT16: struct.Struct("<H"),
    GGUFValueType.INT16: struct.Struct("<h"),
    GGUFValueType.UINT32: _UINT32,
    GGUFValueType.INT32: struct.Struct("<i"),
    GGUFValueType.FLOAT32: struct.Struct("<f"),
    GGUFValueType.BOOL: struct.Struct("<?"),
    GGUFValueType.UINT64: _UINT64,
    GGUFValueType.INT64: struct.Struct("<q"),
    GGUFValueType.FLOAT64: struct.Struct("<d"),
}
_SHORTEST_STRING = 8  # bytes: the length of an empty one
_SHORTEST_ENTRY = 8 + 4 + 1  # bytes: an empty key, a type, a value
_SHORTEST_TENSOR = 8 + 4 + 4 + 8  # bytes: an empty name, no dimensions, a type, an offset


@dataclass(frozen=True)
class GgufTensor:
    """One tensor as the header describes it."""

    type: GGMLQuantizationType
    shape: tuple[int, ...]
    """Rows first, as numpy has it; GGUF itself writes the innermost dimension first."""
    begin: int
    """Where its bytes begin in the file."""
    byte_count: int


@dataclass(frozen=True)
class GgufHeader:
    """What a GGUF file says of itself."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]


def read_header(path: Path) -> GgufHeader:
    """The metadata and the tensors' places in ``path``, all of them inside the file and none over another.

    Raises: ModelError, for whatever is not so.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise ModelError("this is no GGUF file", where=path, remedy="give a .gguf file or a model folder")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _read(content, path)
    except OSError as error:
        raise ModelError(
            f"cannot be read: {error.strerror}", where=path, remedy="check the path and its rights"
        ) from error


class _Walk:
    """A place in the file that only moves forward, and never past the end."""

    def __init__(self, content: mmap.mmap, path: Path) -> None:
        self.content = content
        self.path = path
        self.place = len(MAGIC)

    def refuse(self, what: str) -> NoReturn:
        raise ModelError(what, where=self.path, remedy=DAMAGED)

    def step(self, byte_count: int) -> int:
        """Go on by ``byte_count``; returns the place before."""
        before = self.place
        if byte_count > len(self.content) - before:
            self.refuse("the file ends inside its header")
        self.place = before + byte_count
        if self.place > HEADER_LIMIT:
            self.refuse(f"the header is longer than {HEADER_LIMIT:,} bytes")
        return before

    def number(self, form: struct.Struct) -> Any:
        place = self.step(form.size)
        return form.unpack_from(self.content, place)[0]

    def count(self, shortest: int, what: str, most: int = LIST_LIMIT) -> int:
        """A count of things of at least ``shortest`` bytes each, which the rest of the file must be able to hold."""
        number = self.number(_UINT64)
        if number * shortest > len(self.content) - self.place:
            self.refuse(f"the header claims {number:,} {what}, more than the file can hold")
        if number > most:
            self.refuse(f"the header claims {number:,} {what}; {most:,} are the most")
        return number

    def string(self) -> str:
        length = self.number(_UINT64)
        place = self.step(length)
        try:
            return self.content[place : self.place].decode("utf-8")
        except UnicodeDecodeError:
            self.refuse(f"the text at byte {place:,} is not UTF-8")

    def value(self) -> Any:
        kind = self.value_type()
        if kind is GGUFValueType.ARRAY:
            return self.array()
        return self.string() if kind is GGUFValueType.STRING else self.number(_SCALARS[kind])

    def array(self) -> list[Any]:
        kind = self.value_type()
        if kind is GGUFValueType.ARRAY:
            self.refuse("the metadata has an array of arrays")
        if kind is GGUFValueType.STRING:
            return [self.string() for _ in range(self.count(_SHORTEST_STRING, "strings"))]
        form = _SCALARS[kind]
        count = self.count(form.size, "numbers")
        place = self.step(count * form.size)
        return list(struct.unpack_from(f"<{count}{form.format[-1]}", self.content, place))

    def value_type(self) -> GGUFValueType:
        number = self.number(_UINT32)
        try:
            return GGUFValueType(number)
        except ValueError:
            self.refuse(f"the metadata has a value of the unknown type {number}")


def _read(content: mmap.mmap, path: Path) -> GgufHeader:
    walk = _Walk(content, path)
    version = walk.number(_UINT32)
    if version not in VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS
        what = "the file is big-endian" if swapped else f"this is GGUF version {version}"
        raise ModelError(f"{what}; versions 2 and 3, little-endian, are read", where=path, remedy="convert it again")
    tensor_count = walk.count(_SHORTEST_TENSOR, "tensors", TENSOR_LIMIT)
    entry_count = walk.count(_SHORTEST_ENTRY, "metadata entries")
    metadata: dict[str, Any] = {}
    for _ in range(entry_count):
        key = walk.string()
        if key in metadata:
            walk.refuse(f"the metadata has {key[:NAME_LIMIT]} twice")
        metadata[key] = walk.value()
    infos = [_tensor_info(walk) for _ in range(tensor_count)]
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        walk.refuse(f"general.alignment is {alignment!r}, not a power of two")
    return GgufHeader(path, metadata, _place(walk, infos, alignment))


def _tensor_info(walk: _Walk) -> tuple[str, GgufTensor]:
    """Name and tensor, whose ``begin`` still counts from the start of the data."""
    name = walk.string()
    if len(name) > NAME_LIMIT:
        walk.refuse(f"a tensor's name has {len(name):,} characters; {NAME_LIMIT} are the most")
    dimension_count = walk.number(_UINT32)
    if not 1 <= dimension_count <= DIMENSIONS_LIMIT:
        walk.refuse(f"tensor {name} has {dimension_count} dimensions")
    dimensions = [walk.number(_UINT64) for _ in range(dimension_count)]
    number = walk.number(_UINT32)
    begin = walk.number(_UINT64)
    try:
        kind = GGMLQuantizationType(number)
    except ValueError:
        walk.refuse(f"tensor {name} has the unknown type {number}")
    block, block_bytes = GGML_QUANT_SIZES[kind]
    if dimensions[0] % block or 0 in dimensions:
        walk.refuse(f"tensor {name} of type {kind.name} cannot have the shape {dimensions[::-1]}")
    return name, GgufTensor(kind, tuple(dimensions[::-1]), begin, math.prod(dimensions) // block * block_bytes)


def _place(walk: _Walk, infos: list[tuple[str, GgufTensor]], alignment: int) -> dict[str, GgufTensor]:
    """The tensors by name, in file order, each with its place in the file."""
    start = -(-walk.place // alignment) * alignment
    tensors: dict[str, GgufTensor] = {}
    place = start
    for name, tensor in sorted(infos, key=lambda info: info[1].begin):
        begin = start + tensor.begin
        if name in tensors:
            walk.refuse(f"tensor {name} is there twice")
        if begin % alignment or begin < place:
            walk.refuse(f"tensor {name} overlaps another, or lies at an odd place")
        place = begin + tensor.byte_count
        if place > len(walk.content):
            walk.refuse(f"the file ends inside tensor {name}")
        tensors[name] = GgufTensor(tensor.type, tensor.shape, begin, tensor.byte_count)
    return tensors
