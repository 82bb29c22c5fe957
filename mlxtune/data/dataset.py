"""A data file into rendered rows, with an account of what became of each row.

Reading, normalizing and rendering in one call, and the one decision that is left: what happens to a row longer than
the network is to see. Nothing is cut or dropped without being counted and named in the report.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mlxtune.data.faults import Fault, refuse
from mlxtune.data.normalize import Example, Form, read_examples, shared_system
from mlxtune.data.render import Rendered, Renderer, TrainOn
from mlxtune.errors import DataError
from mlxtune.progress import Progress, silent

Overflow = Literal["error", "drop", "truncate_left", "truncate_right"]

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

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON values."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows ready for batches, in the file's order, each with at least one target."""

    rows: tuple[Rendered, ...]
    report: DataReport
    system: str | None
    """The system message that all rows of the file begin with, if they do."""


def load_rendered(
    path: Path,
    tokenizer: Any,
    *,
    format: Literal["auto"] | Form = "auto",  # noqa: A002 - the recipe's key
    train_on: TrainOn = "completions",
    max_seq_length: int,
    overflow: Overflow = "error",
    progress: Progress = silent,
) -> Dataset:
    """Read, normalize and render a data file.

    Args:
        path: a JSONL file.
        tokenizer: mlx_lm's TokenizerWrapper, with the chat template to be used.
        max_seq_length: the most tokens that a row may have.
        overflow: what happens to a longer row: an error that names all of them, or the row is dropped, loses its
            beginning (`truncate_left`; BOS stays) or its end. A row that keeps no target is dropped.

    Raises: DataError, as `read_examples` and `Renderer.render` do, for all rows at once; for rows
        that are too long; and if no row is left.
    """
    examples = read_examples(path, format)
    renderer = Renderer(tokenizer)
    rendered = _render_all(examples, renderer, train_on, path, progress)
    rows: list[Rendered] = []
    faults: list[Fault] = []
    dropped: list[Dropped] = []
    truncated: list[str] = []
    for whole in rendered:
        row = fit(whole, max_seq_length, overflow, before=renderer.before)
        length = len(whole.token_ids)
        if row is None and overflow == "error":
            faults.append(Fault(whole.where, _why_not(length, max_seq_length)))
        elif row is None:
            dropped.append(Dropped(whole.where, _why_not(length, max_seq_length)))
        elif not row.is_target.any():
            dropped.append(Dropped(whole.where, f"no target is among the {len(row.token_ids)} tokens left of {length}"))
        else:
            rows.append(row)
            if row is not whole:
                truncated.append(whole.where)
    longest = max(len(row.token_ids) for row in rendered)
    remedy = f"raise data.max_seq_length to {longest}, or set data.overflow to drop, truncate_left or truncate_right"
    refuse(faults, path=path, remedy=remedy)
    if not rows:
        raise DataError(
            f"none of the {len(rendered)} rows is left; the first: {dropped[0].why}", where=path, remedy=remedy
        )
    return Dataset(
        tuple(rows),
        DataReport(
            format=examples[0].kind,
            rows_read=len(rendered),
            rows=len(rows),
            tokens=sum(len(row.token_ids) for row in rows),
            target_tokens=sum(int(row.is_target.sum()) for row in rows),
            dropped=tuple(dropped),
            truncated=tuple(truncated),
        ),
        shared_system(examples),
    )


def fit(row: Rendered, max_seq_length: int, overflow: Overflow, *, before: Sequence[int] = ()) -> Rendered | None:
    """The row in at most ``max_seq_length`` tokens: itself, what is left after cutting, or None if it may not be cut.

    What is left may hold no target. A first token is never one: it has no predecessor.

    Args:
        before: tokens that keep their place at the beginning if the row has them there (`Renderer.before`): families
            with BOS are lost without it.
    """
    if len(row.token_ids) <= max_seq_length:
        return row
    if overflow == "truncate_right":
        return Rendered(row.token_ids[:max_seq_length], row.is_target[:max_seq_length], row.where)
    if overflow == "truncate_left":
        head = len(before) if row.token_ids[: len(before)].tolist() == list(before) else 0
        kept = np.r_[:head, len(row.token_ids) - max_seq_length + head : len(row.token_ids)]
        is_target = row.is_target[kept]
        is_target[0] = False
        return Rendered(row.token_ids[kept], is_target, row.where)
    return None


def _render_all(
    examples: Sequence[Example], renderer: Renderer, train_on: TrainOn, path: Path, progress: Progress
) -> list[Rendered]:
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
    return rendered


def _why_not(length: int, max_seq_length: int) -> str:
    return f"the row has {length} tokens; data.max_seq_length is {max_seq_length}"
