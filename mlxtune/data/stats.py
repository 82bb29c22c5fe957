"""What data are like, in numbers: how long rows are, which repeat, and what an epoch's batches cost.

Counts are those that training goes by. Knows rows as text, as tokens, and as shapes of batches; opens nothing. Only
rows that say exactly the same count as repeats; what is merely alike is not looked for.
"""

import itertools
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlxtune.data.batch import Shape, shape_of
from mlxtune.data.dataset import Dataset, render_examples
from mlxtune.data.normalize import Example
from mlxtune.data.order import BatchOrder
from mlxtune.data.render import Rendered
from mlxtune.data.split import content_hash
from mlxtune.progress import Progress, silent
from mlxtune.recipe.choices import Overflow, TrainOn

BINS = 10
"""Of a histogram, at most."""


@dataclass(frozen=True)
class Lengths:
    """Tokens a row: the fewest, the most, and between them what so many of a hundred rows do not exceed.

    Each is the length of a row that is there.
    """

    min: int
    p50: int
    p90: int
    p99: int
    max: int


@dataclass(frozen=True)
class Bin:
    """How many rows have ``start`` tokens or more, but fewer than ``end``."""

    start: int
    end: int
    rows: int


@dataclass(frozen=True)
class Repeat:
    """A row that says what an earlier one says; both as ``file:line``."""

    where: str
    repeats: str


@dataclass(frozen=True)
class Reading:
    """What goes through the network for some batches, in positions."""

    batches: int
    positions: int
    """Those read: P + B L of every batch."""
    filled: int
    """Of these, those that are no padding."""
    saved: int
    """Tokens that rows begin with and that were read for another row of the batch already."""

    @property
    def padding_share(self) -> float:
        """Of the positions that go through the network."""
        return 1 - self.filled / self.positions

    @property
    def prefix_saved_share(self) -> float:
        """Of all that would be read without sharing, padding left out: what shared beginnings save."""
        return self.saved / (self.filled + self.saved)


@dataclass(frozen=True)
class SplitStats:
    """What is told of one file."""

    path: Path
    dataset: Dataset
    """As training has it; but rows that it would refuse for their length are there, in full."""
    lengths: Lengths
    too_long: tuple[tuple[str, int], ...]
    """Those rows, and their tokens."""
    repeats: tuple[Repeat, ...]


def describe(
    examples: Sequence[Example],
    tokenizer: Any,
    *,
    path: Path,
    train_on: TrainOn,
    max_seq_length: int,
    overflow: Overflow,
    tokenizer_folder: Path | None = None,
    progress: Progress = silent,
) -> SplitStats:
    """One file's rows, rendered and counted. Takes what `render_examples` takes, and raises what it does; but rows that
    are too long are no error.
    """
    dataset = render_examples(
        examples,
        tokenizer,
        path=path,
        train_on=train_on,
        max_seq_length=sys.maxsize if overflow == "error" else max_seq_length,
        overflow=overflow,
        tokenizer_folder=tokenizer_folder,
        progress=progress,
    )
    sizes = [(row.where, len(row.token_ids)) for row in dataset.rows]
    return SplitStats(
        path=path,
        dataset=dataset,
        lengths=lengths_of(dataset.rows),
        too_long=tuple((where, tokens) for where, tokens in sizes if tokens > max_seq_length),
        repeats=tuple(find_repeats(examples)),
    )


def lengths_of(rows: Sequence[Rendered]) -> Lengths:
    """Of at least one row."""
    lengths = [len(row.token_ids) for row in rows]
    p50, p90, p99 = np.percentile(lengths, [50, 90, 99], method="inverted_cdf").tolist()
    return Lengths(min(lengths), p50, p90, p99, max(lengths))


def bins_between(shortest: int, longest: int) -> range:
    """Where bins start that hold these lengths: `BINS` of them at most, their width 1, 2 or 5 with zeros after it."""
    width = next(
        width
        for tens in itertools.count()
        for width in (10**tens, 2 * 10**tens, 5 * 10**tens)
        if longest // width - shortest // width < BINS
    )
    return range(shortest // width * width, longest + 1, width)


def histogram(rows: Sequence[Rendered], bins: range) -> tuple[Bin, ...]:
    """How many rows are how long, in bins that hold them all."""
    places = [(len(row.token_ids) - bins.start) // bins.step for row in rows]
    counts = np.bincount(places, minlength=len(bins)).tolist()
    return tuple(Bin(start, start + bins.step, rows) for start, rows in zip(bins, counts, strict=True))


def find_repeats(examples: Sequence[Example], others: Sequence[Example] | None = None) -> list[Repeat]:
    """Rows that say exactly what an earlier one of the same file says; or, with ``others``, what one of those says."""
    known: dict[str, str] = {}
    for other in others or ():
        known.setdefault(content_hash(other), other.where)
    found: list[Repeat] = []
    for example in examples:
        key = content_hash(example)
        if key in known:
            found.append(Repeat(example.where, known[key]))
        elif others is None:
            known[key] = example.where
    return found


def add_up(shapes: Iterable[Shape]) -> Reading:
    """What the batches of these shapes, at least one, take together."""
    batches = positions = filled = saved = 0
    for shape in shapes:
        batches += 1
        positions += shape.positions
        filled += shape.filled
        saved += shape.saved
    return Reading(batches, positions, filled, saved)


def read_epoch(
    rows: Sequence[Rendered], order: BatchOrder, *, share_prefix: bool, multiple: int = 1, epoch: int = 0
) -> Reading:
    """What one epoch over ``rows`` takes, in the batches of ``order``.

    Args:
        share_prefix, multiple: as `make_batch` takes them in training.
    """
    batches = order.epoch(epoch)
    return add_up(shape_of(rows, batch, share_prefix=share_prefix, multiple=multiple) for batch in batches)
