"""Examples into a data set, in one pass: rendered rows in a store, with an account of what became of each row.

Rows come as a stream and go into the store one by one, so memory grows by about 150 bytes a row, whatever it says. The
one decision that is left is made afterwards, by lengths alone: what happens to a row longer than the network is to
see. Nothing is cut or dropped without being counted and named in the report.
"""

import gc
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from mlxtune.data.example import Example, Kind
from mlxtune.data.faults import LISTED, Fault, refuse
from mlxtune.data.normalize import Shape
from mlxtune.data.pairs import SIDES, Pairs, both_left, fault_of, odd_pairs, sides
from mlxtune.data.render import Rendered, Renderer
from mlxtune.data.source import DataFile, Source, stream_of
from mlxtune.data.store.census import Census, Stream, Weighted
from mlxtune.data.store.overflow import fit
from mlxtune.data.store.rows import PartsWriter, StoredRows, epoch_rows
from mlxtune.data.store.token_cache import LEAST_ROWS, Entries, find_entries, tokens_folder
from mlxtune.data.store.token_store import Store, StoreWriter
from mlxtune.errors import DataError
from mlxtune.progress import Progress, silent
from mlxtune.recipe.choices import Form, Overflow, TrainOn, in_words

__all__ = ["DataReport", "Dataset", "Dropped", "FileReport", "fit", "load_rendered", "render_examples"]

CUTTING = tuple(choice for choice in get_args(Overflow) if choice != "error")
CHECKED_ROWS = 1000
"""Of every file, that are looked at before a model is fetched; the others are when they are rendered."""
REPORT_EVERY = 256
"""Rows between two reports of progress."""


@dataclass(frozen=True)
class Dropped:
    """A row that is not in the data set, and why."""

    where: str
    why: str


@dataclass(frozen=True)
class FileReport:
    """Of one of a split's files: its form and why it is that, how often each row is to stand in an epoch, rows read,
    and rows that an epoch has. Of replay, ``share`` is the share of an epoch's rows that was to be its. ``dropped``
    are rows that no epoch has: they are too long, or have nothing to learn.
    """

    name: str
    format: Form | Kind
    why: str
    weight: float
    rows_read: int
    rows: int
    share: float | None = None
    dropped: int = 0


@dataclass(frozen=True)
class DataReport:
    """What became of the rows of a split.

    ``rows_read`` rows were in its files; an epoch has ``rows`` of them, with ``tokens`` in all, of which
    ``target_tokens`` are learned. ``truncated`` names the rows that were cut.
    """

    format: Form | Kind
    """Of the first file; the kind, where rows came from none."""
    kind: Kind
    """What the rows come to; of several, by which prompts go: chat before all others, text after them."""
    rows_read: int
    rows: int
    tokens: int
    target_tokens: int
    dropped: tuple[Dropped, ...]
    truncated: tuple[str, ...]
    """Also those that were split."""
    files: tuple[FileReport, ...]

    @property
    def replay_rows(self) -> int:
        """Of an epoch's rows, those of replay."""
        return sum(file.rows for file in self.files if file.share is not None)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows ready for batches, in the files' order, each with at least one target."""

    rows: Sequence[Rendered]
    report: DataReport
    system: str | None
    """The system message that all rows begin with, if they do."""
    thinks: bool
    """Whether most rows' last answers have thoughts."""
    stream: Stream
    """Where the rows came from."""
    kept: np.ndarray
    """[rows_read] bool: which rows are in the data set, whole or in part."""
    pairs: bool = False
    """Whether rows 2i and 2i + 1 are the two sides of a preference; ``report`` and ``kept`` count it as one row."""

    def once(self) -> tuple[Sequence[Rendered], np.ndarray]:
        """The rows of `examples`, each once, whatever it weighs, in the parts in which it is read; and [parts] the
        number, in `examples`, of the one that each part is of; of pairs, twice that for the better side, and one more
        for the other.
        """
        assert isinstance(self.rows, StoredRows)  # a rank's share of them is for training alone
        return self.rows.once()

    def examples(self, *, replay: bool = True) -> Iterator[Example]:
        """The same rows as turns of text, read again; each once, whatever it weighs.

        Args:
            replay: those of replay, too.

        Raises: DataError, if they are no longer what they were.
        """
        number = 0
        for file in self.stream.files:
            for item in file.open():
                if isinstance(item, Fault) or number == len(self.kept):
                    raise DataError(
                        "the rows have changed since they were read", where=item.where, remedy="start again"
                    )
                if self.kept[number] and (replay or file.share is None):
                    yield item
                number += 1


