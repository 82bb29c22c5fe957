"""Bytes in whatever Unicode encoding a byte order mark names, as UTF-8; anything else is refused, never guessed at.

Knows bytes alone. UTF-16 and UTF-32 are brought to UTF-8 as they are read, so that all readers meet one encoding. What
is in none of these (Latin-1, Shift-JIS ...) cannot be told apart for certain: an error names the byte that is no UTF-8
and the encoding that the text is likely to be in, and the owner decides.
"""

import codecs
import io
from pathlib import Path
from typing import Any, BinaryIO

from mlxtune.errors import DataError

MARKS = (
    # UTF-32's little-endian mark begins with UTF-16's, so it goes first.
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
MET_MOST = ("cp1252", "cp932", "gb18030", "cp1251")
IN_USE = [*MET_MOST, "cp1250", "cp1253", "cp1254", "cp1255", "cp1256", "big5", "euc_kr", "euc_jp"]
"""What programs of today still write; of a short text, encodings that nobody has met for decades fit as well."""
CHUNK = 1 << 16
GUESSED_FROM = 1 << 16
"""Bytes by which the likely encoding is found."""


def as_utf8(file: "io.BufferedReader[Any]", path: Path) -> tuple[BinaryIO, str]:
    """The content of ``file`` as UTF-8 without a byte order mark, and the name of the encoding that it has.

    Without a mark it is taken for UTF-8, which whoever decodes it has to check.

    Raises: DataError, for UTF-16 or UTF-32 without a mark; and from reading, for bytes that are not in the encoding
        that the mark names.
    """
    beginning = file.peek(4)[:4]
    for mark, name in MARKS:
        if beginning.startswith(mark):
            file.read(len(mark))
            if name == "utf-8":
                return file, "UTF-8 with a byte order mark"
            return io.BufferedReader(_Decoding(file, name, path, len(mark)), CHUNK), name.upper()
    if b"\0" in beginning:
        raise DataError(
            "one of its first four bytes is NUL: UTF-16 or UTF-32 without a byte order mark, or no text",
            where=path,
            remedy="save it as UTF-8",
        )
    return file, "UTF-8"


class _Decoding(io.RawIOBase):
    """A file in UTF-16 or UTF-32, as UTF-8."""

    def __init__(self, file: BinaryIO, encoding: str, path: Path, start: int) -> None:
        self._file, self._path, self._encoding = file, path, encoding
        self._decoder = codecs.getincrementaldecoder(encoding)("strict")
        self._at = start
        self._waiting = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray | memoryview", /) -> int:  # type: ignore[override]
        while not self._waiting:
            chunk = self._file.read(CHUNK)
            held = len(self._decoder.getstate()[0])
            try:
                self._waiting = self._decoder.decode(chunk, final=not chunk).encode()
            except UnicodeError as error:
                place = self._at - held + (error.start if isinstance(error, UnicodeDecodeError) else 0)
                raise DataError(
                    f"not {self._encoding.upper()}, which its byte order mark says: byte {place + 1} is no part of a "
                    "character",
                    where=self._path,
                    remedy="save it as UTF-8",
                ) from error
            self._at += len(chunk)
            if not chunk:
                break
        size = min(len(buffer), len(self._waiting))
        buffer[:size] = self._waiting[:size]
        self._waiting = self._waiting[size:]
        return size


def likely_encoding(content: bytes) -> str:
    """The name of the encoding that bytes which are not UTF-8 are likely to be in; "" where nothing fits."""
    from charset_normalizer import from_bytes

    sample = content[:GUESSED_FROM]
    found = from_bytes(sample, cp_isolation=IN_USE, preemptive_behaviour=False)
    found = found or from_bytes(sample, preemptive_behaviour=False)
    best = found.best()
    if best is None:
        return ""
    # Many code pages give a short text words of the same quality: of these the one that is met most.
    alike = {name for one in found if one.chaos <= best.chaos for name in (one.encoding, *one.could_be_from_charset)}
    return next((name for name in MET_MOST if name in alike), best.encoding).replace("_", "-")


def not_utf8(content: bytes, at: int, place: str, *, where: object, path: Path) -> DataError:
    """The error for a part of a file whose byte ``at`` is no UTF-8; ``place`` says in words where that is."""
    message = f"not UTF-8: byte 0x{content[at]:02x} {place}"
    likely = likely_encoding(content[max(0, at - GUESSED_FROM // 2) :])
    if not likely:
        return DataError(message, where=where, remedy="save the file as UTF-8; it may be no text at all")
    return DataError(
        f"{message}; it is likely to be {likely}",
        where=where,
        remedy=f"look at it, then save it as UTF-8: iconv -f {likely.upper()} -t UTF-8 {path.name} > utf-8-{path.name}",
    )
