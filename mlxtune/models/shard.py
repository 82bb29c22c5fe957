"""A safetensors file written tensor by tensor: none is held once its bytes are in the file.

The header comes first in the format, and what stands in it is known last. So room is left for it, and what of that is
not needed is filled with spaces, as the format allows; a header that is longer than was foreseen costs a copy of the
file. Knows the container, not what a tensor means.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import mlx.core as mx

from mlxtune.files import naming

ENTRY_BYTES = 192
"""Of the header, for one tensor."""
CACHE_BYTES = 64 << 20
"""Of freed buffers that MLX may keep between two tensors."""
TYPE_NAMES = {
    mx.bool_: "BOOL",
    mx.uint8: "U8",
    mx.int8: "I8",
    mx.uint16: "U16",
    mx.int16: "I16",
    mx.uint32: "U32",
    mx.int32: "I32",
    mx.uint64: "U64",
    mx.int64: "I64",
    mx.float16: "F16",
    mx.bfloat16: "BF16",
    mx.float32: "F32",
    mx.complex64: "C64",
}


class ShardWriter:
    """The file ``path``, whole when the block has ended.

    Args:
        tensor_count: about how many tensors it will have.
    """

    def __init__(self, path: Path, tensor_count: int) -> None:
        self.path = path
        self.entries: dict[str, dict[str, Any]] = {}
        self.size = 0
        """Bytes of the tensors so far."""
        self._room = ENTRY_BYTES * (tensor_count + 1)
        self._file = path.open("wb")
        self._file.seek(8 + self._room)

    def add(self, name: str, array: mx.array) -> None:
        """Work ``array`` out and write it. Raises: OSError, which names the file."""
        shape, kind = array.shape, TYPE_NAMES[array.dtype]
        if array.size:
            # In the shape it has: flat, or as bytes, a large tensor would be longer than the 32 bits of MLX's shapes.
            rows = mx.contiguous(array)
            rows = rows.view(mx.uint16) if kind == "BF16" else rows  # Python has no bfloat16
            # Several together, MLX would read all that they are made of before it computes the first.
            mx.eval(rows)
            with naming(self.path):
                self._file.write(memoryview(rows))  # pyright: ignore[reportArgumentType] - mlx's stub leaves the buffer out
        end = self.size + array.nbytes
        self.entries[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [self.size, end]}
        self.size = end
        if mx.get_cache_memory() > CACHE_BYTES:
            mx.clear_cache()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file, naming(self.path):
            if error is not None:
                return
            header = _header({"__metadata__": {"format": "mlx"}} | self.entries, self._room)
            if len(header) <= 8 + self._room:
                self._file.seek(0)
                self._file.write(header)
                return
        self._move(header)

    def _move(self, header: bytes) -> None:
        """The file again, with as much room as its header takes."""
        whole = self.path.with_name(f"{self.path.name}.whole")
        with naming(whole), whole.open("wb") as target, self.path.open("rb") as source:
            target.write(header)
            source.seek(8 + self._room)
            shutil.copyfileobj(source, target, 1 << 24)
        whole.replace(self.path)


def _header(entries: Mapping[str, Any], room: int) -> bytes:
    """The length and the header, filled with spaces to ``room``, or if it is longer to a multiple of eight."""
    text = json.dumps(entries, separators=(",", ":")).encode()
    text = text.ljust(max(room, -(-len(text) // 8) * 8))
    return len(text).to_bytes(8, "little") + text
