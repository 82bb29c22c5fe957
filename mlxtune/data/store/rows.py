"""The rows of a data set as a sequence that makes each one when it is asked for.

Knows a store of whole rows, which part of which of them each row is, and where rows came from. The price is that a row
is read and unpacked each time (about 10 microseconds); what is asked of all rows at once is in arrays (`facts_of`).
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np

from mlxtune.data.render import Rendered
from mlxtune.data.store.overflow import Part, cut, parts_of
from mlxtune.data.store.token_store import Facts, FactsWriter, Store
from mlxtune.recipe.choices import Overflow


@dataclass(frozen=True, eq=False)
class Places(Sequence[str]):
    """Where rows came from, as ``file:line``: 12 bytes a row, and each file's name once."""

    names: tuple[str, ...]
    file: np.ndarray
    """[N] int32, into ``names``."""
    line: np.ndarray
    """[N] int64."""

    def __len__(self) -> int:
        return len(self.file)

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> "Places": ...
    def __getitem__(self, number: int | slice) -> "str | Places":
        if isinstance(number, slice):
            return self.take(number)
        return f"{self.names[self.file[number]]}:{self.line[number]}"

    def take(self, numbers: np.ndarray | slice) -> "Places":
        """Those of some rows."""
        return Places(self.names, self.file[numbers], self.line[numbers])


class PlacesWriter:
    """Places of one row after another."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._file, self._line = array("i"), array("q")

    def add(self, where: str) -> None:
        name, _, line = where.rpartition(":")
        self._file.append(self._numbers.setdefault(name, len(self._numbers)))
        self._line.append(int(line))

    def finish(self) -> Places:
        return Places(tuple(self._numbers), np.array(self._file, np.int32), np.array(self._line, np.int64))


@dataclass(frozen=True, eq=False)
class StoredRows(Sequence[Rendered]):
    """N rows, each a part of one in the store; [N] int32 where an array says no other."""

    store: Store
    places: Places
    """Of the N rows."""
    source: np.ndarray
    """Numbers in the store."""
    start: np.ndarray
    end: np.ndarray
    head: np.ndarray
    seen: np.ndarray
    """[N] bool; these four as of `overflow.Part`."""
    facts: Facts
    """Of the N rows."""

    def __len__(self) -> int:
        return len(self.source)

    @overload
    def __getitem__(self, number: int) -> Rendered: ...
    @overload
    def __getitem__(self, number: slice) -> "StoredRows": ...
    def __getitem__(self, number: int | slice) -> "Rendered | StoredRows":
        if isinstance(number, slice):
            return self.take(number)
        source, start, end = int(self.source[number]), int(self.start[number]), int(self.end[number])
        whole = self.store.read(source, self.places[number])
        if start == 0 and end == len(whole.token_ids):
            return whole
        return cut(whole, Part(start, end, int(self.head[number]), bool(self.seen[number])))

    def __iter__(self) -> Iterator[Rendered]:
        for number in range(len(self)):
            yield self[number]

    def token_ids(self, number: int, start: int, end: int) -> np.ndarray:
        """A row's token ids from ``start`` to ``end``, as far as it has them; no others are read."""
        if self.head[number] == self.start[number] == 0:
            return self.store.read_ids(int(self.source[number]), start, min(end, int(self.end[number])))
        return self[number].token_ids[start:end]

    def take(self, numbers: np.ndarray | slice) -> "StoredRows":
        """Some of the rows."""
        columns = ("source", "start", "end", "head", "seen")
        return replace(
            self,
            places=self.places.take(numbers),
            facts=self.facts.take(numbers),
            **{name: getattr(self, name)[numbers] for name in columns},
        )

    def once(self) -> tuple["StoredRows", np.ndarray]:
        """The same without the copies that weights make, and [parts] how many other rows of the store stand before
        each part's own: the number of its row among those that are left.
        """
        again = (self.source[1:] == self.source[:-1]) & (self.start[1:] == self.start[:-1])
        own = self.take(np.flatnonzero(np.append(True, ~again)))
        return own, np.unique(own.source, return_inverse=True)[1]


