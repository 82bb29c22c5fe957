"""metrics.jsonl read as it grows: each look takes what is new, however long the file is.

A run that is resumed cuts the file back and writes steps again, perhaps past where the last look ended: so the last
bytes that were read are compared at each look, and where they are not what they were all is read anew, and told so. A
line that is not whole yet is left for the next look. Knows bytes and JSON; nothing of what lines say. The price is that
a file rewritten with the same bytes there is taken for the same file.
"""

import contextlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

COMPARED_BYTES = 256
"""About one line, whose seconds alone no other line repeats."""
READ_AT_ONCE = 4 << 20
"""Bytes of one look: of a long file the rest comes at the next, so that nobody waits for all."""


class Tail:
    """How far one reader has come in a file of JSON lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._last = b""

    def look(self) -> tuple[list[Mapping[str, Any]], bool, bool]:
        """The whole new lines that are JSON objects, whether they begin the file anew, and whether more is there.

        A file that is not there is an empty one.
        """
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return [], self._begin_anew(), False
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                return [], self._begin_anew(), False
            anew = self._begin_anew() if not self._is_as_it_was(descriptor) else False
            content = os.pread(descriptor, READ_AT_ONCE, self._offset)
        finally:
            os.close(descriptor)
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        self._last = (self._last + whole)[-COMPARED_BYTES:]
        is_more = bool(whole) and self._offset + len(content) - len(whole) < found.st_size
        return list(_objects(whole)), anew, is_more

    def _is_as_it_was(self, descriptor: int) -> bool:
        return os.pread(descriptor, len(self._last), self._offset - len(self._last)) == self._last

    def _begin_anew(self) -> bool:
        """Whether anything was read before."""
        had, self._offset, self._last = self._offset > 0, 0, b""
        return had


def _objects(content: bytes) -> Iterator[Mapping[str, Any]]:
    for line in content.split(b"\n"):
        with contextlib.suppress(ValueError, RecursionError):  # what a kill left half written, or an empty line
            value = json.loads(line)
            if isinstance(value, Mapping):
                yield value
