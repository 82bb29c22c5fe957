"""One row while it is read: its fields by mlxtune's names for them, and what is found to be wrong with it.

A form asks for values and goes on after a fault, so that all faults of a row are told at once.
"""

from dataclasses import dataclass, field
from typing import Any

from mlxtune.data.faults import Fault
from mlxtune.data.forms.columns import MISSING, Columns
from mlxtune.json_text import name_of_type


@dataclass(slots=True)
class Row:
    """A row, or a part of one such as a turn; ``place`` says which (``messages[3]: ``). ``faults`` grows."""

    fields: dict[str, Any]
    columns: Columns
    where: str
    faults: list[Fault] = field(default_factory=list)
    place: str = ""

    def part(self, fields: dict[str, Any], place: str) -> "Row":
        """The part at ``place`` of this row, whose faults are told with the row's."""
        return Row(fields, self.columns, self.where, self.faults, f"{self.place}{place}: ")

    def fault(self, kind: str, message: str, remedy: str) -> None:
        self.faults.append(Fault(self.where, self.place + message, kind, remedy))

    def value(self, name: str) -> Any:
        """What is in the column ``name``; None too where there is no such column."""
        value = self.columns.value(self.fields, name)
        return None if value is MISSING else value

    def has(self, name: str) -> bool:
        """Whether the column ``name`` is there and not null."""
        return self.value(name) is not None

    def required(self, name: str) -> bool:
        """Whether the column ``name`` is there, null or not; a fault, where it is not."""
        there = self.columns.value(self.fields, name) is not MISSING
        if not there:
            told = self.columns.told(name)
            self.fault("missing key", f"the key {told} is missing", "give the row the key, or take it out")
        return there

    def text(self, name: str, *, may_be_empty: bool = False) -> str:
        """The text in the column ``name``; "" after a fault, where it is missing, no text, or white space alone."""
        value = self.columns.text_value(self.fields, name)
        told = self.columns.told(name)
        if value is MISSING:
            self.required(name)
        elif not isinstance(value, str):
            remedy = "make it text; data.template can do so for all rows"
            self.fault("wrong type", f"{told} is {name_of_type(value)}, not a string", remedy)
        elif not value.strip() and not (may_be_empty and not value):
            self.fault("empty", f"{told} is empty", "give it words, or take the row out")
        else:
            return value
        return ""

    def optional_text(self, name: str) -> str:
        """The text in the column ``name``; "" where it is missing, null or empty."""
        value = self.columns.text_value(self.fields, name)
        return "" if value is MISSING or value is None or value == "" else self.text(name)

    def refuse_meaningful(self, *keys: str) -> None:
        """Faults for ``keys`` that would change what the row means, where they say something.

        None, if the recipe reads one of ``keys``: who learns the ``chosen`` answers leaves the ``rejected`` knowingly.
        """
        if not self.columns.used.isdisjoint(keys):
            return
        for key in keys:
            if self.fields.get(key) not in (None, "", [], {}):
                self.fault(
                    "not understood",
                    f"'{key}' means nothing in a row of this form, and the row would read otherwise without it",
                    "take the key out, or choose the form that has it (data.format)",
                )
