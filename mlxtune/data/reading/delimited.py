"""CSV and TSV: a header, then a row a record, all of whose values are texts.

Read by Python's csv module, as spreadsheets and pandas write it: fields in double quotes may hold delimiters, newlines
and doubled quotes. Which of comma, semicolon, tab and bar delimits a .csv file is told by its beginning; where two
would do it is an error. A field is bounded by csv's own limit, which is the whole process's: it is raised here, never
lowered.
"""

import contextlib
import csv
import re
from collections.abc import Iterator
from pathlib import Path

from mlxtune.data.faults import Fault
from mlxtune.data.reading.content import LONGEST, Content, numbered_lines, open_content, too_long
from mlxtune.data.reading.encodings import not_utf8
from mlxtune.data.reading.record import Record
from mlxtune.errors import DataError

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
SAMPLE = 100
"""Lines by which the delimiter is told."""
SAMPLE_CHARACTERS = 1 << 20
LONGEST_NAME = 100
"""Characters of a column's name; a header with a longer one is a row of values."""
NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?")
REMEDY = "mend these rows or take them out; a field that holds a delimiter or a quote stands in double quotes"
HEADER = "give the file a first line with a name for each column"


def read_delimited(path: Path, delimiter: str | None = None) -> Iterator[Record | Fault]:
    """The rows of a CSV or TSV file, and a fault in place of each that is none.

    Args:
        delimiter: None tells it by the beginning of the file.

    Raises: DataError, if the file cannot be read, is not UTF-8, or has no header with different names.
    """
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST))
    with open_content(path) as content:
        lines = _Lines(content)
        delimiter = find_delimiter(lines.look_ahead(), path) if delimiter is None else delimiter
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        header: list[str] | None = None
        while True:
            lines.begin_record()
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if header is None:
                    raise DataError(f"the header cannot be read: {error}", where=f"{path}:1", remedy=HEADER) from error
                yield Fault(f"{path}:{lines.first}", f"no record: {error}", "csv", REMEDY)
                continue
            where = f"{path}:{lines.first}"
            if not values:
                continue
            if header is None:
                header = _names(values, where)
            elif len(values) != len(header):
                yield Fault(where, _ragged(len(values), len(header)), "csv", REMEDY)
            elif any("\0" in value for value in values):
                yield Fault(where, "a field holds a NUL character", "csv", REMEDY)
            else:
                yield Record(dict(zip(header, values, strict=True)), path, lines.first)


def first_lines(content: Content) -> list[str]:
    """The lines by which the delimiter is told."""
    return _Lines(content).look_ahead()


def find_delimiter(sample: list[str], path: Path) -> str:
    """The delimiter that makes columns of the first lines of a CSV file; a comma where none does.

    Raises: DataError, if several would.
    """
    splits = {delimiter: _counts(sample, delimiter) for delimiter in DELIMITERS}
    fitting = [delimiter for delimiter, counts in splits.items() if counts and counts[0] > 1]
    even = [delimiter for delimiter in fitting if len(set(splits[delimiter])) == 1]
    candidates = even or fitting
    if len(candidates) > 1:
        names = " and ".join(DELIMITERS[delimiter] for delimiter in candidates)
        raise DataError(
            f"its first lines fall into columns by {names} alike",
            where=path,
            remedy="write it with commas, and put fields that hold a comma in double quotes",
        )
    return candidates[0] if candidates else ","


def _counts(sample: list[str], delimiter: str) -> list[int]:
    """The number of fields of each record in ``sample``; a last one that is not whole, and what follows an error, is
    left out.
    """
    counts: list[int] = []
    with contextlib.suppress(csv.Error):
        counts.extend(len(values) for values in csv.reader(sample, delimiter=delimiter, strict=True) if values)
    return counts


def _names(values: list[str], where: str) -> list[str]:
    """The header's names, without white space around them. Raises: DataError, if they are none, or not different."""
    names = [value.strip() for value in values]
    for number, name in enumerate(names, start=1):
        if not name:
            raise DataError(
                f"column {number} has no name in the header",
                where=where,
                remedy="name it, or take the column out (pandas: index=False)",
            )
        if NUMBER.fullmatch(name) or len(name) > LONGEST_NAME or "\n" in name or "\0" in name:
            raise DataError(
                f"the first line is no header: what stands in column {number} is no name", where=where, remedy=HEADER
            )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"two columns are named {twice[0]!r}", where=where, remedy="give each its own name")
    return names


def _ragged(count: int, wanted: int) -> str:
    return f"{count} field{'s' * (count != 1)}, and the header has {wanted} column{'s' * (wanted != 1)}"


class _Lines:
    """The lines of a file as text with ``\\n`` at the end, and where the record began that is being read."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._lines = numbered_lines(content, blank=True)
        self._ahead: list[str] = []
        self._line = 0
        self.first = 1
        """The line of the first field of the present record."""
        self._begun = False

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        text = self._ahead.pop(0) if self._ahead else self._read()
        self._line += 1
        if not self._begun:
            self.first, self._begun = self._line, True
        return text

    def begin_record(self) -> None:
        self._begun = False

    def look_ahead(self) -> list[str]:
        """The first lines, which are read again."""
        size = 0
        while len(self._ahead) < SAMPLE and size < SAMPLE_CHARACTERS:
            try:
                self._ahead.append(self._read())
            except StopIteration:
                break
            size += len(self._ahead[-1])
        return list(self._ahead)

    def _read(self) -> str:
        line, raw = next(self._lines)
        path = self._content.path
        if raw is None:
            raise DataError(f"the line is {too_long()}", where=f"{path}:{line}", remedy=REMEDY)
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            place = f"at position {error.start + 1} of the line"
            raise not_utf8(raw, error.start, place, where=f"{path}:{line}", path=path) from error
        return text[:-2] + "\n" if text.endswith("\r\n") else text
