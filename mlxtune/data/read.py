"""A JSONL file into records: one object a line, each with the place it came from.

Knows bytes, UTF-8 and JSON; nothing of what the keys mean. Stricter than Python's reader, which takes NaN, a key that
stands twice (and keeps one of the two) and half a surrogate pair: each ends as a wrong or unencodable token much
later. Lines end at a newline alone, so that U+2028 inside a string, where `str.splitlines` breaks, stays there.
"""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxtune.data.faults import Fault, refuse
from mlxtune.errors import DataError
from mlxtune.json_text import name_of_type, parse_json

REMEDY = "write one JSON object a line, in UTF-8; mend these lines or take them out"


@dataclass(frozen=True, slots=True)
class Record:
    """One object of a file, as it stands there; ``line`` counts from 1, blank lines included."""

    fields: dict[str, Any]
    path: Path
    line: int

    @property
    def where(self) -> str:
        return f"{self.path}:{self.line}"


def read_records(path: Path) -> list[Record]:
    """The objects of a JSONL file, in order.

    UTF-8, with or without a byte order mark; lines end with ``\\n`` or ``\\r\\n``; blank lines count but hold nothing.

    Raises: DataError, if the file cannot be opened or has no rows, and for all lines at once that are not UTF-8, not
        JSON, no object, or hold a repeated key, NaN or Infinity, half a surrogate pair, or a NUL character.
    """
    records, faults = scan_records(path)
    refuse(faults, path=path, remedy=REMEDY)
    return records


def scan_records(path: Path) -> tuple[list[Record], list[Fault]]:
    """The objects of a JSONL file, and the lines that hold none, for those who find more faults later.

    Raises: DataError, as `read_records` does, but for lines.
    """
    records: list[Record] = []
    faults: list[Fault] = []
    for line, raw in read_lines(path):
        try:
            records.append(Record(_parse(raw), path, line))
        except ValueError as error:
            faults.append(Fault(f"{path}:{line}", str(error)))
            if len(faults) == 1 and not records and raw.lstrip().startswith(b"["):
                remedy = "write each object of the list on a line of its own"
                raise DataError("the file is one JSON list, not JSON Lines", where=path, remedy=remedy) from error
    if not records and not faults:
        raise DataError("the file has no rows", where=path, remedy="write one JSON object a line")
    return records, faults


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank: their number from 1, and their bytes with the line end; a byte order mark is cut.

    Raises: DataError, if the file is not there, no file, not to be opened, or UTF-16.
    """
    try:
        with path.open("rb") as file:
            for line, raw in enumerate(file, start=1):
                if line == 1 and raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                    raise DataError("the file is UTF-16", where=path, remedy="save it as UTF-8")
                text = raw.removeprefix(codecs.BOM_UTF8) if line == 1 else raw
                if text.strip():
                    yield line, text
    except OSError as error:
        what = "there is no such file" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        raise DataError(what, where=path, remedy="name a JSONL file that you can read") from error


def _parse(raw: bytes) -> dict[str, Any]:
    """One line's object. Raises ValueError with a sentence for the user."""
    value = parse_json(raw)
    if not isinstance(value, dict):
        raise ValueError(f"{name_of_type(value)} where an object should be")  # noqa: TRY004 - a sentence for the user
    # Only an escape can bring either in: a raw NUL is no JSON, and UTF-8 has no surrogates.
    if b"\\u" in raw:
        for string in _strings(value):
            if "\x00" in string:
                raise ValueError("a string holds a NUL character")
            if any("\ud800" <= character <= "\udfff" for character in string):
                raise ValueError("a string holds half of a surrogate pair, which is no character")
    return value


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _strings(item)
