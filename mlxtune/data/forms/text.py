"""Rows with ``text`` alone: continued pre-training, or a whole prompt and answer in one string."""

from mlxtune.data.example import Example
from mlxtune.data.forms.row import Row


def read_text(row: Row) -> Example:
    return Example("text", row.where, text=row.text("text"))