class PartsWriter:
    """What is left of rows that are too long: columns of `StoredRows`."""

    def __init__(self) -> None:
        self.source, self.facts = array("i"), FactsWriter()
        self.start, self.end, self.head, self.seen = array("i"), array("i"), array("i"), array("b")

    def add(
        self, number: int, row: Rendered, max_seq_length: int, overflow: Overflow, before: Sequence[int]
    ) -> tuple[int, int]:
        """The parts of one row that have a target; how many, and how many tokens all parts have."""
        useful = left = 0
        for part in parts_of(row.token_ids, max_seq_length, overflow, before=before):
            rest = cut(row, part)
            left += len(rest.token_ids)
            if rest.is_target.any():
                useful += 1
                self._keep(number, part, rest)
        return useful, left

    def _keep(self, number: int, part: Part, rest: Rendered) -> None:
        columns = (self.source, self.start, self.end, self.head, self.seen)
        for column, value in zip(columns, (number, *part), strict=True):
            column.append(value)
        self.facts.add(rest)


def epoch_rows(
    store: Store, places: Places, copies: np.ndarray, fits: np.ndarray, parts: PartsWriter
) -> tuple[StoredRows, np.ndarray]:
    """The rows of an epoch in their order, and how many rows of it come from each row in the store.

    Args:
        places, copies, fits: of each row in the store, [N]: where it came from, how often it is to stand in the epoch,
            and whether it is there whole.
        parts: of rows that are not.
    """
    whole = np.flatnonzero(fits).astype(np.int32)
    kept, cuts = store.facts.take(whole), parts.facts.finish()
    none = np.zeros(len(whole), np.int32)
    source = np.concatenate([whole, np.array(parts.source, np.int32)])
    order = np.argsort(source, kind="stable")
    order = np.repeat(order, copies[source[order]])

    def column(of_whole: np.ndarray, of_parts: Any) -> np.ndarray:
        return np.concatenate([of_whole, np.array(of_parts, of_whole.dtype)])[order]

    chosen = source[order]
    rows = StoredRows(
        store=store,
        places=places.take(chosen),
        source=chosen,
        start=column(none, parts.start),
        end=column(kept.length, parts.end),
        head=column(none, parts.head),
        seen=column(none.astype(bool), parts.seen),
        facts=Facts(*(column(own, other) for own, other in zip(kept.columns(), cuts.columns(), strict=True))),
    )
    return rows, np.bincount(chosen, minlength=len(store))


def facts_of(rows: Sequence[Rendered], numbers: Sequence[int] | None = None) -> Facts:
    """Lengths and targets of all rows, or of some of them, without reading those of a data set."""
    if isinstance(rows, StoredRows):
        return rows.facts if numbers is None else rows.facts.take(np.asarray(numbers))
    writer = FactsWriter()
    for row in rows if numbers is None else (rows[number] for number in numbers):
        writer.add(row)
    return writer.finish()


def token_ids_of(rows: Sequence[Rendered], number: int, start: int, end: int) -> np.ndarray:
    """One row's token ids from ``start`` to ``end``, as far as it has them, likewise."""
    if isinstance(rows, StoredRows):
        return rows.token_ids(number, start, end)
    return rows[number].token_ids[start:end]


@dataclass(frozen=True)
class Beginnings(Sequence[np.ndarray]):
    """The first token ids of each of some rows, read when they are asked for: as many of a row as ``lengths`` says."""

    rows: Sequence[Rendered]
    lengths: Sequence[int] | np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, number: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, number: slice) -> "Beginnings": ...
    def __getitem__(self, number: int | slice) -> "np.ndarray | Beginnings":
        if isinstance(number, slice):
            return Beginnings(self.rows[number], self.lengths[number])
        return self.part(number, 0, int(self.lengths[number]))

    def part(self, number: int, start: int, end: int) -> np.ndarray:
        """Of one beginning, what is between these, as far as it goes."""
        return token_ids_of(self.rows, number, start, min(end, int(self.lengths[number])))


def places_of(rows: Sequence[Rendered]) -> Sequence[str]:
    """Where each row came from, likewise."""
    return rows.places if isinstance(rows, StoredRows) else [row.where for row in rows]


def take_rows(rows: Sequence[Rendered], numbers: np.ndarray) -> Sequence[Rendered]:
    """Some of the rows, in the order of ``numbers``."""
    return rows.take(numbers) if isinstance(rows, StoredRows) else [rows[number] for number in numbers]
