"""Safetensors files, checked before a byte of them is used: header, types, places, and the index over the shards.

Knows the container, not what a tensor means. MLX believes a header, and a wrong one is read as numbers from the wrong
place or crashes; here everything that a header says is held against the length of the file. The price is reading each
header twice, a few milliseconds.
"""

import math
import os
import re
import stat
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import mlx.core as mx

from mlxtune.errors import ModelError
from mlxtune.files import naming
from mlxtune.json_text import parse_json
from mlxtune.models import DAMAGED
from mlxtune.printable import printable

BYTES_PER_VALUE = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E8M0": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
    "C64": 8,
}
"""The types that MLX reads; float64 is not among them."""

HEADER_LIMIT = 25_000_000
"""Bytes of a header or an index; the hub's own tools stop there too. JSON may take thirty times its length in memory,
so the format's own limit, 100 MB, would allow gigabytes.
"""
DIMENSIONS_LIMIT = 8
DIMENSION_LIMIT = 2**31 - 1  # MLX counts in int32
LONGEST_NAME = 200  # characters of a name in an error
MISSING_SHOWN = 5
INDEX = "model.safetensors.index.json"
WEIGHTS = "model*.safetensors"  # what mlx_lm loads
ENTRY = {"dtype", "shape", "data_offsets"}


@dataclass(frozen=True)
class TensorInfo:
    """One tensor as its file's header describes it."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    """Where its bytes begin in the file."""
    end: int

    @property
    def byte_count(self) -> int:
        return self.end - self.begin


def write_safetensors(path: Path, tensors: Mapping[str, mx.array], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors to a file.

    Through Python's file, because MLX's own says neither that the disk is full nor where: OSError does.
    """
    with naming(path), path.open("wb") as file:
        mx.save_safetensors(file, dict(tensors), metadata=metadata and dict(metadata))  # pyright: ignore[reportArgumentType] - mlx's stub has paths alone


