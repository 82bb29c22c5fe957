"""A data file into rendered rows, with an account of what became of each row.

Reading, normalizing and rendering in one call, and the one decision that is left: what happens to a row longer than
the network is to see. Nothing is cut or dropped without being counted and named in the report.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from mlxtune.data.faults import Fault, refuse
from mlxtune.data.normalize import Example, read_examples, shared_system
from mlxtune.data.render import Rendered, Renderer
from mlxtune.data.token_cache import find_entry, keep_rows, read_rows
from mlxtune.errors import DataError
from mlxtune.progress import Progress, silent
from mlxtune.recipe.choices import Form, Overflow, TrainOn, in_words

CUTTING = tuple(choice for choice in get_args(Overflow) if choice != "error")
REPORT_EVERY = 256
"""Rows between two reports of progress."""


@dataclass(frozen=True)
class Dropped:
    """A row that is not in the data set, and why."""

    where: str
    why: str


@dataclass(frozen=True)
class DataReport:
    """What became of the rows of a file.

    ``rows_read`` rows were in the file, in the form ``format``; ``rows`` of them are in the data set, with ``tokens``
    in all, of which ``target_tokens`` are learned. ``truncated`` names the rows that were cut.
    """

    format: Form
    rows_read: int
    rows: int
    tokens: int
    target_tokens: int
    dropped: tuple[Dropped, ...]
    truncated: tuple[str, ...]
    """Also those that were split."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows ready for batches, in the file's order, each with at least one target."""

    rows: tuple[Rendered, ...]
    examples: tuple[Example, ...]
    """The same rows as turns of text."""
    report: DataReport

    @property
    def system(self) -> str | None:
        """The system message that all rows begin with, if they do."""
        return shared_system(self.examples)


def load_rendered(
    path: Path,
    tokenizer: Any,
    *,
    format: Literal["auto"] | Form = "auto",  # noqa: A002 - the recipe's key
    train_on: TrainOn = "completions",
    max_seq_length: int,
    overflow: Overflow = "error",
    tokenizer_folder: Path | None = None,
    progress: Progress = silent,
) -> Dataset:
    """Read, normalize and render a JSONL file: `read_examples`, then `render_examples`, which names the arguments."""
    examples = read_examples(path, format)
    return render_examples(
        examples,
        tokenizer,
        path=path,
        train_on=train_on,
        max_seq_length=max_seq_length,
        overflow=overflow,
        tokenizer_folder=tokenizer_folder,
        progress=progress,
    )


def render_examples(
    examples: Sequence[Example],
    tokenizer: Any,
    *,
    path: Path,
    train_on: TrainOn,
    max_seq_length: int,
    overflow: Overflow,
    tokenizer_folder: Path | None = None,
    progress: Progress = silent,
) -> Dataset:
    """The rows of one file as token ids and targets.

    Args:
        tokenizer: mlx_lm's TokenizerWrapper, with the chat template to be used.
        max_seq_length: the most tokens that a row may have.
        overflow: what happens to a longer row: an error that names all of them, or the row is dropped, loses its
            beginning (`truncate_left`; BOS stays) or its end, or is read in several parts (`split`). What keeps no
            target is dropped.
        tokenizer_folder: where the tokenizer comes from, if rows are to be kept in the cache and looked for there.

    Raises: DataError, as `Renderer.render` does, for all rows at once; for rows that are too long; and if no row is
        left.
    """
    renderer = Renderer(tokenizer)
    rendered = _render_all(examples, renderer, train_on, path, tokenizer_folder, progress)
    return _fit_all(examples, rendered, max_seq_length, overflow, before=renderer.before, path=path)


