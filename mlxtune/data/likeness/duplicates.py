"""Rows that say or ask the same as another, or nearly so, in and across splits, in bounded memory.

`RowIndex` takes rows as they stream by; `RowIndex.pairs` then gives pairs of three kinds: rows that say the same
(`same`), rows that ask the same but for case and white space (`asks_same`), and rows whose shingles are alike
(`alike`). What rows ask, how candidates are found and what alike means is shingles.py's; every pair is verified by its
own similarity.

A phrase that more than half of the rows have says nothing of any one of them (an instruction put before every
question, the columns of a table): it is left out, as the first `SAMPLED` different rows show it. A row of which then
nothing is left is compared by its answer.

Everything that grows with the rows lies in nameless temporary files, which vanish with the process: hashes of what rows
say, never words; about 200 bytes a row and 4 bytes a word. In memory are two bytes a row, and what one band's sort
takes of `PART_ROWS` rows. The price of that bound: where more than `CROWD` rows agree in a band, each is compared with
a few of them only, and a crowd in which that finds nothing is left; across the 32 bands few near-duplicates are missed.
"""

import functools
import os
import tempfile
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

from mlxtune.cache import cache_folder
from mlxtune.data.example import Example, content_hash
from mlxtune.data.likeness.shingles import (
    BANDS,
    THRESHOLD,
    Shingles,
    band_keys,
    hash_words,
    question_and_answer,
    signatures,
    similarity,
    words_of,
)
from mlxtune.progress import Progress, silent

LONGEST = 1_000_000
"""Characters of a question or answer that are compared; where one is longer, only an equal row asks the same."""
BATCH_WORDS = 50_000
"""Words that are hashed at once."""
SAMPLED = 2000
"""Rows of which common phrases are learned, and of these as many as have `SAMPLED_WORDS` words."""
SAMPLED_WORDS = 400_000
FEWEST = 4
"""Different rows below which no phrase is called common."""
PART_ROWS = 1 << 21
CROWD = 16
NEIGHBOURS = 4
"""Of each split, compared with a row in a crowd, besides the crowd's first."""
PATIENCE = 64
"""Comparisons in a crowd without a pair after which it is left."""

Likeness = Literal["same", "asks_same", "alike"]

_META = np.dtype([("file", "u4"), ("line", "u8"), ("start", "u8"), ("count", "u4"), ("answer", "u8"), ("words", "u4")])


@dataclass(frozen=True, slots=True)
class Pair:
    """Two rows by their numbers, ``first`` < ``row``, in the order in which the index took them."""

    first: int
    row: int
    likeness: Likeness
    similarity: float


@dataclass(frozen=True, slots=True)
class _Pending:
    key: int
    words: list[str]
    answer: list[str]
    where: str
    split: int
    is_cut: bool