def load_rendered(
    source: Path | Source,
    tokenizer: Any,
    *,
    format: Literal["auto"] | Form = "auto",  # noqa: A002 - the recipe's key
    train_on: TrainOn = "completions",
    max_seq_length: int,
    overflow: Overflow = "error",
    tokenizer_folder: Path | None = None,
    progress: Progress = silent,
) -> Dataset:
    """Read, normalize and render a split: `source.stream_of`, then `render_examples`, which names the arguments.

    Args:
        format: of a file alone; a source says it itself.
    """
    source = source if isinstance(source, Source) else Source((DataFile(source),), Shape(format))
    return render_examples(
        stream_of(source),
        tokenizer,
        path=source.path,
        train_on=train_on,
        max_seq_length=max_seq_length,
        overflow=overflow,
        tokenizer_folder=tokenizer_folder,
        progress=progress,
    )


def render_examples(
    examples: Iterable[Example | Fault] | Stream,
    tokenizer: Any,
    *,
    path: Path,
    train_on: TrainOn,
    max_seq_length: int,
    overflow: Overflow,
    tokenizer_folder: Path | None = None,
    pairs: Pairs = "refused",
    replay_max_seq_length: int | None = None,
    progress: Progress = silent,
) -> Dataset:
    """The rows of a split as token ids and targets.

    Args:
        examples: what can be gone through again, from the beginning; it is where rows may be in the cache, and for
            `Dataset.examples`.
        tokenizer: mlx_lm's TokenizerWrapper, with the chat template to be used.
        path: names the split, in progress and in errors that are of no single row.
        max_seq_length: the most tokens that a row may have.
        overflow: what happens to a longer row: an error that names all of them, or the row is dropped, loses its
            beginning (`truncate_left`; BOS stays) or its end, or is read in several parts (`split`). What keeps no
            target is dropped.
        tokenizer_folder: where the tokenizer comes from, if rows are to be kept in the cache and looked for there.
        pairs: what preferences become.
        replay_max_seq_length: of a row of replay, if it is another. A longer one is dropped: another stands in its
            place.

    Raises: DataError, for rows that ``pairs`` refuses; for all rows at once that are faults in the stream or that
        `Renderer.render` refuses; for rows that are too long; and if no row is left, or none of replay. DeviceError, if
        the disk does not take the rows.
    """
    stream = examples if isinstance(examples, Stream) else _stream_of(examples, path)
    renderer = Renderer(tokenizer)
    store, census = _stored(stream, renderer, train_on, path, tokenizer_folder, pairs, progress)
    limits = np.where(census.is_replay(), replay_max_seq_length or max_seq_length, max_seq_length)
    return _fit_all(store, census, stream, limits, overflow, before=renderer.before, pairs=pairs, path=path)


def check_beginning(stream: Stream, path: Path, *, rows: int = CHECKED_ROWS, pairs: Pairs = "refused") -> None:
    """Look at the first ``rows`` rows of every file, before anything takes long.

    Raises: DataError, for all that are faults, for a row that ``pairs`` refuses, and as the stream does.
    """
    census = Census(stream, hashing=False)
    found = [item for item in _watched(census, rows, pairs=pairs) if isinstance(item, Fault)]
    refuse(found, path=path, remedy=census.remedy(found))


def _stream_of(examples: Iterable[Example | Fault], path: Path) -> Stream:
    return Stream((Weighted(lambda: examples, str(path), total=len(examples) if isinstance(examples, Sized) else 0),))


