"""What a template may make of one row: so many characters and list items, in so much time.

Knows sizes and a clock; nothing of Jinja. A list that holds itself many times over counts as often as it would be
written, and the count stops at the budget's end: that is what keeps it from taking for ever.
"""

import time
from collections.abc import Mapping
from typing import Any

LEAST = 4_000_000
"""Characters and items that any row has."""

PER_CHARACTER = 16
"""And so many more for each character of the row, so that a long one can be gone over several times."""

SECONDS = 5.0

LARGEST_NUMBER = 10**18


class TooMuchError(Exception):
    """The budget is spent."""


class Budget:
    """What is left for one row."""

    def __init__(self, count: int, seconds: float = SECONDS) -> None:
        self.left = count
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds

    @classmethod
    def for_input(cls, fields: Mapping[str, Any]) -> "Budget":
        return cls(LEAST + PER_CHARACTER * _size(fields, None))

    def spend(self, count: int) -> None:
        """Raises: TooMuchError, if less than ``count`` is left, or the time is over."""
        self.left -= count
        if self.left < 0:
            raise TooMuchError("it makes too much of one row; is there a loop in it that need not be?")
        if time.monotonic() > self._deadline:
            raise TooMuchError(f"it takes more than {self._seconds:g} seconds for one row")


def size_of(value: Any, limit: int) -> int:
    """Characters and items of a value, counted to a little above ``limit`` at most.

    Raises: TooMuchError, for a whole number that is beyond all use.
    """
    return _size(value, limit)


def _size(value: Any, limit: int | None) -> int:
    count, waiting = 0, [value]
    while waiting and (limit is None or count <= limit):
        item = waiting.pop()
        if isinstance(item, str):
            count += len(item) + 1
            continue
        count += 1
        if isinstance(item, dict):
            waiting.extend(item)
            waiting.extend(item.values())
        elif isinstance(item, list | tuple):
            waiting.extend(item)
        elif limit is not None and isinstance(item, int) and abs(item) > LARGEST_NUMBER:
            raise TooMuchError("it makes a number beyond all use")
    return count
