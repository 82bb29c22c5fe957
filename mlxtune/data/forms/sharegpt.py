"""Rows with ``conversations``, as ShareGPT's relatives write them: a list of turns with from and value.

Some have ``role`` and ``content`` in their turns instead; ``system`` and ``tools`` may stand beside the list. A turn of
``function_call`` is the assistant's and holds its call as JSON, name and arguments; an ``observation`` is its result.
"""

from typing import Any

from mlxtune.data.example import Example, Message, Role
from mlxtune.data.forms.row import Row
from mlxtune.data.forms.tools import read_tools
from mlxtune.data.forms.turns import ROLES, check_conversation, read_turns, with_system
from mlxtune.json_text import name_of_type, parse_json

WORDS: dict[str, Role] = {
    **ROLES,
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "observation": "tool",
    "function_response": "tool",
}
CALLS = ("function_call", "tool_call")
CALL_REMEDY = 'write the call as JSON: {"name": ..., "arguments": {...}}'


def read_sharegpt(row: Row) -> Example:
    tools = read_tools(row)
    messages: list[Message] | None = None
    if row.required("conversations"):
        turns = row.value("conversations")
        if isinstance(turns, list):
            turns = [_plain(row, turn, i) for i, turn in enumerate(turns)]
        messages = read_turns(row, turns, "'conversations'", "conversations", WORDS)
    if messages is not None:
        messages = with_system(row, messages)
        check_conversation(row, messages)
    return Example("chat", row.where, messages=tuple(messages or ()), tools=tools)


def _plain(row: Row, turn: Any, i: int) -> Any:
    """A turn with its role and content under those names, and its call, if it is one, as chats have it."""
    if not isinstance(turn, dict) or ("from" not in turn and "value" not in turn):
        return turn
    renamed = {"from": "role", "value": "content"}
    plain = {renamed.get(key, key): value for key, value in turn.items()}
    if plain.get("role") not in CALLS:
        return plain
    try:
        call = parse_json(plain["content"] if isinstance(plain.get("content"), str) else "")
    except ValueError as error:
        row.fault("tool call", f"conversations[{i}]: the call is {error}", CALL_REMEDY)
        return {"role": "assistant", "content": "call"}  # a fault is noted; one is enough
    calls = call if isinstance(call, list) else [call]
    if not calls or not all(isinstance(call, dict) for call in calls):
        row.fault("tool call", f"conversations[{i}]: the call is {name_of_type(call)}, not an object", CALL_REMEDY)
        return {"role": "assistant", "content": "call"}
    return {**plain, "role": "assistant", "content": None, "tool_calls": calls}
