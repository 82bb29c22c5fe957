"""The forms by name: the columns that each needs, those that it may have, and the function that reads its rows."""

from collections.abc import Callable
from dataclasses import dataclass

from mlxtune.data.example import Example
from mlxtune.data.forms.alpaca import read_alpaca
from mlxtune.data.forms.chat import read_chat
from mlxtune.data.forms.columns import IN_TURNS
from mlxtune.data.forms.label import read_label
from mlxtune.data.forms.preference import read_preference
from mlxtune.data.forms.prompt_completion import read_prompt_completion
from mlxtune.data.forms.question_answer import read_question_answer
from mlxtune.data.forms.row import Row
from mlxtune.data.forms.sharegpt import read_sharegpt
from mlxtune.data.forms.text import read_text
from mlxtune.recipe.choices import Form


@dataclass(frozen=True)
class RowForm:
    """One form. ``needs`` and ``may_have`` are mlxtune's names of columns; `sharegpt` alone has its own word."""

    needs: tuple[str, ...]
    may_have: tuple[str, ...]
    read: Callable[[Row], Example]

    @property
    def names(self) -> frozenset[str]:
        return frozenset([*self.needs, *self.may_have])


TABLE: dict[Form, RowForm] = {
    "chat": RowForm(("messages",), ("system", "tools", *IN_TURNS), read_chat),
    "sharegpt": RowForm(("conversations",), ("system", "tools", *IN_TURNS), read_sharegpt),
    "alpaca": RowForm(("instruction", "output"), ("input", "system"), read_alpaca),
    "prompt_completion": RowForm(("prompt", "completion"), ("system", "tools", *IN_TURNS), read_prompt_completion),
    "question_answer": RowForm(("question", "answer"), ("context", "system"), read_question_answer),
    "text": RowForm(("text",), (), read_text),
    "preference": RowForm(
        ("chosen", "rejected"), ("prompt", "messages", "system", "tools", *IN_TURNS), read_preference
    ),
    "label": RowForm(("text", "label"), ("system",), read_label),
}

NEARER: tuple[tuple[Form, Form], ...] = (("label", "text"), ("preference", "chat"))
"""Pairs of forms whose rows fit both: the second asks for less than such a row says, so the first is meant."""
