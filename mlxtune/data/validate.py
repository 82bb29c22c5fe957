"""Every problem that rows have on their way to the network, and between them: found, grouped and counted.

Goes through each split once, as a stream: what cannot be read, normalized or rendered, what is too long; then, over all
splits, what repeats (duplicates.py). A problem is an *error* where training would stop or its result mean nothing: a
bad row, a row that is too long where that is refused, a held-out row that is in train too. It is a *warning* where
training goes on and the owner should know: repeats within a split, valid and test sharing rows, one question with two
labels, rows that the recipe cuts or drops. Knows streams and a renderer; opens no file.

All problems are counted; of each kind in each split the first `KEPT` are kept.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from mlxtune.data.example import Example
from mlxtune.data.faults import Fault
from mlxtune.data.likeness.duplicates import Pair, RowIndex
from mlxtune.data.likeness.shingles import THRESHOLD
from mlxtune.data.normalize import Normalized
from mlxtune.data.pairs import Pairs, fault_of, sides
from mlxtune.data.render import Rendered, Renderer
from mlxtune.data.store.census import Stream
from mlxtune.data.store.overflow import fit
from mlxtune.errors import DataError
from mlxtune.progress import Progress, silent
from mlxtune.recipe.choices import Form, Overflow, TrainOn

KEPT = 1000
LABEL_WORDS = 5
"""An answer of more words is no label: two such answers to one question are no contradiction."""
REPORT_EVERY = 256

Severity = Literal["error", "warning"]

REMEDIES = {
    "empty": "name a file with rows, or leave it out",
    "too_long": "raise data.max_seq_length, or set data.overflow to drop, truncate_left, truncate_right or split",
    "cut": "raise data.max_seq_length to learn from the whole row",
    "dropped": "raise data.max_seq_length, or shorten the row",
    "no_target": "give the row an answer that is trained on",
    "leak": "take one of the two out, or split again: `mlxtune data split` keeps such rows together",
    "overlap": "take one of the two out: what was chosen by valid is not unseen in test",
    "duplicate": "take it out, unless it is meant to count twice",
    "near_duplicate": "take it out, unless both are worth learning",
    "conflict": "correct one of the two labels, or take one row out",
}
"""What to do, by the kinds of problem that are found here; a `Fault` brings its own."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem: ``line`` 0 is the file as a whole. ``other`` is the row that it repeats, as ``file:line``."""

    file: str
    line: int
    message: str
    remedy: str
    other: str | None = None
    similarity: float | None = None


@dataclass(frozen=True)
class Group:
    """The problems of one kind in one split: ``count`` of them, the first in ``findings``."""

    split: str
    kind: str
    severity: Severity
    count: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class ReadAs:
    """What the rows of one file were taken for: the form, and what chose it and is not used of them."""

    split: str
    file: str
    form: Form
    why: str


@dataclass(frozen=True)
class Validation:
    """What was found: rows of each split, bad ones included, how they were read, and the problems, errors first."""

    rows: dict[str, int]
    forms: tuple[ReadAs, ...]
    groups: tuple[Group, ...]

    def count(self, severity: Severity) -> int:
        """How many problems are so severe."""
        return sum(group.count for group in self.groups if group.severity == severity)


@dataclass(frozen=True)
class Rendering:
    """How the rows are to be rendered, as the recipe says."""

    renderer: Renderer
    train_on: TrainOn
    max_seq_length: int
    overflow: Overflow


