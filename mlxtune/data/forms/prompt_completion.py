"""Rows with ``prompt`` and ``completion``: two texts, or lists of turns in their place, as TRL has them.

Of lists, the prompt's own answers are not learned (weight 0), since the row names the completion as what is.
"""

from dataclasses import replace

from mlxtune.data.example import Example, Message
from mlxtune.data.forms.pair import as_pair
from mlxtune.data.forms.row import Row
from mlxtune.data.forms.tools import read_tools
from mlxtune.data.forms.turns import check_conversation, read_turns, with_system


def read_prompt_completion(row: Row) -> Example:
    row.refuse_meaningful("chosen", "rejected")
    tools = read_tools(row)
    are_texts = not any(isinstance(row.value(name), list) for name in ("prompt", "completion"))
    if are_texts and not tools:
        return as_pair(row, row.text("prompt"), row.text("completion"))
    prompt, completion = turns_of(row, "prompt", "user"), turns_of(row, "completion", "assistant")
    if prompt is None or completion is None:
        return Example("chat", row.where)
    not_learned = [replace(message, weight=0.0) if message.role == "assistant" else message for message in prompt]
    messages = with_system(row, [*not_learned, *completion])
    if any(message.role == "system" for message in completion):
        row.fault("roles", "a system message can only be the first", "put it at the beginning of the prompt")
    check_conversation(row, messages)
    return Example("chat", row.where, messages=tuple(messages), tools=tools)


def turns_of(row: Row, name: str, role: str) -> list[Message] | None:
    """The turns in the column ``name``: its list, or its text as one turn of ``role``; None after a fault."""
    value = row.columns.text_value(row.fields, name)
    if isinstance(value, list):
        return read_turns(row, value, row.columns.told(name), name)
    text = row.text(name)
    if not text:
        return None
    return [Message("assistant" if role == "assistant" else "user", text)]
