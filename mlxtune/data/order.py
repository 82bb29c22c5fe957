"""The rows of each batch of an epoch: which go together, and in what order.

Knows lengths and token ids; nothing of text or arrays on a device. The order is a function of (seed, epoch) alone, so a
resumed run meets the batch it would have met. Rows that begin alike go together, since a beginning that all rows of a
batch share is computed once; among those, rows of like length, which saves padding. The price is that the rows of a
batch are not independent draws.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mlxtune.data.render import Rendered
from mlxtune.data.store.rows import Beginnings, facts_of

POOL_BATCHES = (24, 64)
"""Batches of like lengths are cut from so many batches' worth of shuffled rows, at least and at most."""
POOLS = 4
"""And, between these, from so many pools an epoch, so that in small data too it changes which rows meet."""

SHARED_TOKENS = 16
"""Tokens more than its surroundings that a group of rows must share."""
GROUP_BATCHES = 4
"""Batches that a group must fill, so that which rows meet is still a matter of chance."""
SORTED_TOKENS = SHARED_TOKENS
"""Of each row, that are looked at together when rows are sorted by what they begin with."""
SAVED_SHARE = 0.05
"""Of the tokens of the rows around them, that groups must save."""


@dataclass(frozen=True)
class BatchSize:
    """How many rows a batch has: so many, or as many as fit into so many tokens, padding included."""

    rows: int | None = None
    tokens: int | None = None

    def fits(self, count: int, longest: int) -> bool:
        """Whether ``count`` rows, the longest of so many tokens, are a batch; one row always is."""
        return count <= 1 or (count <= self.rows if self.rows is not None else count * longest <= (self.tokens or 0))

    def typical_rows(self, lengths: Sequence[int]) -> int:
        """The rows of a batch of average length."""
        if self.rows is not None:
            return self.rows
        return max(1, int((self.tokens or 0) * len(lengths) / max(1, sum(lengths))))