@dataclass(eq=False)
class _Findings:
    """Problems as they come, those of one kind in one split together."""

    kept: dict[tuple[Severity, str, str], list[Finding]] = field(default_factory=dict)
    counts: dict[tuple[Severity, str, str], int] = field(default_factory=dict)

    def add(
        self, split: str, kind: str, where: str, message: str, *, severity: Severity = "error", **more: Any
    ) -> None:
        key = severity, split, kind
        self.counts[key] = self.counts.get(key, 0) + 1
        kept = self.kept.setdefault(key, [])
        if len(kept) < KEPT:
            file, _, line = where.rpartition(":")
            remedy = more.pop("remedy", "") or REMEDIES.get(kind, "mend the row, or take it out")
            place = (file, int(line)) if file and line.isdecimal() else (where, 0)
            kept.append(Finding(*place, message, remedy, **more))

    def groups(self) -> tuple[Group, ...]:
        return tuple(
            Group(split, kind, severity, self.counts[key], tuple(sorted(kept, key=lambda one: (one.file, one.line))))
            for key in sorted(self.kept, key=lambda key: key[0])  # "error" comes before "warning"
            for (severity, split, kind), kept in [(key, self.kept[key])]
        )


def validate(
    splits: Mapping[str, Stream],
    rendering: Rendering | None = None,
    *,
    pairs: Pairs = "better",
    similarity: float = THRESHOLD,
    progress: Progress = silent,
) -> Validation:
    """Go through all rows of ``splits``, in the order train, valid, test, and tell what is wrong.

    Args:
        splits: the rows of each, file by file; a DataError that reading one raises is a problem of the file as a whole.
        rendering: without it what rows come to as tokens is not checked.
        pairs: what the objective makes of preferences, `better` where none is known: rows that it refuses are problems.
        similarity: the Jaccard similarity from which rows are near-duplicates.
    """
    findings = _Findings()
    rows: dict[str, int] = {}
    forms: list[ReadAs] = []
    with RowIndex(threshold=similarity) as index:
        for number, (split, stream) in enumerate(splits.items()):
            tally = _Tally(split, stream.total, progress)
            for file in stream.files:
                before = tally.rows
                # Of replay, what is too long is dropped: other rows stand in its place.
                as_read = rendering if rendering is None or file.share is None else replace(rendering, overflow="drop")
                try:
                    opened = file.open()
                    fitting = _fitting(tally.count(opened), pairs)
                    for item in _rendered(_indexed(fitting, index, number), as_read):
                        _check(item, split, as_read, findings)
                except DataError as error:
                    findings.add(split, "file", error.where or file.name, error.message, remedy=error.remedy or "")
                else:
                    if tally.rows == before:
                        findings.add(split, "empty", file.name, "there are no rows")
                    if isinstance(opened, Normalized) and opened.form is not None:
                        forms.append(ReadAs(split, file.name, opened.form, opened.why))
            tally.end()
            rows[split] = tally.rows
        index.finish()
        _compare(index, list(splits), findings, progress)
    return Validation(rows, tuple(forms), findings.groups())


@dataclass(eq=False)
class _Tally:
    """Counts the rows of a split as they pass, and tells of it."""

    split: str
    total: int
    progress: Progress
    rows: int = 0

    def count(self, items: Iterable[Example | Fault]) -> Iterator[Example | Fault]:
        last = ""
        for item in items:
            if item.where != last:  # a row may have several faults
                if self.rows % REPORT_EVERY == 0:
                    # Blank lines and bad ones make the total an estimate, which must not end the bar too early.
                    total = max(self.total, self.rows + 1) if self.total else 0
                    self.progress(f"check {self.split}: rows", self.rows, total)
                self.rows += 1
                last = item.where
            yield item

    def end(self) -> None:
        self.progress(f"check {self.split}: rows", self.rows, self.rows)


def _fitting(items: Iterable[Example | Fault], pairs: Pairs) -> Iterator[Example | Fault]:
    """``items``, with a fault in place of each that the objective refuses."""
    for item in items:
        yield (fault_of(item, pairs) if isinstance(item, Example) else None) or item


def _indexed(items: Iterable[Example | Fault], index: RowIndex, split: int) -> Iterator[Example | Fault]:
    for item in items:
        if isinstance(item, Example):
            index.add(item, split)
        yield item


