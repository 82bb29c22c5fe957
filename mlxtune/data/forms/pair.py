"""One question and one answer into an example, whatever columns they came from.

Two texts are a prompt and its completion, which can do without a chat template. A system message before them, or tools,
need one: then they are a chat.
"""

from mlxtune.data.example import Example, Message
from mlxtune.data.forms.row import Row


def as_pair(row: Row, prompt: str, answer: str) -> Example:
    """The example of two texts, after the row's ``system`` message if it has one."""
    turns = (Message("user", prompt), Message("assistant", answer))
    if system := row.optional_text("system"):
        return Example("chat", row.where, messages=(Message("system", system), *turns))
    return Example("prompt_completion", row.where, messages=turns)
