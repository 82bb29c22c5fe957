"""Rows with ``instruction`` and ``output``, as Alpaca's; the ``input``, where there is one, follows the instruction."""

from mlxtune.data.example import Example
from mlxtune.data.forms.columns import JOINED_BY
from mlxtune.data.forms.pair import as_pair
from mlxtune.data.forms.row import Row


def read_alpaca(row: Row) -> Example:
    row.refuse_meaningful("chosen", "rejected")
    row.refuse_meaningful("history")
    instruction, more = row.text("instruction"), row.optional_text("input")
    return as_pair(row, JOINED_BY.join(filter(None, (instruction, more))), row.text("output"))
