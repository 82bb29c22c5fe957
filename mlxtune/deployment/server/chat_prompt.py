"""The turns of a chat request as a prompt: read as the rows that the model was trained on are.

Calls of tools and their results are read too. What a turn holds beside what can be read is refused by name; what other
servers' answers have in it and say nothing (``refusal: null``) may come back.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlxtune.data.example import Message
from mlxtune.data.faults import Fault
from mlxtune.data.forms.columns import columns_of
from mlxtune.data.forms.row import Row
from mlxtune.data.forms.tools import read_tools
from mlxtune.data.forms.turns import check_results, read_turns
from mlxtune.deployment.prompts import Prompt
from mlxtune.deployment.served import ServedModel
from mlxtune.deployment.server.errors import ApiError
from mlxtune.inference.shared_prefix import common_prefix_length

KEYS = {
    "system": {"role", "content"},
    "developer": {"role", "content"},
    "user": {"role", "content"},
    "assistant": {"role", "content", "tool_calls", "reasoning_content"},
    "tool": {"role", "content", "tool_call_id", "name"},
}
"""What a turn of each role may say."""
EMPTY = (None, [], "")


def read_prompt(messages: Sequence[Any], tools: Sequence[Any]) -> Prompt:
    """The prompt that a request's turns are. Raises: ApiError, naming the turn that is wrong."""
    for i, message in enumerate(messages):
        _check_keys(message, f"messages[{i}]")
    row = Row({"messages": list(messages), "tools": list(tools)}, columns_of(None), "the request")
    turns = read_turns(row, row.fields["messages"], "'messages'", "messages")
    if turns and not row.faults:
        check_results(row, turns)
    _refuse(row.faults, "messages")
    if not turns or turns[-1].role == "assistant":
        raise ApiError(400, "messages ends with the assistant: there is nothing left to answer", param="messages")
    read = read_tools(row)
    _refuse(row.faults, "tools")
    return Prompt(tuple(turns), "messages", read)


def _check_keys(message: Any, place: str) -> None:
    if not isinstance(message, Mapping):
        return  # read_turns says so
    role = message.get("role")
    if not isinstance(role, str) or role not in KEYS:
        raise ApiError(400, f"{place}.role is {role!r:.40}; there are: {', '.join(KEYS)}", param="messages")
    for key, value in message.items():
        if key not in KEYS[role] and value not in EMPTY:
            said = f"{place}.{str(key)[:40]} is not supported in a turn of the {role}"
            raise ApiError(400, said, param="messages", code="unsupported_parameter")


def _refuse(faults: Sequence[Fault], param: str) -> None:
    if faults:
        raise ApiError(400, faults[0].message, param=param, code="invalid_value")


def shared_length(model: ServedModel, prompt: Prompt) -> int:
    """How many tokens at the start every prompt with this system message and these tools begins with."""
    system = [turn for turn in model.asking.turns(prompt.messages)[:1] if turn.role == "system"]
    if model.asking.raw or not (system or prompt.tools):
        return 0
    ends = [Prompt((*system, Message("user", text)), "messages", prompt.tools) for text in ("a", "b")]
    return common_prefix_length([np.asarray(model.asking.encode(end)) for end in ends])
