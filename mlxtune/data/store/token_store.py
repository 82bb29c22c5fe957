"""Rendered rows behind one another in a file, each read when it is asked for: memory does not grow with their tokens.

A row is one record: its token ids in two bytes each, or four where one needs them, its targets in a bit each, and its
weights where it has any. What every row is asked for without being read (its length, where its targets are) stands in
arrays, about 20 bytes a row. Records are appended, first in memory, and from `SPILL_BYTES` on in a file without a
name, so that a process that is killed leaves nothing behind. They are read by `pread` instead of a memory map: a
system call a row, but no page of the file counts as the process's memory, and a file that someone cuts short is an
error instead of a crash. Knows arrays and bytes; nothing of text or of where a row came from.
"""

import hashlib
import os
import struct
import tempfile
import weakref
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mlxtune.data.render import Rendered
from mlxtune.errors import DeviceError

SPILL_BYTES = 1 << 20
"""Of records that are kept in memory before they are written."""
TWO_BYTES = np.iinfo(np.uint16).max
WIDE, WEIGHTED = 1, 2
"""Flags of a record: token ids of four bytes; weights."""

TAIL = struct.Struct("<QQ")
"""At the end of a kept file: how many rows it has, and how many bytes their records take; then the SHA-256 of all."""
COPY_BYTES = 1 << 20


@dataclass(frozen=True, eq=False)
class Facts:
    """Of N rows, [N] each: tokens, places of the first and last target (0 without any, where none can be), targets."""

    length: np.ndarray
    first_target: np.ndarray
    last_target: np.ndarray
    target_count: np.ndarray

    def take(self, numbers: np.ndarray | slice) -> "Facts":
        """Those of some rows."""
        return Facts(*(column[numbers] for column in self.columns()))

    def columns(self) -> tuple[np.ndarray, ...]:
        return self.length, self.first_target, self.last_target, self.target_count


class FactsWriter:
    """Facts of one row after another."""

    def __init__(self) -> None:
        self._columns = tuple(array("i") for _ in range(4))

    def add(self, row: Rendered) -> None:
        targets = np.flatnonzero(row.is_target)
        ends = (int(targets[0]), int(targets[-1])) if len(targets) else (0, 0)
        for column, value in zip(self._columns, (len(row.token_ids), *ends, len(targets)), strict=True):
            column.append(value)

    def finish(self) -> Facts:
        return Facts(*(np.array(column, np.int32) for column in self._columns))


