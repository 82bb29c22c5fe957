"""Records of any known form into examples of one shape, in a stream.

A file has one form: the one that the recipe names, or the one that its first `PEEKED` rows fit; rows that do not fit
it are faults, wherever they stand. The price of a stream is that a second form is noticed as a candidate only among
the first rows, and as faults after them. Knows columns; nothing of tokens. What each form reads is in `forms`.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from mlxtune.data.example import Example
from mlxtune.data.faults import Fault
from mlxtune.data.forms.columns import MISSING, Columns, columns_of
from mlxtune.data.forms.detect import check_form, detect_form, name_unused
from mlxtune.data.forms.row import Row
from mlxtune.data.forms.table import TABLE
from mlxtune.data.forms.template import TOO_MUCH, Templates, templates_of
from mlxtune.data.read import Record
from mlxtune.errors import DataError, RecipeError
from mlxtune.recipe.choices import Form

PEEKED = 200
"""How many rows `auto` looks at, and holds in memory to do so."""

PATIENCE = 3
"""In how many rows a template may be stopped before the rest is not tried."""


@dataclass(frozen=True)
class Shape:
    """How the rows of a split are to be read: `data.format`, `data.columns` and `data.template`, as plain values."""

    format: Literal["auto"] | Form = "auto"
    columns: Mapping[str, Any] | None = None
    """As `columns.columns_of` takes it."""
    template: str | Mapping[str, str] | None = None
    """As `template.templates_of` takes it."""
    keep: tuple[str, ...] = ()
    """Columns that `Example.kept` is to have, where a row has them; as the row has them, whatever else reads them. A
    name with dots leads into objects, as in ``columns``.
    """


class Normalized:
    """The examples of a stream of records, and a fault in place of each thing that is wrong with one; read once.

    ``form``, and ``why`` it is that and which columns it leaves unused, as the first rows show it, are known from the
    start where any of the first `PEEKED` rows is a record; otherwise they are None and "" until one has come.
    """

    def __init__(self, records: Iterable[Record | Fault], shape: Shape) -> None:
        self.form: Form | None = None
        self.why = ""
        self.is_detected = shape.format == "auto"
        self._columns = columns_of(shape.columns)
        self._templates = templates_of(shape.template)
        _refuse_made_twice(self._columns, self._templates)
        self._keep = Columns({name: (name,) for name in shape.keep})
        kept = {part for name in shape.keep for part in (name, name.partition(".")[0])}
        self._columns = replace(self._columns, used=self._columns.used | self._templates.fields | kept)
        if shape.format != "auto":
            check_form(shape.format, self._columns, self._templates.names)
            self.form, self.why = shape.format, f"{shape.format}: data.format says so"
        self._is_told = False
        self._stopped = 0
        self._records = iter(records)
        self._peeked = self._peek()

    def __iter__(self) -> Iterator[Example | Fault]:
        while self._peeked:
            waiting, self._peeked = self._peeked, []
            source = waiting if self.form is None else itertools.chain(waiting, self._records)
            for record in source:
                yield from self._read(record)
            if self.form is None:
                self._peeked = self._peek()

    def _peek(self) -> list[Record | Fault]:
        """The next rows; among them the first record, if there is any, says the form. Raises: as `detect_form`."""
        rows = list(itertools.islice(self._records, PEEKED))
        records = [row for row in rows if isinstance(row, Record)]
        if self.form is None and records:
            self.form, self.why = detect_form(records, self._columns, self._templates.names)
        if records and not self._is_told and self.form is not None:
            self._is_told = True
            self.why += name_unused(records, self.form, self._columns, self._templates.names)
        return rows

    def _read(self, record: Record | Fault) -> Iterator[Example | Fault]:
        if isinstance(record, Fault) or self.form is None:
            if isinstance(record, Fault):
                yield record
            return
        fields = record.fields
        if self._templates.names:
            made, wrong = self._templates.make(fields, record.where)
            if wrong:
                yield from wrong
                self._give_up_on(wrong)
                return
            fields = {**fields, **made}
        row = Row(fields, self._columns, record.where)
        example = TABLE[self.form].read(row)
        if row.faults:
            yield from row.faults
        elif self._keep.paths:
            found = {name: self._keep.value(record.fields, name) for name in self._keep.paths}
            yield replace(example, kept={name: value for name, value in found.items() if value is not MISSING})
        else:
            yield example

    def _give_up_on(self, wrong: Sequence[Fault]) -> None:
        """Raises: DataError, once a template was stopped in `PATIENCE` rows: each takes seconds, and rows are many."""
        costly = next((fault for fault in wrong if fault.kind == TOO_MUCH), None)
        self._stopped += costly is not None
        if costly is not None and self._stopped == PATIENCE:
            raise DataError(f"{costly.message}; so in {PATIENCE} rows", where=costly.where, remedy=costly.remedy)


def normalize_stream(records: Iterable[Record | Fault], shape: Shape | None = None) -> Normalized:
    """Examples of ``records``, as ``shape`` says; faults among them are handed on in their places.

    Raises: DataError, if `auto` finds no form, or more than one, in the first rows; RecipeError, for columns and
        templates that cannot be.
    """
    return Normalized(records, Shape() if shape is None else shape)


def remedy_for(stream: Normalized, faults: Sequence[Fault]) -> str:
    """The way out for ``faults`` together: their own, where it is one, and what a row of the form has."""
    assert stream.form is not None  # rows without a form have no faults
    keys = " and ".join(f'"{name}"' for name in TABLE[stream.form].needs)
    told = " (chosen by data.format: auto)" if stream.is_detected else ""
    own = {fault.remedy for fault in faults if fault.remedy}
    advice = own.pop() if len(own) == 1 else "mend these rows or take them out"
    return f"{advice}; a row of the form {stream.form}{told} has {keys}"


def _refuse_made_twice(columns: Columns, templates: Templates) -> None:
    twice = sorted(columns.names & templates.names)
    if twice:
        raise RecipeError(
            f"both data.columns and data.template say what {twice[0]} is", where="data.template", remedy="keep one"
        )
    covered = next((name for parts in columns.paths.values() for name in parts if name in templates.names), None)
    if covered is not None:
        raise RecipeError(
            f"data.columns reads the field {covered!r}, and data.template makes another value of that name",
            where="data.template",
            remedy="make both columns with templates",
        )