def _stored(
    stream: Stream,
    renderer: Renderer,
    train_on: TrainOn,
    path: Path,
    tokenizer_folder: Path | None,
    pairs: Pairs,
    progress: Progress,
) -> tuple[Store, Census]:
    """Every row in full: from the cache, where it is there, else rendered and put there."""

    def begin() -> tuple[Census, Iterator[Example | Fault]]:
        census = Census(stream, hashing=tokenizer_folder is not None)
        return census, _watched(census, pairs=pairs)

    census, items = begin()
    ahead = list(islice(items, LEAST_ROWS))
    entries = None
    if tokenizer_folder is not None and len(census.first) == LEAST_ROWS == len(ahead):
        entries = find_entries(census.first, renderer.tokenizer, tokenizer_folder, train_on)
    if entries is not None and entries.may_hold():
        if (found := _look_up(entries, census, items, stream.total, path, progress)) is not None:
            return found, census
        census, items = begin()
        ahead = []
    store = _render_all(stream, census, chain(ahead, items), renderer, train_on, path, progress)
    if entries is not None:
        # The rows that were kept are read from there, so that they do not take the disk's room twice.
        store = entries.keep(census.content, store)
    return store, census


def _watched(census: Census, rows_a_file: int | None = None, *, pairs: Pairs) -> Iterator[Example | Fault]:
    """`Census.watch`. Raises: DataError, at a row that ``pairs`` refuses."""

    def taken(example: Example) -> Sequence[Example]:
        if fault := fault_of(example, pairs):
            raise DataError(fault.message, where=fault.where, remedy=fault.remedy)
        return sides(example) if pairs == "both" else (example,)

    return census.watch(rows_a_file, sides=taken)


def _look_up(
    entries: Entries, census: Census, items: Iterator[Example | Fault], total: int, path: Path, progress: Progress
) -> Store | None:
    """The rows that are kept of all ``items``; None if there are none, as where one is a fault."""
    what = f"read {path.name}: rows"
    for item in items:
        if isinstance(item, Fault):
            return None
        if census.rows % REPORT_EVERY == 0:
            progress(what, census.rows, total and max(total, census.rows + 1))
    store = entries.open(census.content)
    progress(what, census.rows, census.rows)
    return store if store is not None and len(store) == census.rows else None


def _render_all(
    stream: Stream,
    census: Census,
    items: Iterable[Example | Fault],
    renderer: Renderer,
    train_on: TrainOn,
    path: Path,
    progress: Progress,
) -> Store:
    """Render all ``items``, which are those of the stream, noted in the census."""
    total = stream.total
    what = f"render {path.name}: rows"
    progress(what, 0, total)
    faults, refused, done = [], 0, 0
    writer = StoreWriter(tokens_folder())
    freezes = gc.get_freeze_count() == 0
    if freezes:  # or the rows would have Python go through all that the libraries have made, again and again
        gc.freeze()
    try:
        for item in renderer.render_stream(items, train_on):
            if isinstance(item, Fault):
                refused += 1
                faults += [item] if refused <= LISTED else []
                continue
            done += 1
            if not refused:
                writer.add(item[1])
            if done % REPORT_EVERY == 0:
                progress(what, done, total and max(total, done + 1))
        refuse(faults, path=path, remedy=census.remedy(faults), count=refused)
        for file, rows in zip(stream.files, census.rows_read, strict=True):
            if not rows:
                raise DataError("the file has no rows", where=file.name, remedy="name one that has")
        progress(what, done, done)
        return writer.finish()
    finally:
        if freezes:
            gc.unfreeze()
        writer.close()