class Store:
    """Rows that were written, by number.

    Attributes:
        facts: of every row.
    """

    def __init__(self, read: Callable[[int, int], bytes], facts: Facts, flags: np.ndarray) -> None:
        """
        Args:
            read: so many bytes of the records, from an offset on.
            flags: [N] uint8, of each record.
        """
        self.facts = facts
        self.flags = flags
        self._read = read
        self._starts = np.concatenate([[0], np.cumsum(_record_bytes(facts.length, flags))])

    def __len__(self) -> int:
        return len(self.flags)

    @property
    def record_bytes(self) -> int:
        """Of all records together."""
        return int(self._starts[-1])

    def read(self, number: int, where: str) -> Rendered:
        """One row, in arrays that cannot be written to.

        Raises: DeviceError, if the file no longer holds it.
        """
        length, flags = int(self.facts.length[number]), int(self.flags[number])
        start = int(self._starts[number])
        record = self._read(start, int(self._starts[number + 1]) - start)
        id_type, packed = (np.int32 if flags & WIDE else np.uint16), -(-length // 8)
        ids_end = length * np.dtype(id_type).itemsize
        token_ids = np.frombuffer(record, id_type, count=length).astype(np.int32)
        is_target = np.unpackbits(np.frombuffer(record, np.uint8, packed, ids_end), count=length).view(bool)
        weight = None
        if flags & WEIGHTED:
            weight = np.frombuffer(record, np.float32, length, ids_end + packed).copy()  # aligned
            weight.flags.writeable = False
        token_ids.flags.writeable = is_target.flags.writeable = False
        return Rendered(token_ids, is_target, where, weight)

    def read_ids(self, number: int, start: int, end: int) -> np.ndarray:
        """A row's token ids from ``start`` to ``end``, which it has, [end - start] int32. Raises: as `read`."""
        id_type, size = (np.int32, 4) if self.flags[number] & WIDE else (np.uint16, 2)
        record = self._read(int(self._starts[number]) + start * size, max(0, end - start) * size)
        return np.frombuffer(record, id_type).astype(np.int32)

    def copy_to(self, file: BinaryIO) -> None:
        """Write all rows to a file that `open_store` opens."""
        digest = hashlib.sha256()

        def write(content: bytes) -> None:
            digest.update(content)
            file.write(content)

        for start in range(0, self.record_bytes, COPY_BYTES):
            write(self._read(start, min(COPY_BYTES, self.record_bytes - start)))
        for column in self.facts.columns():
            write(column.astype("<i4").tobytes())
        write(self.flags.tobytes())
        write(TAIL.pack(len(self), self.record_bytes))
        file.write(digest.digest())


class StoreWriter:
    """Appends rows; `finish` gives the store that they are in.

    Args:
        folder: where the file is made; the system's folder of temporary files, for None or if no file can be made
            there.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._ahead = bytearray()
        self._descriptor: int | None = None
        self._facts = FactsWriter()
        self._flags = array("B")

    def add(self, row: Rendered) -> None:
        """Append one row. Raises: DeviceError, if the disk does not take it."""
        wide = bool(len(row.token_ids)) and int(row.token_ids.max()) > TWO_BYTES
        self._ahead += row.token_ids.astype("<i4" if wide else "<u2").tobytes()
        self._ahead += np.packbits(row.is_target).tobytes()
        if row.weight is not None:
            self._ahead += row.weight.astype("<f4").tobytes()
        self._facts.add(row)
        self._flags.append(WIDE * wide | WEIGHTED * (row.weight is not None))
        if len(self._ahead) >= SPILL_BYTES:
            self._spill()

    def finish(self) -> Store:
        """The rows written. Raises: as `add`."""
        facts, flags = self._facts.finish(), np.array(self._flags, np.uint8)
        if self._descriptor is None:
            content = bytes(self._ahead)
            return Store(lambda start, size: content[start : start + size], facts, flags)
        self._spill()
        descriptor, self._descriptor = self._descriptor, None
        return Store(_reader(descriptor), facts, flags)

    def close(self) -> None:
        """Let go of what is not finished."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _spill(self) -> None:
        try:
            if self._descriptor is None:
                self._descriptor = self._new_file()
            ahead = memoryview(self._ahead)
            while ahead:
                ahead = ahead[os.write(self._descriptor, ahead) :]
        except OSError as error:
            raise DeviceError(
                f"the rows' token ids cannot be written to the disk: {error.strerror}",
                where=self._folder or tempfile.gettempdir(),
                remedy="make room there, or set MLXTUNE_CACHE to a folder on another disk",
            ) from error
        self._ahead = bytearray()

    def _new_file(self) -> int:
        """A file without a name that could be left behind; of the system's, if the folder may only be read."""
        try:
            with tempfile.TemporaryFile(dir=self._folder) as file:
                return os.dup(file.fileno())
        except OSError:
            if self._folder is None:
                raise
            self._folder = None
            return self._new_file()


def open_store(path: Path) -> Store | None:
    """The rows that `Store.copy_to` wrote to a file; None if it is not there, or not as it was written."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        found = _opened(descriptor)
    except (OSError, struct.error, ValueError):
        found = None
    if found is None:
        os.close(descriptor)
    return found


def _opened(descriptor: int) -> Store | None:
    digest_bytes = hashlib.sha256().digest_size
    size = os.fstat(descriptor).st_size
    end = size - digest_bytes
    if end < TAIL.size:
        return None
    digest = hashlib.sha256()
    for start in range(0, end, COPY_BYTES):
        digest.update(os.pread(descriptor, min(COPY_BYTES, end - start), start))
    if digest.digest() != os.pread(descriptor, digest_bytes, end):
        return None
    rows, record_bytes = TAIL.unpack(os.pread(descriptor, TAIL.size, end - TAIL.size))
    columns = np.frombuffer(os.pread(descriptor, 16 * rows, record_bytes), "<i4").reshape(4, rows)
    flags = np.frombuffer(os.pread(descriptor, rows, record_bytes + 16 * rows), np.uint8)
    return Store(_reader(descriptor), Facts(*columns), flags)


def _reader(descriptor: int) -> Callable[[int, int], bytes]:
    """Reads from a file that is closed when nobody can read from it any more."""

    def read(start: int, size: int) -> bytes:
        record = os.pread(descriptor, size, start)
        if len(record) != size:
            raise DeviceError(
                "the file of token ids was cut short while it was in use", remedy="start again: it is made anew"
            )
        return record

    weakref.finalize(read, os.close, descriptor)
    return read


def _record_bytes(length: np.ndarray, flags: np.ndarray) -> np.ndarray:
    whole = length.astype(np.int64)
    return whole * np.where(flags & WIDE, 4, 2) + -(-whole // 8) + whole * np.where(flags & WEIGHTED, 4, 0)
