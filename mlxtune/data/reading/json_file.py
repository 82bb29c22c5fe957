"""A JSON file that is one list of objects, read object by object, or one object that holds such a list.

A list is never in memory as a whole: objects are decoded one after the other from a window of the text. An object has
to be decoded whole to know what is in it, so it may have `LONGEST` bytes at most. Many programs write JSON Lines under
the name .json; that is seen by the second object, and read as what it is. The number of a row is its place in the list,
since many rows may share a line.
"""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlxtune.data.faults import Fault
from mlxtune.data.reading.content import LONGEST, Content, open_content, too_long
from mlxtune.data.reading.encodings import not_utf8
from mlxtune.data.reading.json_lines import read_json_lines
from mlxtune.data.reading.record import Record, what_is_no_character
from mlxtune.errors import DataError
from mlxtune.json_text import STRICT, name_of_type

WINDOW = 1 << 20
SPACE = " \t\n\r"
REMEDY = "write a list of objects, or JSON Lines in a file whose name ends with .jsonl"
LENIENT = json.JSONDecoder()
"""To find where a value ends that `STRICT` refuses."""


def read_json_file(path: Path) -> Iterator[Record | Fault]:
    """The objects of the list, and a fault in place of what is none; reading ends where the JSON ends to be JSON.

    Raises: DataError, if the file cannot be read, is not UTF-8, or has no list of objects or more than one.
    """
    with open_content(path) as content:
        window = _Window(content)
        first = window.peek()
        if first == "[":
            yield from _read_list(window, path)
            return
        if first != "{":
            if first:
                raise DataError("the file is no JSON that has rows", where=path, remedy=REMEDY)
            return
        try:
            value = window.decode()
        except _EndlessError as error:
            raise DataError(f"the file is one object {too_long()}", where=path, remedy=REMEDY) from error
        except ValueError:
            value = None  # whether it is JSON Lines, whose first line is bad, the other reader knows
        if value is not None and not window.peek():
            yield from _rows_of_object(value, path)
            return
    yield from read_json_lines(path)


def _read_list(window: "_Window", path: Path) -> Iterator[Record | Fault]:
    window.take("[")
    row = 0
    if window.peek() == "]":
        window.take("]")
    else:
        while True:
            row += 1
            where = f"{path}:{row}"
            before = window.place
            try:
                value = window.decode()
            except _EndlessError as error:
                yield Fault(where, f"{error} ({before})", "json", REMEDY)
                return
            except ValueError as error:
                yield Fault(where, f"{error} ({before})", "json", REMEDY)
            else:
                yield _record(value, path, row, before)
            follows = window.peek()
            if follows == "]":
                window.take("]")
                break
            if follows != ",":
                said = "something other than a comma stands after it" if follows else "the list never ends"
                yield Fault(where, f"not JSON: {said} ({window.place})", "json", REMEDY)
                return
            window.take(",")
    if window.peek():
        yield Fault(f"{path}:{row + 1}", f"not JSON: something stands after the list ({window.place})", "json", REMEDY)


def _record(value: Any, path: Path, row: int, place: str) -> Record | Fault:
    if not isinstance(value, dict):
        return Fault(f"{path}:{row}", f"{name_of_type(value)} where an object should be ({place})", "json", REMEDY)
    if wrong := what_is_no_character(value):
        return Fault(f"{path}:{row}", f"{wrong} ({place})", "json", REMEDY)
    return Record(value, path, row)


def _rows_of_object(value: dict[str, Any], path: Path) -> Iterator[Record | Fault]:
    """The rows of the one list that an object has."""
    lists = [key for key, inside in value.items() if isinstance(inside, list) and _has_objects(inside)]
    if not lists:
        raise DataError(
            "the file is one object, and holds no list of objects that could be its rows", where=path, remedy=REMEDY
        )
    if len(lists) > 1:
        raise DataError(
            f"the file is one object with several lists of objects: {', '.join(map(repr, lists))}",
            where=path,
            remedy="write the list that has the rows into a file of its own",
        )
    if _has_turns(value[lists[0]]):
        raise DataError(
            f"the file is one object whose list {lists[0]!r} could be its rows, or the turns of a single row",
            where=path,
            remedy="write a list of rows, be it of one: [ ... ]",
        )
    for row, inside in enumerate(value[lists[0]], start=1):
        yield _record(inside, path, row, f"in {lists[0]!r}")


def _has_objects(values: list[Any]) -> bool:
    return any(isinstance(value, dict) for value in values)


def _has_turns(values: list[Any]) -> bool:
    return all(isinstance(value, dict) and ({"role", "from"} & value.keys()) for value in values)


class _EndlessError(ValueError):
    """A value that is not there whole, though all that may be read as one has been looked at."""


class _Window:
    """The text of a JSON file, of which no more is in memory than one value needs."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._decoder = codecs.getincrementaldecoder("utf-8")("strict")
        self._text, self._at = "", 0
        self._bytes = 0
        self._lines = 0
        self._ended = False

    @property
    def place(self) -> str:
        """The line where the window is, in words."""
        return f"line {self._lines + self._text.count(chr(10), 0, self._at) + 1}"

    def peek(self) -> str:
        """The next character that is no white space; "" at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in SPACE:
                self._at += 1
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._fill(WINDOW)

    def take(self, character: str) -> None:
        assert self.peek() == character
        self._at += 1

    def decode(self) -> Any:
        """The next value, which is gone over, whether it is good or not.

        Raises: ValueError, with a sentence for the user; `_EndlessError`, if there is no going on after it.
        """
        self.peek()
        while True:
            try:
                value, self._at = STRICT.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._ended or len(self._text) - self._at > LONGEST:
                    if not self._ended:
                        raise _EndlessError(f"a value {too_long()}, or no JSON") from error
                    raise _EndlessError(f"not JSON: {error.msg}") from error
                self._fill(max(WINDOW, len(self._text) - self._at))
            except RecursionError as error:
                raise _EndlessError("not JSON that can be read: nested too deeply") from error
            except ValueError as error:  # a rule of ours; what follows may be good
                self._skip(error)
                raise
            else:
                return value

    def _skip(self, why: ValueError) -> None:
        """Go over a value that is JSON, but not to be taken. Raises: _EndlessError, if its end is not to be found."""
        while True:
            try:
                _, self._at = LENIENT.raw_decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                if self._ended or len(self._text) - self._at > LONGEST:
                    raise _EndlessError(str(why)) from error
                self._fill(max(WINDOW, len(self._text) - self._at))
            else:
                return

    def _fill(self, size: int) -> None:
        chunk = self._content.file.read(size)
        held = len(self._decoder.getstate()[0])
        try:
            text = self._decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            raise self._not_utf8(error, self._bytes - held) from error
        self._bytes += len(chunk)
        self._lines += self._text.count("\n", 0, self._at)
        self._text, self._at = self._text[self._at :] + text, 0
        self._ended = not chunk

    def _not_utf8(self, error: UnicodeDecodeError, start: int) -> DataError:
        path = self._content.path
        line = self._lines + self._text.count("\n") + error.object.count(b"\n", 0, error.start) + 1
        place = f"at byte {start + error.start + 1} of the file"
        return not_utf8(error.object, error.start, place, where=f"{path}:{line}", path=path)