def _rendered(items: Iterable[Example | Fault], rendering: Rendering | None) -> Iterator[Fault | Rendered]:
    """The faults among ``items``, and with a renderer what the others come to."""
    if rendering is None:
        yield from (item for item in items if isinstance(item, Fault))
        return
    last: Fault | None = None
    for item in rendering.renderer.render_stream(_sides(items), rendering.train_on):
        if not isinstance(item, Fault):
            yield item[1]
        elif item != last:  # a preference may be refused for what its two sides begin with
            yield item
            last = item


def _sides(items: Iterable[Example | Fault]) -> Iterator[Example | Fault]:
    """``items``, with a row for each of the two answers of a preference."""
    for item in items:
        yield from (item,) if isinstance(item, Fault) else sides(item)


def _check(item: Fault | Rendered, split: str, rendering: Rendering | None, findings: _Findings) -> None:
    if isinstance(item, Fault):
        findings.add(split, item.kind or "row", item.where, item.message, remedy=item.remedy)
        return
    assert rendering is not None
    length, limit, overflow = len(item.token_ids), rendering.max_seq_length, rendering.overflow
    if not item.is_target.any():
        findings.add(split, "no_target", item.where, "no token of the row is trained on")
    elif length > limit:
        message = f"the row has {length} tokens; data.max_seq_length is {limit}"
        if overflow == "error":
            findings.add(split, "too_long", item.where, message)
            return
        parts = fit(item, limit, overflow, before=rendering.renderer.before)
        kind = "cut" if any(part.is_target.any() for part in parts) else "dropped"
        message += f", and data.overflow ({overflow}) {'cuts' if kind == 'cut' else 'leaves no target of'} it"
        findings.add(split, kind, item.where, message, severity="warning")


def _compare(index: RowIndex, names: list[str], findings: _Findings, progress: Progress) -> None:
    """Note what each row repeats: once in its own split, once in train, and of test once in valid."""
    train = names.index("train") if "train" in names else -1
    known = {relation: np.zeros(index.rows, bool) for relation in ("repeat", "leak", "overlap")}

    def relation(first: int, row: int) -> str:
        if index.splits[first] == index.splits[row]:
            return "repeat"
        return "leak" if index.splits[first] == train else "overlap"

    for pair in index.pairs(lambda first, row: not known[relation(first, row)][row], progress):
        what = relation(pair.first, pair.row)
        known[what][pair.row] = True
        split, there = names[index.splits[pair.row]], names[index.splits[pair.first]]
        where, other = index.where(pair.row), index.where(pair.first)
        found = {"other": other, "similarity": pair.similarity}
        named = other if what == "repeat" else f"{other} ({there})"
        contradict = _contradict(index, pair)
        if contradict:
            message = f"asks what {named} asks, and has another label"
            findings.add(split, "conflict", where, message, severity="warning", **found)
        if what == "repeat":
            if not contradict:  # else it was said
                kind = "duplicate" if pair.likeness == "same" else "near_duplicate"
                findings.add(split, kind, where, _sentence(pair, named), severity="warning", **found)
        else:
            severity: Severity = "error" if what == "leak" else "warning"
            findings.add(split, what, where, _sentence(pair, named), severity=severity, **found)


def _sentence(pair: Pair, named: str) -> str:
    if pair.likeness == "same":
        return f"says what {named} says"
    if pair.likeness == "asks_same":
        return f"asks what {named} asks"
    return f"is nearly {named}: {pair.similarity:.0%} of their word trigrams are the same"


def _contradict(index: RowIndex, pair: Pair) -> bool:
    """Whether two rows ask the same and have different labels."""
    if pair.likeness != "asks_same":
        return False
    (one, words), (other, other_words) = index.answer(pair.first), index.answer(pair.row)
    is_label = 0 < words <= LABEL_WORDS and 0 < other_words <= LABEL_WORDS
    return is_label and one != other