@dataclass(frozen=True)
class BatchOrder:
    """The batches of every epoch of one data set; see `batch_order`."""

    lengths: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]
    """Rows that are batched together; each row is in one."""
    size: BatchSize
    seed: int

    def epoch(self, epoch: int) -> list[tuple[int, ...]]:
        """The rows of each batch: every row once, the last partial batch included."""
        generator = np.random.default_rng([self.seed, epoch])
        least, most = (count * self.size.typical_rows(self.lengths) for count in POOL_BATCHES)
        pool_rows = min(max(least, len(self.lengths) // POOLS), most)
        pool_rows -= pool_rows % (self.size.rows or 1)
        batches: list[tuple[int, ...]] = []
        left_over: list[int] = []
        for group in self.groups:
            shuffled = [group[i] for i in generator.permutation(len(group))]
            for start in range(0, len(shuffled), pool_rows):
                *whole, last = self._cut(shuffled[start : start + pool_rows])
                batches += whole
                if len(last) == self.size.rows:
                    batches.append(last)
                else:
                    left_over += last
        batches += self._cut(left_over)
        return [batches[i] for i in generator.permutation(len(batches))]

    def count_batches(self, epoch: int) -> int:
        """How many batches the epoch has."""
        return math.ceil(len(self.lengths) / self.size.rows) if self.size.rows else len(self.epoch(epoch))

    def _cut(self, rows: Sequence[int]) -> list[tuple[int, ...]]:
        """Batches of rows of like length, shortest first."""
        batches: list[list[int]] = []
        for row in sorted(rows, key=lambda row: self.lengths[row]):
            if batches and self.size.fits(len(batches[-1]) + 1, self.lengths[row]):
                batches[-1].append(row)
            else:
                batches.append([row])
        return [tuple(batch) for batch in batches]


def halved(rows: tuple[int, ...], positions: Callable[[tuple[int, ...]], int], most: int) -> list[tuple[int, ...]]:
    """A batch's rows in parts, halved until each takes ``most`` positions at most; a row that is longer goes alone."""
    if len(rows) == 1 or positions(rows) <= most:
        return [rows]
    half = len(rows) // 2
    return [*halved(rows[:half], positions, most), *halved(rows[half:], positions, most)]


def batch_order(dataset: Sequence[Rendered], size: BatchSize, *, seed: int, share_prefix: bool) -> BatchOrder:
    """How ``dataset`` is gone through in each epoch.

    Args:
        share_prefix: whether the network computes what the rows of a batch share once; else rows are not grouped.
    """
    facts = facts_of(dataset)
    lengths = tuple(facts.length.tolist())
    everyone = tuple(range(len(dataset)))
    if not share_prefix:
        return BatchOrder(lengths, (everyone,), size, seed)
    starts = Beginnings(dataset, np.maximum(facts.first_target - 1, 0))
    least_rows = GROUP_BATCHES * size.typical_rows(lengths)
    return BatchOrder(lengths, tuple(prefix_groups(starts, lengths, least_rows=least_rows)), size, seed)


def prefix_groups(starts: Sequence[np.ndarray], lengths: Sequence[int], *, least_rows: int) -> list[tuple[int, ...]]:
    """Rows that begin alike, where batching them together saves more than it costs in chance.

    A group has at least ``least_rows`` rows and shares at least `SHARED_TOKENS` more than the rows around it do; groups
    are formed where they save `SAVED_SHARE` of those rows' tokens, and within groups again. What is in none of them
    stays one group.

    Args:
        starts: of each row, the tokens that may be shared: those before the first target's predecessor.
        lengths: tokens of each row.

    Returns: the rows' numbers, ascending; each row is in one group.
    """
    if not starts:
        return []
    order, alike = _sorted_by_start(starts)
    groups: list[tuple[int, ...]] = []
    ahead = [(0, len(order))]
    while ahead:
        first, end = ahead.pop()
        base = min(alike[first : end - 1], default=0)
        runs = [run for run in _runs(alike, first, end, base + SHARED_TOKENS) if run[1] - run[0] >= least_rows]
        saved = sum((stop - start) * (min(alike[start : stop - 1]) - base) for start, stop in runs)
        if not runs or saved < SAVED_SHARE * sum(lengths[row] for row in order[first:end]):
            groups.append(tuple(sorted(order[first:end])))
            continue
        ahead += runs
        inside = {place for start, stop in runs for place in range(start, stop)}
        if rest := [order[place] for place in range(first, end) if place not in inside]:
            groups.append(tuple(sorted(rest)))
    return sorted(groups)


def _sorted_by_start(starts: Sequence[np.ndarray]) -> tuple[list[int], list[int]]:
    """The rows' numbers in the order of what they begin with, and how many tokens each shares with the next.

    By a few tokens at a time: first by those that follow what all rows share, then, of rows that are still alike, by
    those that follow what these share. So no more than `SORTED_TOKENS` of each row are in memory at once.
    """
    order, alike = np.arange(len(starts)), np.zeros(len(starts) - 1, np.int64)
    ahead = [(0, len(starts))]
    while ahead:
        first, end = ahead.pop()
        rows = order[first:end]
        depth = _shared_by_all(starts, rows.tolist())
        keys = np.full((len(rows), SORTED_TOKENS), -1, np.int32)  # a start that ends stands before one that goes on
        for key, row in zip(keys, rows.tolist(), strict=True):
            part = _part(starts, row, depth, depth + SORTED_TOKENS)
            key[: len(part)] = part
        by_key = np.lexsort(keys.T[::-1])
        order[first:end], keys = rows[by_key], keys[by_key]
        differs = (keys[1:] != keys[:-1]) | (keys[1:] < 0)
        same = np.where(differs.any(axis=1), differs.argmax(axis=1), SORTED_TOKENS)
        alike[first : end - 1] = depth + same
        parted = first + 1 + np.flatnonzero(same < SORTED_TOKENS)
        # Never all rows again: they share no more than `depth`.
        ahead += [run for run in itertools.pairwise([first, *parted.tolist(), end]) if run[1] - run[0] > 1]
    return order.tolist(), alike.tolist()


def _shared_by_all(starts: Sequence[np.ndarray], rows: Sequence[int]) -> int:
    """How many tokens these rows, at least one, begin with alike."""
    known = starts[rows[0]]
    for row in rows[1:]:
        other = _part(starts, row, 0, len(known))
        length = min(len(known), len(other))
        different = np.flatnonzero(known[:length] != other[:length])
        known = known[: different[0] if len(different) else length]
        if not len(known):
            break
    return len(known)


def _part(starts: Sequence[np.ndarray], row: int, first: int, end: int) -> np.ndarray:
    return starts.part(row, first, end) if isinstance(starts, Beginnings) else starts[row][first:end]


def _runs(alike: Sequence[int], first: int, end: int, least: int) -> list[tuple[int, int]]:
    """The longest spans of neighbours between ``first`` and ``end`` that share at least ``least`` tokens."""
    runs, start = [], first
    for place in range(first, end):
        if place == end - 1 or alike[place] < least:
            if place > start:
                runs.append((start, place + 1))
            start = place + 1
    return runs
