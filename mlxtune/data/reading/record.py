"""One row as it stands in its file: names and values, and the place that it came from."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NO_CHARACTER = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Record:
    """One object of a file, as it stands there.

    ``line`` counts from 1: the line where the row begins in JSON Lines, CSV and TSV, blank lines included; the number
    of the row in a JSON list, Parquet and Arrow; 1 in a text.
    """

    fields: dict[str, Any]
    path: Path
    line: int

    @property
    def where(self) -> str:
        return f"{self.path}:{self.line}"


def what_is_no_character(value: Any) -> str:
    """What a string in ``value`` holds that no text has, as a sentence; "" where all are well."""
    for string in strings_in(value):
        if (found := NO_CHARACTER.search(string)) is not None:
            return (
                "a string holds a NUL character"
                if found[0] == "\0"
                else "a string holds half of a surrogate pair, which is no character"
            )
    return ""


def strings_in(value: Any) -> Iterator[str]:
    """All strings in a value of JSON, keys too."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            waiting += reversed(value)
        elif isinstance(value, dict):
            for key, inside in value.items():
                waiting += (inside, key)