def _fit_all(
    examples: Sequence[Example],
    rendered: Sequence[Rendered],
    max_seq_length: int,
    overflow: Overflow,
    *,
    before: Sequence[int],
    path: Path,
) -> Dataset:
    """The rows that fit, or what is left of them, and what became of the others."""
    rows: list[Rendered] = []
    kept: list[Example] = []
    faults: list[Fault] = []
    dropped: list[Dropped] = []
    truncated: list[str] = []
    for example, whole in zip(examples, rendered, strict=True):
        parts = fit(whole, max_seq_length, overflow, before=before)
        useful = [part for part in parts if part.is_target.any()]
        length = len(whole.token_ids)
        if useful:
            rows += useful
            kept.append(example)
            if useful != [whole]:
                truncated.append(whole.where)
        elif parts:
            left = sum(len(part.token_ids) for part in parts)
            dropped.append(Dropped(whole.where, f"no target is among the {left} tokens left of {length}"))
        elif overflow == "error":
            faults.append(Fault(whole.where, _why_not(length, max_seq_length)))
        else:
            dropped.append(Dropped(whole.where, _why_not(length, max_seq_length)))
    longest = max(len(row.token_ids) for row in rendered)
    remedy = f"raise data.max_seq_length to {longest}, or set data.overflow to {in_words(CUTTING)}"
    refuse(faults, path=path, remedy=remedy)
    if not rows:
        raise DataError(
            f"none of the {len(rendered)} rows is left; the first: {dropped[0].why}", where=path, remedy=remedy
        )
    return Dataset(
        tuple(rows),
        tuple(kept),
        DataReport(
            format=examples[0].kind,
            rows_read=len(rendered),
            rows=len(rows),
            tokens=sum(len(row.token_ids) for row in rows),
            target_tokens=sum(int(row.is_target.sum()) for row in rows),
            dropped=tuple(dropped),
            truncated=tuple(truncated),
        ),
    )


def fit(row: Rendered, max_seq_length: int, overflow: Overflow, *, before: Sequence[int] = ()) -> list[Rendered]:
    """The row in parts of at most ``max_seq_length`` tokens: itself, what is left after cutting, or none if it may not
    be cut.

    What is left may hold no target. A first token is never one: it has no predecessor. Where a row is split each part
    begins with the last token of the part before, so that every target is learned once.

    Args:
        before: tokens that keep their place at the beginning if the row has them there (`Renderer.before`): families
            with BOS are lost without it.
    """
    if len(row.token_ids) <= max_seq_length:
        return [row]
    length = len(row.token_ids)
    head = len(before) if row.token_ids[: len(before)].tolist() == list(before) else 0
    if overflow == "truncate_right":
        return [_part(row, 0, max_seq_length)]
    if overflow == "truncate_left":
        return [_part(row, length - max_seq_length + head, length, head=head)]
    if overflow == "split":
        room = max(2, max_seq_length - head)
        starts = range(max_seq_length - 1, length - 1, room - 1)
        first = _part(row, 0, max_seq_length)
        return [first, *(_part(row, start, min(start + room, length), head=head, seen=True) for start in starts)]
    return []


def _part(row: Rendered, start: int, end: int, *, head: int = 0, seen: bool = False) -> Rendered:
    """Tokens ``start`` to ``end``, the row's first ``head`` before them; ``seen``: the first is no target any more."""
    kept = np.r_[:head, start:end]
    is_target = row.is_target[kept]
    is_target[0] = False
    if seen:
        is_target[head] = False
    return Rendered(row.token_ids[kept], is_target, row.where)


def _render_all(
    examples: Sequence[Example],
    renderer: Renderer,
    train_on: TrainOn,
    path: Path,
    tokenizer_folder: Path | None,
    progress: Progress,
) -> list[Rendered]:
    """Every row in full: from the cache, where it is there, else rendered and put there."""
    entry = None
    if tokenizer_folder is not None:
        entry = find_entry(examples, renderer.tokenizer, tokenizer_folder, train_on)
    if entry is not None and (kept := read_rows(entry, examples)) is not None:
        progress(f"render {path.name}: rows", len(examples), len(examples))
        return kept
    rendered: list[Rendered] = []
    faults: list[Fault] = []
    remedy = ""
    for done, example in enumerate(examples):
        if done % REPORT_EVERY == 0:
            progress(f"render {path.name}: rows", done, len(examples))
        try:
            rendered.append(renderer.render(example, train_on))
        except DataError as error:
            faults.append(Fault(str(error.where), error.message))
            remedy = remedy or error.remedy or ""
    progress(f"render {path.name}: rows", len(examples), len(examples))
    refuse(faults, path=path, remedy=remedy)
    if entry is not None:
        keep_rows(entry, rendered)
    return rendered


def _why_not(length: int, max_seq_length: int) -> str:
    return f"the row has {length} tokens; data.max_seq_length is {max_seq_length}"