def _fit_all(
    store: Store,
    census: Census,
    stream: Stream,
    limits: np.ndarray,
    overflow: Overflow,
    *,
    before: Sequence[int],
    pairs: Pairs,
    path: Path,
) -> Dataset:
    """The rows that fit, or what is left of them, and what became of the others; ``limits`` [rows] of their tokens."""
    rows_a_row = SIDES if pairs == "both" else 1
    places, facts, is_replay = census.places(), store.facts, census.is_replay()
    fits = (facts.length <= limits) & (facts.target_count > 0)
    parts = PartsWriter()
    dropped: list[Dropped] = []
    truncated: list[str] = []
    faults: list[Fault] = []
    refused = 0
    for number in np.flatnonzero(~fits).tolist():
        where, length, max_seq_length = places[number], int(facts.length[number]), int(limits[number])
        if length <= max_seq_length:
            dropped.append(Dropped(where, _no_target(length, length)))
        elif overflow == "error" and not is_replay[number]:
            refused += 1
            faults += [Fault(where, _why_not(length, max_seq_length))] if refused <= LISTED else []
        elif overflow == "drop" or is_replay[number]:
            dropped.append(Dropped(where, _why_not(length, max_seq_length)))
        else:
            useful, left = parts.add(number, store.read(number, where), max_seq_length, overflow, before)
            if useful:
                truncated.append(where)
            else:
                dropped.append(Dropped(where, _no_target(left, length)))
    longest = int(facts.length[~is_replay].max())
    remedy = f"raise data.max_seq_length to {longest}, or set data.overflow to {in_words(CUTTING)}"
    refuse(faults, path=path, remedy=remedy, count=refused)
    left = fits + np.bincount(parts.source, minlength=len(store))
    copies = census.copies(left)
    if pairs == "both":
        copies = copies * both_left(left)
        dropped, truncated = list({one.where: one for one in dropped}.values()), list(dict.fromkeys(truncated))
    rows, in_epoch = epoch_rows(store, places, copies, fits, parts)
    if not in_epoch[~is_replay].any():
        why = dropped[0].why if dropped else "the weights of the files leave none"
        count = len(store) // rows_a_row
        raise DataError(f"none of the {count} rows is left; the first: {why}", where=path, remedy=remedy)
    if pairs == "both":
        odd = odd_pairs(rows)
        refuse(odd[:LISTED], path=path, remedy=odd[0].remedy if odd else "", count=len(odd))
    kept = in_epoch > 0
    report = DataReport(
        format=census.forms[0],
        kind=census.kind,
        rows_read=len(store) // rows_a_row,
        rows=len(rows) // rows_a_row,
        tokens=int(rows.facts.length.sum(dtype=np.int64)),
        target_tokens=int(rows.facts.target_count.sum(dtype=np.int64)),
        dropped=tuple(dropped),
        truncated=tuple(truncated),
        files=_file_reports(census, stream, in_epoch, left == 0, rows_a_row),
    )
    _refuse_no_replay(report.files)
    system = census.system(np.flatnonzero(kept))
    return Dataset(rows, report, system, census.thinks, stream, kept[::rows_a_row], pairs == "both")


def _file_reports(
    census: Census, stream: Stream, in_epoch: np.ndarray, lost: np.ndarray, rows_a_row: int
) -> tuple[FileReport, ...]:
    """Of each file; ``in_epoch`` [rows] is how often an epoch has a row that was read, ``lost`` [rows] whether none is
    left of it; ``rows_a_row`` of them are one row of the file.
    """
    file_of = np.repeat(np.arange(len(stream.files)), census.rows_read)
    an_epoch, gone = (
        np.bincount(file_of, counted, minlength=len(stream.files)).astype(int).tolist() for counted in (in_epoch, lost)
    )
    of_each = zip(stream.files, census.forms, census.whys, census.rows_read, an_epoch, gone, strict=True)
    return tuple(
        FileReport(
            file.name, form, why, file.weight, read // rows_a_row, rows // rows_a_row, file.share, dropped // rows_a_row
        )
        for file, form, why, read, rows, dropped in of_each
    )


def _refuse_no_replay(files: Sequence[FileReport]) -> None:
    for file in files:
        if file.share is not None and not file.rows:
            remedy = "raise data.max_seq_length, or name a file with shorter rows"
            raise DataError("none of the rows of replay can be used: all are too long", where=file.name, remedy=remedy)


def _why_not(length: int, max_seq_length: int) -> str:
    return f"the row has {length} tokens; data.max_seq_length is {max_seq_length}"


def _no_target(left: int, length: int) -> str:
    return f"no target is among the {left} tokens left of {length}"
