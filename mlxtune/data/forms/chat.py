"""Rows with ``messages``, as OpenAI and Hugging Face write them: a list of turns with role and content.

``tools`` and a ``system`` message may stand beside it.
"""

from mlxtune.data.example import Example, Message
from mlxtune.data.forms.row import Row
from mlxtune.data.forms.tools import read_tools
from mlxtune.data.forms.turns import check_conversation, read_turns, with_system


def read_chat(row: Row) -> Example:
    row.refuse_meaningful("chosen", "rejected")
    tools = read_tools(row)
    messages: list[Message] | None = None
    if row.required("messages"):
        messages = read_turns(row, row.value("messages"), row.columns.told("messages"), "messages")
    if messages is not None:
        messages = with_system(row, messages)
        check_conversation(row, messages)
    return Example("chat", row.where, messages=tuple(messages or ()), tools=tools)
