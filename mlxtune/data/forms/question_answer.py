"""Rows with ``question`` and ``answer``; a ``context``, where there is one, stands before the question."""

from mlxtune.data.example import Example
from mlxtune.data.forms.columns import JOINED_BY
from mlxtune.data.forms.pair import as_pair
from mlxtune.data.forms.row import Row


def read_question_answer(row: Row) -> Example:
    row.refuse_meaningful("chosen", "rejected")
    context, question = row.optional_text("context"), row.text("question")
    return as_pair(row, JOINED_BY.join(filter(None, (context, question))), row.text("answer"))