class Column:
    """An array that grows at its end and lies in a nameless file."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self._file = tempfile.TemporaryFile(dir=cache_folder("scratch"))  # noqa: SIM115 - as long as the index

    def append(self, values: np.ndarray) -> None:
        self._file.write(np.ascontiguousarray(values, self.dtype).tobytes())

    def read(self, start: int, count: int) -> np.ndarray:
        size = self.dtype.itemsize
        return np.frombuffer(os.pread(self._file.fileno(), count * size, start * size), self.dtype)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class RowIndex:
    """Rows of one or several splits, to be compared with each other. To be closed, or used in a ``with`` block.

    ``rows`` counts those added, ``splits`` [rows] says of which split each is: whatever number `add` was given.
    """

    def __init__(self, *, threshold: float = THRESHOLD) -> None:
        self.rows = 0
        self.threshold = threshold
        self.splits = np.zeros(0, np.uint8)
        self._added_splits = bytearray()
        self._files: dict[str, int] = {}
        self._shingles = Shingles()
        self._pending: list[_Pending] = []
        self._pending_words = 0
        self._common: np.ndarray | None = None
        self._written = 0
        self._same, self._asks, self._meta, self._sets = map(Column, ("u8", "u8", _META, "u4"))
        self._bands = [Column("u4") for _ in range(BANDS)] if threshold < 1 else []
        self._set_of = functools.lru_cache(maxsize=64)(self._read_set)  # more, of huge rows, would not fit

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back the disk. What was read stays good."""
        self._set_of.cache_clear()
        for column in (self._same, self._asks, self._meta, self._sets, *self._bands):
            column.close()

    def add(self, example: Example, split: int = 0, key: str | None = None) -> None:
        """One more row. ``split`` never falls; ``key`` is the row's `content_hash`, where it is known already."""
        key = content_hash(example) if key is None else key
        question, answered = question_and_answer(example)
        is_cut = max(len(question), len(answered)) > LONGEST
        words, answer = words_of(question[:LONGEST]), words_of(answered[:LONGEST])
        self._pending.append(_Pending(int(key[:16], 16), words, answer, example.where, split, is_cut))
        self._pending_words += len(words) + len(answer)
        self.rows += 1
        sampling = self._common is None
        if self._pending_words >= (SAMPLED_WORDS if sampling else BATCH_WORDS) or (
            sampling and len(self._pending) >= SAMPLED
        ):
            self._write()

    def finish(self) -> None:
        """No row comes any more: to be called before anything is asked."""
        self._write()
        self.splits = np.frombuffer(bytes(self._added_splits), np.uint8)
        for column in (self._same, self._asks, self._meta, self._sets, *self._bands):
            column.flush()

    def where(self, row: int) -> str:
        """``file:line`` of a row."""
        meta = self._meta.read(row, 1)[0]
        return f"{self._names[meta['file']]}:{meta['line']}"

    def answer(self, row: int) -> tuple[int, int]:
        """Of a row's answer, a hash but for case and white space, and its words; (0, 0) if it was compared by it."""
        meta = self._meta.read(row, 1)[0]
        return int(meta["answer"]), int(meta["words"])

    def keys(self, start: int, count: int) -> np.ndarray:
        """The first 64 bits of the content hashes of ``count`` rows: uint64."""
        return self._same.read(start, count)

    @functools.cached_property
    def _names(self) -> list[str]:
        return list(self._files)

    def _write(self) -> None:
        """Hash what is pending, in batches, and put it on disk."""
        pending, self._pending, self._pending_words = self._pending, [], 0
        if self._common is None:
            self._common = self._find_common(pending)
        batch: list[_Pending] = []
        words = 0
        for row in pending:
            batch.append(row)
            words += len(row.words) + len(row.answer)
            if words >= BATCH_WORDS:
                self._write_batch(batch)
                batch, words = [], 0
        self._write_batch(batch)

    def _find_common(self, rows: Sequence[_Pending]) -> np.ndarray:
        """The shingles that more than half of these rows have, those that say the same counted once."""
        different = list({(hash_words(row.words), hash_words(row.answer)): row.words for row in rows}.values())
        if len(different) < FEWEST:
            return np.zeros(0, np.uint32)
        found, counts = np.unique(np.concatenate(self._shingles.of(different)), return_counts=True)
        return found[2 * counts > len(different)]

    def _write_batch(self, rows: Sequence[_Pending]) -> None:
        if not rows:
            return
        common = self._common
        assert common is not None
        sets = self._shingles.of([row.words for row in rows])
        if len(common):
            sets = [some[~np.isin(some, common, assume_unique=True)] for some in sets]
        by_answer = [not len(some) and bool(row.answer) for row, some in zip(rows, sets, strict=True)]
        if any(by_answer):
            others = self._shingles.of([row.answer if use else [] for row, use in zip(rows, by_answer, strict=True)])
            sets = [other if use else some for some, other, use in zip(sets, others, by_answer, strict=True)]
        self._same.append(np.array([row.key for row in rows], np.uint64))
        compared = [row.answer if use else row.words for row, use in zip(rows, by_answer, strict=True)]
        asks = [row.key if row.is_cut else hash_words(words) for row, words in zip(rows, compared, strict=True)]
        self._asks.append(np.array(asks, np.uint64))
        meta = np.zeros(len(rows), _META)
        starts = self._written + np.cumsum([0, *(len(some) for some in sets)])
        meta["start"], meta["count"] = starts[:-1], np.diff(starts)
        for number, (row, use) in enumerate(zip(rows, by_answer, strict=True)):
            name, _, line = row.where.rpartition(":")
            meta[number]["file"] = self._files.setdefault(name, len(self._files))
            meta[number]["line"] = int(line)
            if row.answer and not use:
                meta[number]["answer"], meta[number]["words"] = hash_words(row.answer), len(row.answer)
        self._meta.append(meta)
        self._written = int(starts[-1])
        self._added_splits += bytes(row.split for row in rows)
        if not self._bands:
            return
        self._sets.append(np.concatenate(sets))
        filled = np.array([len(some) > 0 for some in sets])
        keys = np.zeros((BANDS, len(rows)), np.uint32)
        keys[:, filled] = band_keys(signatures([some for some in sets if len(some)]))
        for column, band in zip(self._bands, keys, strict=True):
            column.append(band)

    def pairs(
        self, wanted: Callable[[int, int], bool], progress: Progress = silent, *, rest: bool = True
    ) -> Iterator[Pair]:
        """Pairs of rows, the surest first: those that say the same, that ask the same, that are alike.

        Of rows that say or ask the same each is paired with the first, and with the first of its own split; not every
        two of them.

        Args:
            wanted: whether anything would be learned from a pair of rows; asked before it is verified.
            rest: also those that are merely alike, where the threshold is below 1.
        """
        steps = 2 + (len(self._bands) if rest else 0)
        sure: tuple[tuple[Likeness, Column], ...] = (("same", self._same), ("asks_same", self._asks))
        alone = self._has_set() if rest else np.ones(self.rows, bool)
        for number, (likeness, column) in enumerate(sure):
            progress("compare: passes", number, steps)
            for rows in self.buckets(column):
                firsts: dict[int, int] = {}
                for row in rows.tolist():
                    own = firsts.setdefault(int(self.splits[row]), row)
                    if own != row and self.splits[row] == self.splits[0]:
                        alone[row] = False  # its first speaks for it; of held-out rows each speaks for itself
                    for first in sorted({rows[0].item(), own} - {row}):
                        if wanted(first, row):
                            yield Pair(first, row, likeness, 1.0)
        for number, column in enumerate(self._bands if rest else (), start=2):
            progress("compare: passes", number, steps)
            for rows in self.buckets(column, alone):
                yield from self._alike(rows.tolist(), wanted)
        progress("compare: passes", steps, steps)

    def buckets(self, column: Column, among: np.ndarray | None = None) -> Iterator[np.ndarray]:
        """Rows, ascending, that have an equal key, where there are two or more; only those that ``among`` says."""
        parts = -(-self.rows // PART_ROWS)
        for part in range(parts):
            keys, numbers = [], []
            for start in range(0, self.rows, PART_ROWS):
                some = column.read(start, min(PART_ROWS, self.rows - start))
                chosen = some % parts == part
                if among is not None:
                    chosen &= among[start : start + len(some)]
                keys.append(some[chosen])
                numbers.append(np.flatnonzero(chosen).astype(np.uint32) + np.uint32(start))
            key, number = np.concatenate(keys), np.concatenate(numbers)
            del keys, numbers
            order = np.argsort(key, kind="stable")
            key, number = key[order], number[order]
            del order
            edges = np.flatnonzero(np.r_[True, key[1:] != key[:-1], True]) if len(key) else np.zeros(1, int)
            sizes = np.diff(edges)
            for at in np.flatnonzero(sizes > 1):
                yield number[edges[at] : edges[at + 1]]

    def _alike(self, rows: Sequence[int], wanted: Callable[[int, int], bool]) -> Iterator[Pair]:
        """The pairs of one bucket that are alike; of a crowd, those that are found with bounded work."""
        crowded = len(rows) > CROWD
        before: defaultdict[int, deque[int]] = defaultdict(lambda: deque(maxlen=NEIGHBOURS if crowded else CROWD))
        vain = 0
        for row in rows:
            near = {other for some in before.values() for other in some} | ({rows[0]} if row != rows[0] else set())
            for other in sorted(near):
                if not wanted(other, row):
                    continue
                if (found := self._compare(other, row)) >= self.threshold:
                    vain = 0
                    yield Pair(other, row, "alike", found)
                else:
                    vain += 1
            if crowded and vain >= PATIENCE:
                return
            before[int(self.splits[row])].append(row)

    def _has_set(self) -> np.ndarray:
        """Of which rows there is anything to compare: [rows] bool."""
        steps = range(0, self.rows, 1 << 16)
        return np.concatenate([np.zeros(0, bool), *(self._meta.read(start, 1 << 16)["count"] > 0 for start in steps)])

    def _compare(self, first: int, second: int) -> float:
        one, other = self._set_of(first), self._set_of(second)
        shorter, longer = sorted((len(one), len(other)))
        if not shorter or shorter < self.threshold * longer:  # then the similarity is below it too
            return 0.0
        return similarity(one, other)

    def _read_set(self, row: int) -> np.ndarray:
        meta = self._meta.read(row, 1)[0]
        return self._sets.read(int(meta["start"]), int(meta["count"]))
