"""Rows with a ``text`` and its ``label``: the text is asked, the label's word is the answer.

A number says nothing to a language model: labels that are numbers need words, `data.columns.labels`.
"""

from mlxtune.data.example import Example
from mlxtune.data.forms.columns import MISSING
from mlxtune.data.forms.pair import as_pair
from mlxtune.data.forms.row import Row
from mlxtune.json_text import name_of_type

NAMES_REMEDY = "give each label its word in data.columns.labels: a list for 0, 1 ..., or a mapping"
SHOWN = 20


def read_label(row: Row) -> Example:
    return as_pair(row, row.text("text"), _label(row))


def _label(row: Row) -> str:
    value = row.columns.value(row.fields, "label")
    told, words = row.columns.told("label"), row.columns.labels
    if value is MISSING or value is None or (isinstance(value, str) and not words):
        return row.text("label")
    if not isinstance(value, str | int):
        row.fault("label", f"{told} is {name_of_type(value)}, not a word or a whole number", NAMES_REMEDY)
        return ""
    # true and false are 1 and 0 to Python; a list of two words fits both
    key = value if isinstance(value, str) else str(int(value))
    if not words:
        message = f"{told} is {name_of_type(value)}, and no word stands for it"
        row.fault("label", message, f"{NAMES_REMEDY}; or set data.format to text, to learn the text alone")
    elif key not in words:
        row.fault("label", f"{told} is {key[:SHOWN]!r}, which data.columns.labels does not have", NAMES_REMEDY)
    elif not words[key].strip():
        row.fault("label", f"the word for {key[:SHOWN]!r} in data.columns.labels is empty", NAMES_REMEDY)
    else:
        return words[key]
    return ""
