"""What data are like, in numbers: how long rows are, which repeat, and what an epoch's batches cost.

Counts are those that training goes by. Knows rows as text, as tokens, and as shapes of batches; opens nothing. Rows are
gone through twice, once as text and once as tokens, and held neither time.
"""

import itertools
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mlxtune.data.batch import Shape, shape_of
from mlxtune.data.dataset import Dataset, render_examples
from mlxtune.data.example import Example
from mlxtune.data.faults import Fault
from mlxtune.data.likeness.duplicates import RowIndex
from mlxtune.data.likeness.repeats import Repeat, find_repeats
from mlxtune.data.order import BatchOrder, halved
from mlxtune.data.pairs import Pairs, rows_of
from mlxtune.data.render import Rendered
from mlxtune.data.store.census import Stream
from mlxtune.data.store.rows import facts_of, places_of
from mlxtune.data.survey.survey import Survey, survey
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
    """What is told of one split."""

    dataset: Dataset
    """As training has it; but rows that it would refuse for their length are there, in full."""
    survey: Survey
    lengths: Lengths
    too_long: tuple[tuple[str, int], ...]
    """Those rows, and their tokens."""
    repeats: tuple[Repeat, ...]


def describe(
    examples: Iterable[Example | Fault] | Stream,
    tokenizer: Any,
    *,
    path: Path,
    train_on: TrainOn,
    max_seq_length: int,
    overflow: Overflow,
    tokenizer_folder: Path | None = None,
    index: RowIndex | None = None,
    split: int = 0,
    pairs: Pairs = "better",
    progress: Progress = silent,
) -> SplitStats:
    """One split's rows, rendered and counted. Takes what `render_examples` takes, and raises what it does; but rows
    that are too long are no error.

    Args:
        index: takes the rows, as those of the split that has this number, to be compared later.
    """
    dataset = render_examples(
        examples,
        tokenizer,
        path=path,
        train_on=train_on,
        max_seq_length=sys.maxsize if overflow == "error" else max_seq_length,
        overflow=overflow,
        tokenizer_folder=tokenizer_folder,
        pairs=pairs,
        replay_max_seq_length=max_seq_length,
        progress=progress,
    )
    said = survey(
        dataset.stream.rows(replay=False),
        index,
        split,
        replay=dataset.stream.rows(replay=True),
        name=path.name,
        total=dataset.report.rows_read,
        progress=progress,
    )
    lengths, places = facts_of(dataset.rows).length, places_of(dataset.rows)
    return SplitStats(
        dataset=dataset,
        survey=said,
        lengths=lengths_of(dataset.rows),
        too_long=tuple((places[row], int(lengths[row])) for row in np.flatnonzero(lengths > max_seq_length).tolist()),
        repeats=tuple(find_repeats(said.fingerprints)),
    )


def lengths_of(rows: Sequence[Rendered]) -> Lengths:
    """Of at least one row."""
    lengths = facts_of(rows).length
    p50, p90, p99 = np.percentile(lengths, [50, 90, 99], method="inverted_cdf").tolist()
    return Lengths(int(lengths.min()), int(p50), int(p90), int(p99), int(lengths.max()))


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
    places = (facts_of(rows).length - bins.start) // bins.step
    counts = np.bincount(places, minlength=len(bins)).tolist()
    return tuple(Bin(start, start + bins.step, rows) for start, rows in zip(bins, counts, strict=True))


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
    rows: Sequence[Rendered],
    order: BatchOrder,
    *,
    part_positions: int,
    share_prefix: bool,
    multiple: int = 1,
    epoch: int = 0,
    pairs: bool = False,
) -> Reading:
    """What one epoch over ``rows`` takes, in the batches of ``order``, each in parts as training reads it.

    Args:
        part_positions: the most positions that a part of several rows may take.
        share_prefix, multiple: as `make_batch` takes them in training.
        pairs: ``order`` is of pairs of rows.
    """

    def shape(part: Sequence[int]) -> Shape:
        numbers = rows_of(part) if pairs else part
        return shape_of(rows, numbers, share_prefix=share_prefix, multiple=multiple)

    batches = order.epoch(epoch)
    parts = (part for batch in batches for part in halved(batch, lambda rows: shape(rows).positions, part_positions))
    return replace(add_up(map(shape, parts)), batches=len(batches))
