"""Rows with what decides their place in a split: the point of each, its group and its class.

Knows columns and hashes; nothing of the shares, or of rows that are alike. A column holds text, whole numbers, or true
and false in every row: anything else would group or class rows by accident, so it is refused, row by row.
"""

import hashlib
import json
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mlxtune.data.example import Example
from mlxtune.data.faults import Fault
from mlxtune.data.likeness.duplicates import Column, RowIndex
from mlxtune.data.normalize import Shape, normalize_stream
from mlxtune.data.read import Record, read_stream
from mlxtune.errors import DataError
from mlxtune.json_text import name_of_type

GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it, taken modulo 1, spread as evenly as any over [0, 1), however many there are."""
CLASSES = 10_000
"""More values than that are no classes."""
COLUMN_REMEDY = "give each row a text or a whole number there, or choose another column"
NAMED = 20
"""Columns that an error names."""


class SplitKeys:
    """What decides the place of each row of a file; filled by going through `rows` once.

    ``groups``: of each row a hash of its group, None without a column for it. ``why`` says which form the rows have.
    """

    def __init__(
        self, path: Path, group_by: str | None = None, stratify: str | None = None, shape: Shape | None = None
    ) -> None:
        self.path = path
        self.shape = shape
        self.group_by = group_by
        self.stratify = stratify
        self.why = ""
        self.groups = Column("u8") if group_by is not None else None
        self._classes: dict[str, int] = {}
        self._class_of = Column("u2")
        self._found: set[str] = set()
        self._met: dict[str, None] = {}

    def rows(self) -> Iterator[Example | Fault]:
        """The rows of the file, in order, as training has them."""
        fields: deque[Record] = deque()

        def noted() -> Iterator[Record | Fault]:
            for record in read_stream(self.path):
                if isinstance(record, Record):
                    fields.append(record)
                    if len(self._met) < NAMED:
                        self._met.update(dict.fromkeys(record.fields))
                yield record

        stream = normalize_stream(noted(), self.shape)
        for item in stream:
            if isinstance(item, Fault):
                yield item
                continue
            while (record := fields.popleft()).where != item.where:
                pass  # rows that came to nothing
            yield self._fault(record) or item
        self.why = stream.why
        for column in self._columns:
            column.flush()

    def refuse_missing_columns(self) -> None:
        """Raises: DataError, if no row has a column that was asked for."""
        for column in (self.group_by, self.stratify):
            if column is not None and column not in self._found and self._met:
                names = ", ".join(sorted(self._met)[:NAMED])
                raise DataError(
                    f"no row has a column {column!r}", where=self.path, remedy=f"choose one of its columns: {names}"
                )

    def points(self, index: RowIndex) -> Iterator[np.ndarray]:
        """The point in [0, 1) of every row, in order, in pieces: float64."""
        size = 1 << 16
        starts = np.array([_hash64(value) / 2**64 for value in self._classes])
        met = np.zeros(len(starts), np.int64)
        for start in range(0, index.rows, size):
            count = min(size, index.rows - start)
            if self.stratify is not None:
                classes = self._class_of.read(start, count).astype(np.int64)
                yield (starts[classes] + GOLDEN * (met[classes] + _ranks(classes))) % 1.0
                met += np.bincount(classes, minlength=len(met))
            else:
                keys = index.keys(start, count) if self.groups is None else self.groups.read(start, count)
                yield keys / 2.0**64

    def close(self) -> None:
        """Give back the disk."""
        for column in self._columns:
            column.close()

    @property
    def _columns(self) -> list[Column]:
        return [self._class_of] if self.groups is None else [self._class_of, self.groups]

    def _fault(self, record: Record) -> Fault | None:
        """What is wrong with a row's group or class; None, and both noted, if nothing is."""
        values = []
        for column in (self.group_by, self.stratify):
            if column is not None:
                value = record.fields.get(column)
                self._found.update({column} & record.fields.keys())
                if not isinstance(value, str | int) or value == "":
                    said = _why_not(column, value, is_there=column in record.fields)
                    return Fault(record.where, said, "column", COLUMN_REMEDY)
                values.append(json.dumps(value))
        if self.groups is not None:
            self.groups.append(np.array([_hash64(values[0])], np.uint64))
        if self.stratify is not None:
            number = self._classes.setdefault(values[-1], len(self._classes))
            if number == CLASSES:
                raise DataError(
                    f"the column {self.stratify!r} has more than {CLASSES:,} values",
                    where=record.where,
                    remedy="choose a column of classes, each with many rows, for --stratify",
                )
            self._class_of.append(np.array([number], np.uint16))
        return None


def _why_not(column: str, value: Any, *, is_there: bool) -> str:
    if not is_there:
        return f"the column {column!r} is missing"
    what = "empty" if value == "" else name_of_type(value)
    return f"the column {column!r} is {what}, where a text or a whole number should be"


def _hash64(value: str) -> int:
    return int.from_bytes(hashlib.sha256(value.encode("utf-8", "surrogatepass")).digest()[:8], "big")


def _ranks(classes: np.ndarray) -> np.ndarray:
    """Of each the number of equal ones before it."""
    order = np.argsort(classes, kind="stable")
    ordered = classes[order]
    first = np.searchsorted(ordered, ordered)
    ranks = np.empty(len(classes), np.int64)
    ranks[order] = np.arange(len(classes)) - first
    return ranks