def validate_safetensors(path: Path) -> dict[str, TensorInfo]:
    """What the header of ``path`` says, once it is known to be true of the file's length.

    Held: the header fits and is one JSON object without a name twice; each type is one that MLX reads; each tensor
    has as many bytes as its shape asks for; together they cover the file, without overlap or gap, to its end.

    Raises: ModelError.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
            _refuse(path, "this is no file")
        length = status.st_size
        with path.open("rb") as file:
            header_length = struct.unpack("<Q", _read(file.read(8), 8, path))[0]
            if header_length > min(HEADER_LIMIT, length - 8):
                _refuse(path, f"the header claims {header_length:,} bytes in a file of {length:,}")
            header = _parse(file.read(header_length), path)
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}", where=path, remedy=DAMAGED) from error
    start = 8 + header_length
    metadata = header.get("__metadata__")
    if metadata is not None and not _are_texts(metadata):
        _refuse(path, "the metadata is no object of texts")
    tensors = {name: _tensor(name, entry, start, path) for name, entry in header.items() if name != "__metadata__"}
    place = start
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != place:
            what = "overlaps the one before it" if tensor.begin < place else "leaves a gap before it"
            _refuse(path, f"tensor {_shown(name)} {what}")
        place = tensor.end
    if place != length:
        _refuse(path, f"the tensors end at byte {place:,} of a file of {length:,}")
    return tensors


def validate_weights(folder: Path) -> dict[str, TensorInfo]:
    """Every tensor of a model folder, its shards checked one by one and against the index.

    Raises: ModelError, if a file is bad or missing, or files and index disagree: mlx_lm loads every
        ``model*.safetensors`` that it finds, in no order, so a file too many is as wrong as one missing.
    """
    found = sorted(folder.glob(WEIGHTS))
    index = folder / INDEX
    if os.path.lexists(index):  # a link to nowhere is no absent index
        listed = read_index(index)
        names = set(listed.values())
    else:
        if not found:
            raise _no_weights(folder)
        listed = None
        names = expected_shards({path.name for path in found})
    if missing := sorted(names - {path.name for path in found}):
        raise ModelError(
            f"the weights are not complete: missing {_some(missing)}", where=folder, remedy="download it again"
        )
    if extra := sorted({path.name for path in found} - names):
        raise ModelError(
            f"{_some(extra)} does not belong to the weights that {INDEX} lists",
            where=folder,
            remedy="move it out of the folder",
        )
    tensors: dict[str, TensorInfo] = {}
    shard_of: dict[str, str] = {}
    for path in found:
        for name, tensor in validate_safetensors(path).items():
            if name in tensors:
                _refuse(path, f"tensor {_shown(name)} is also in {shard_of[name]}")
            tensors[name] = tensor
            shard_of[name] = path.name
    if listed is not None and listed != shard_of:
        differing = sorted(name for name in listed.keys() | shard_of.keys() if listed.get(name) != shard_of.get(name))
        _refuse(index, f"index and shards disagree on {len(differing)} tensors, such as {_shown(differing[0])}")
    return tensors


def _read(content: bytes, count: int, path: Path) -> bytes:
    if len(content) < count:
        _refuse(path, "the file ends inside its header")
    return content


def _parse(content: bytes, path: Path) -> dict[str, Any]:
    try:
        header = parse_json(content)
    except ValueError as error:
        raise ModelError(f"the header cannot be read: {_shown(str(error))}", where=path, remedy=DAMAGED) from error
    if not isinstance(header, dict):
        _refuse(path, "the header is not a JSON object")
    return header


def _tensor(name: str, entry: Any, start: int, path: Path) -> TensorInfo:
    """Raises: ModelError, if the entry is not ``{dtype, shape, data_offsets}`` or its parts do not fit each other."""
    shown = _shown(name)
    if not _is_unicode(name):
        _refuse(path, f"the name {shown} is no Unicode")
    if not isinstance(entry, dict) or entry.keys() != ENTRY:
        _refuse(path, f"tensor {shown} lacks its type, shape or place, or has more than these")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BYTES_PER_VALUE:
        raise ModelError(
            f"tensor {shown} has the type {_shown(str(dtype))}, which MLX does not read",
            where=path,
            remedy=f"use a model stored in one of {', '.join(BYTES_PER_VALUE)}",
        )
    if not _are_counts(shape) or len(shape) > DIMENSIONS_LIMIT or max(shape, default=0) > DIMENSION_LIMIT:
        _refuse(path, f"tensor {shown} has an impossible shape")
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[1] - offsets[0] != _bytes(dtype, shape):  # noqa: PLR2004 - begin and end
        _refuse(path, f"tensor {shown} has not as many bytes as its shape {shape} of {dtype} asks for")
    return TensorInfo(dtype, tuple(shape), start + offsets[0], start + offsets[1])


def _are_texts(metadata: Any) -> bool:
    return isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _bytes(dtype: str, shape: list[int]) -> int:
    return BYTES_PER_VALUE[dtype] * math.prod(shape)


def read_index(path: Path) -> dict[str, str]:
    """Tensor name to shard, from an index file. Raises: ModelError, if it is damaged or names what is no shard."""
    try:
        if not path.is_file() or path.stat().st_size > HEADER_LIMIT:
            _refuse(path, f"the index of the weights is no file, or one of more than {HEADER_LIMIT:,} bytes")
        index = parse_json(path.read_bytes())
    except (ValueError, OSError) as error:
        raise ModelError("the index of the weights cannot be read", where=path, remedy=DAMAGED) from error
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shards, dict):
        _refuse(path, "the index of the weights has no weight_map")
    for name, shard in shards.items():
        if not isinstance(shard, str) or "\\" in shard or Path(shard).name != shard or not Path(shard).match(WEIGHTS):
            where = _shown(repr(shard))
            _refuse(path, f"tensor {_shown(name)} is said to be in {where}, which is no name of a weights file")
    return shards


def expected_shards(names: set[str]) -> set[str]:
    """The shards that the numbering in ``model-00001-of-00003.safetensors`` promises; else the names as they are.

    Of those that are missing, the first few: a name may promise 99,999.
    """
    series = Counter(
        (numbered[1], numbered[2], numbered[3])
        for name in names
        if (numbered := re.fullmatch(r"(.*-)\d{5}-of-(\d{5})(\.safetensors)", name))
    )
    return names | {
        f"{before}{i:05d}-of-{count}{after}"
        for (before, count, after), found in series.items()
        for i in range(1, min(int(count), found + MISSING_SHOWN) + 1)
    }


def _no_weights(folder: Path) -> ModelError:
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")) or any(folder.glob("*.pth")):
        return ModelError(
            "the weights are pickled (.bin), and opening those can run code",
            where=folder,
            remedy="get the model's safetensors version, or save it again with transformers' save_pretrained",
        )
    return ModelError(
        "there are no weights (model*.safetensors)",
        where=folder,
        remedy="give the folder that holds config.json and weights",
    )


def _is_unicode(name: str) -> bool:
    r"""Whether ``name`` has no half of a surrogate pair, which JSON can say (``"\ud800"``) and UTF-8 cannot."""
    return not any("\ud800" <= c <= "\udfff" for c in name)


def _shown(name: str) -> str:
    """A name out of a file as an error may show it: one line, nothing that a terminal obeys, not endless."""
    shown = printable(name[:LONGEST_NAME])
    return shown if len(name) <= LONGEST_NAME else f"{shown}..."


def _some(names: list[str]) -> str:
    """The first few of file names."""
    more = ", ..." if len(names) > MISSING_SHOWN else ""
    return ", ".join(_shown(name) for name in names[:MISSING_SHOWN]) + more


def _refuse(path: Path, what: str) -> NoReturn:
    raise ModelError(what, where=path, remedy=DAMAGED)
