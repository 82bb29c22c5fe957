"""JSON Lines: one object a line, read more strictly than Python reads JSON.

Python takes NaN, a key that stands twice (and keeps one of the two) and half a surrogate pair: each ends as a wrong or
unencodable token much later. Lines end at a newline alone, so that U+2028 inside a string, where `str.splitlines`
breaks, stays there.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlxtune.data.faults import Fault
from mlxtune.data.reading.content import Content, numbered_lines, open_content, too_long
from mlxtune.data.reading.encodings import likely_encoding
from mlxtune.data.reading.record import Record, what_is_no_character
from mlxtune.errors import DataError
from mlxtune.json_text import name_of_type, parse_json

REMEDY = "write one JSON object a line, in UTF-8; mend these lines or take them out"
ESCAPES = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
"""What may bring in a NUL or a half pair: a raw NUL is no JSON, and UTF-8 has no surrogates."""


def read_json_lines(path: Path) -> Iterator[Record | Fault]:
    """The objects of a JSON Lines file, and a fault in place of each line that holds none.

    Raises: DataError, if the file cannot be read, or is one JSON list.
    """
    with open_content(path) as content:
        yield from json_rows(content)


def json_rows(content: Content) -> Iterator[Record | Fault]:
    """What `read_json_lines` gives, of content that is open already."""
    is_first, path = True, content.path
    for line, raw in numbered_lines(content):
        if raw is None:
            yield Fault(f"{path}:{line}", f"the line is {too_long()}", "json", REMEDY)
            continue
        try:
            yield Record(parse_row(raw), path, line)
        except ValueError as error:
            if is_first and raw.lstrip().startswith(b"["):
                raise _is_list(path) from error
            yield Fault(f"{path}:{line}", _message(error, raw), "json", REMEDY)
        is_first = False


def parse_row(raw: bytes) -> dict[str, Any]:
    """One line's object. Raises: ValueError, with a sentence for the user."""
    value = parse_json(raw.rstrip())  # an error's column is then of this line
    if not isinstance(value, dict):
        raise ValueError(f"{name_of_type(value)} where an object should be")  # noqa: TRY004 - a sentence for the user
    if ESCAPES.search(raw) and (wrong := what_is_no_character(value)):
        raise ValueError(wrong)
    return value


def _message(error: ValueError, raw: bytes) -> str:
    if isinstance(error.__cause__, UnicodeDecodeError) and (likely := likely_encoding(raw)):
        return f"{error}; it is likely to be {likely}"
    return str(error)


def _is_list(path: Path) -> DataError:
    return DataError(
        "the file is one JSON list, not JSON Lines",
        where=path,
        remedy="let its name end with .json, or write each object of the list on a line of its own",
    )
