"""A file of rows into records, whatever its kind: one after the other, each with the place that it came from.

The kind is told by the name; `reading` has a file for each. What holds for JSON Lines holds for all: text is UTF-8 (or
has a byte order mark that says what it is), and a key that stands twice, NaN, NUL and half a surrogate pair are faults.
Memory is bounded by a row, not by a file. Knows kinds; nothing of what the columns mean.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mlxtune.data.faults import LISTED, Fault
from mlxtune.data.reading.content import numbered_lines, open_content, stream_content, too_long
from mlxtune.data.reading.delimited import find_delimiter, first_lines, read_delimited
from mlxtune.data.reading.json_file import read_json_file
from mlxtune.data.reading.json_lines import REMEDY, json_rows, parse_row, read_json_lines
from mlxtune.data.reading.kinds import Compression, Kind, compression_of, find_kind, kind_of
from mlxtune.data.reading.record import Record
from mlxtune.data.reading.table_file import left_out, read_table
from mlxtune.data.reading.text_file import read_text_file
from mlxtune.errors import DataError

__all__ = [
    "REMEDY",
    "FileFacts",
    "Record",
    "describe_file",
    "parse_row",
    "read_json_stream",
    "read_lines",
    "read_rows_as_lines",
    "read_stream",
]


def read_stream(path: Path) -> Iterator[Record | Fault]:
    """The rows of a file, in order, and a fault in place of each that is none.

    Raises: DataError, if it cannot be read as its kind at all; DeviceError, if what reads its kind is not installed.
    """
    match kind_of(path):
        case "jsonl":
            return read_json_lines(path)
        case "json":
            return read_json_file(path)
        case "csv":
            return read_delimited(path)
        case "tsv":
            return read_delimited(path, "\t")
        case "parquet" | "arrow":
            return read_table(path)
        case "text":
            return read_text_file(path)


def read_json_stream(file: BinaryIO, name: str) -> Iterator[Record | Fault]:
    """The rows of JSON Lines that come through a pipe, whose places begin with ``name``. Raises: as `read_stream`."""
    return json_rows(stream_content(file, name))


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file of text that are not blank: their number from 1, and their bytes in UTF-8 with the line end.

    Raises: DataError, if the file cannot be read, or a line is longer than what is read as one.
    """
    with open_content(path) as content:
        for line, raw in numbered_lines(content):
            if raw is None:
                raise DataError(f"the line is {too_long()}", where=f"{path}:{line}", remedy="break it into several")
            yield line, raw


def read_rows_as_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """What a file says, line by line, whether its rows are good or not: text as `read_lines` has it; of a JSON list,
    Parquet or Arrow, each row as a line of JSON.

    Raises: DataError, as `read_lines` and `read_stream`; and for a row of such a file that cannot be read, since it
        would be passed over.
    """
    kind = find_kind(path)
    if kind not in ("json", "parquet", "arrow"):
        yield from read_lines(path)
        return
    for row in read_stream(path):
        if isinstance(row, Fault):
            raise DataError(row.message, where=row.where, remedy=row.remedy)
        yield row.line, json.dumps(row.fields, ensure_ascii=False).encode() + b"\n"


@dataclass(frozen=True)
class FileFacts:
    """How a file is read, for whoever wants to know: ``encoding`` "" is that of no text."""

    kind: Kind
    compression: Compression
    encoding: str = ""
    delimiter: str = ""
    """Of CSV and TSV."""
    left_out: tuple[str, ...] = ()
    """Columns that hold bytes."""

    def __str__(self) -> str:
        parts = [self.kind, self.compression, self.encoding]
        if self.delimiter:
            parts.append("fields end with a tab" if self.delimiter == "\t" else f"fields end with {self.delimiter}")
        if self.left_out:
            parts.append(f"without the columns of bytes {', '.join(self.left_out[:LISTED])}")
        return ", ".join(part for part in parts if part)


def describe_file(path: Path) -> FileFacts:
    """How `read_stream` reads a file, by its name and its beginning. Raises: as `read_stream`."""
    kind = kind_of(path)
    if kind in ("parquet", "arrow"):
        return FileFacts(kind, compression_of(path), left_out=left_out(path))
    with open_content(path) as content:
        delimiter = "\t" if kind == "tsv" else ""
        if kind == "csv":
            delimiter = find_delimiter(first_lines(content), path)
        return FileFacts(kind, content.compression, content.encoding, delimiter)
