"""A file as its owner's text: opened safely, expanded where it is compressed, in UTF-8, line by line.

Everything that is read comes through here, so here are the bounds that keep a stranger's file from filling memory or
running for ever: of a line (`LONGEST`), of what a compressed file may expand to (`RATIO`), and that it is a file at
all, since opening a pipe would wait for whoever writes it. Knows bytes and lines; nothing of rows.
"""

import contextlib
import errno
import gzip
import io
import os
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mlxtune.data.reading.encodings import as_utf8
from mlxtune.data.reading.kinds import Compression, compression_of
from mlxtune.errors import DataError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LONGEST = 32 << 20
"""Bytes that a row, a line or a text may have: some eight million tokens."""
RATIO = 200
"""How many times its own size a compressed file may expand to: text expands 3 to 10 times, logs up to 100."""
ALWAYS_TAKEN = 64 << 20
"""Bytes that even the smallest compressed file may expand to."""
BUFFER = 1 << 16
MAGIC: tuple[tuple[bytes, Compression, str], ...] = (
    (b"\x1f\x8b", "gzip", ".gz"),
    (b"\x28\xb5\x2f\xfd", "zstd", ".zst"),
)
NAME_A_FILE = "name a file of rows that you can read"


@dataclass(frozen=True)
class Content:
    """A file's content in UTF-8, without a byte order mark, to be read once."""

    file: BinaryIO
    path: Path
    encoding: str
    compression: Compression


@contextlib.contextmanager
def open_content(path: Path) -> Iterator[Content]:
    """The text of a file.

    Raises: DataError, as `open_binary` does, and as `encodings.as_utf8`.
    """
    with open_binary(path) as binary:
        file, encoding = as_utf8(binary, path)
        yield Content(file, path, encoding, compression_of(path))


def stream_content(file: BinaryIO, name: str) -> Content:
    """The text of what comes through a pipe; ``name`` is said where others have a path. Raises: as `as_utf8`."""
    binary = file if isinstance(file, io.BufferedReader) else io.BufferedReader(io.BytesIO(file.read()))
    content, encoding = as_utf8(binary, Path(name))
    return Content(content, Path(name), encoding, "")


@contextlib.contextmanager
def open_binary(path: Path) -> Iterator["io.BufferedReader[Any]"]:
    """The bytes of a file, expanded where its name says that it is compressed.

    Raises: DataError, if it is not there, no file, or not to be opened; and from reading, if it is damaged, cut short,
        or expands beyond all measure.
    """
    try:
        found = path.stat()
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            raise DataError("this is a pipe or a device, and no file", where=path, remedy=NAME_A_FILE)
        file = io.BufferedReader(io.FileIO(path), BUFFER)
    except (OSError, ValueError) as error:
        raise _unreadable(error, path) from error
    with file:
        compression = compression_of(path)
        if compression:
            expanding = _Expanding(file, _EXPAND[compression](file), path, found.st_size)
            yield io.BufferedReader(expanding, BUFFER)
            return
        for magic, name, ending in MAGIC:
            if file.peek(4).startswith(magic):
                raise DataError(
                    f"the file is compressed ({name}), and its name does not say so",
                    where=path,
                    remedy=f"add {ending} to its name",
                )
        yield file


def numbered_lines(content: Content, *, blank: bool = False) -> Iterator[tuple[int, bytes | None]]:
    """The lines that are not blank, or all: their number from 1, and their bytes with the line end.

    A line ends at a newline alone. None stands in place of one that is longer than `LONGEST`.
    """
    readline, line = content.file.readline, 0
    while raw := readline(LONGEST + 1):
        line += 1
        if len(raw) <= LONGEST:
            if blank or not raw.isspace():
                yield line, raw
            continue
        while raw and not raw.endswith(b"\n"):
            raw = readline(BUFFER)
        yield line, None


def too_long() -> str:
    """What is said of a line, a row or a text beyond `LONGEST`."""
    return f"longer than {LONGEST >> 20} MiB, the most that is read as one"


def _open_gzip(file: BinaryIO) -> Any:
    return gzip.GzipFile(fileobj=file)


def _open_zstd(file: BinaryIO) -> Any:
    return zstd.ZstdFile(file)


_EXPAND: dict[Compression, Callable[[BinaryIO], Any]] = {"gzip": _open_gzip, "zstd": _open_zstd}


class _Expanding(io.RawIOBase):
    """What a compressed file holds, up to a limit."""

    def __init__(self, source: BinaryIO, expanded: Any, path: Path, size: int) -> None:
        self._source, self._expanded, self._path = source, expanded, path
        self._limit, self._count = max(ALWAYS_TAKEN, RATIO * size), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray | memoryview", /) -> int:  # type: ignore[override]
        try:
            data = self._expanded.read(len(buffer))
        except EOFError as error:
            remedy = "copy or download it again"
            raise DataError("the compressed file is cut short", where=self._path, remedy=remedy) from error
        except (OSError, zlib.error, zstd.ZstdError) as error:
            remedy = "copy or download it again; a name with .gz or .zst is for files compressed so"
            raise DataError(
                "the compressed file is damaged, or of another kind", where=self._path, remedy=remedy
            ) from error
        self._count += len(data)
        if self._count > self._limit:
            raise DataError(
                f"the compressed file expands to more than {RATIO} times its size: nothing like that is text",
                where=self._path,
                remedy="if it really is rows, expand it yourself and look",
            )
        buffer[: len(data)] = data
        return len(data)


def _unreadable(error: OSError | ValueError, path: Path) -> DataError:
    if isinstance(error, FileNotFoundError):
        what = "is a link to something that is not there" if os.path.islink(path) else "there is no such file"  # noqa: PTH114
    elif isinstance(error, ValueError):
        what = "the name of the file has a NUL character"
    elif error.errno == errno.ELOOP:
        what = "cannot be read: its symbolic links lead in a circle"
    else:
        what = f"cannot be read: {error.strerror}"
    return DataError(what, where=path, remedy=NAME_A_FILE)
