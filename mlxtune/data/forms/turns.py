"""A list of turns into messages: roles, text in parts, thoughts, tool calls and their results, weights.

The policies, which hold for every form that has turns:

- ``developer`` is another word for ``system``, ``function`` for ``tool``. There is at most one system message, it comes
  first, and it alone may be empty; no turn is white space alone. An assistant's turn may be empty where it calls tools.
- Who follows whom is the chat template's matter: two turns of a user in a row are read as they stand. But something
  has to be asked, and the last turn is the assistant's, since nothing after the last answer is learned.
- A tool's result follows the turn that called it, after other results at most; it names its call by ``tool_call_id``,
  or the calls are answered in order. Every call has a result, but those of the last turn.
- Of content in parts, text is read, and its parts are joined with line ends; any other part is refused by name.
- ``weight`` is how much an assistant's turn counts, 0 or more; ``train: false`` is the weight 0. On turns that are not
  the assistant's both may say that nothing is learned, and no more.
"""

import json
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from typing import Any

from mlxtune.data.example import Message, Role, ToolCall
from mlxtune.data.forms.row import Row
from mlxtune.data.forms.tools import read_call, read_calls
from mlxtune.json_text import name_of_type

ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
"""What chats call the roles."""

ROLE_REMEDY = "name the roles of your rows in data.columns.roles, such as {user: USER, assistant: SYSTEM}"
ORDER_REMEDY = "put the turns in order, or take the row out"
RESULT_REMEDY = "put each tool's result after the assistant's turn that calls it, with the call's id as tool_call_id"
PART_REMEDY = 'write {"type": "text", "text": ...}; only text is read'


def read_turns(row: Row, value: Any, told: str, place: str, roles: Mapping[str, Role] = ROLES) -> list[Message] | None:
    """The messages of the turns in ``value``, faults noted in ``row``.

    Args:
        told: what the list is called in its faults, with quotes; ``place`` without, as in ``messages[3]``.
        roles: what the form calls the roles; the words of `data.columns.roles` go before.

    Returns: None where the turns cannot all be told apart, after faults; their order is then not to be judged.
    """
    if not isinstance(value, list):
        row.fault("wrong type", f"{told} is {name_of_type(value)}, not a list", "write a list of turns")
        return None
    if not value:
        row.fault("empty", f"{told} is empty", "give it turns, or take the row out")
        return None
    roles = {**roles, **row.columns.roles}
    role_key, content_key = (row.columns.paths.get(name, (name,))[0] for name in ("role", "content"))
    messages: list[Message] = []
    known = True
    for i, fields in enumerate(value):
        if not isinstance(fields, dict):
            message = f"{place}[{i}]: {name_of_type(fields)} where an object with role and content should be"
            row.fault("wrong type", message, "write each turn as an object")
            known = False
            continue
        if len(fields) == 2 and (plain := _plain_turn(fields, role_key, content_key, roles, i)):  # noqa: PLR2004 - those two
            messages.append(plain)
            continue
        read = _turn(row.part(fields, f"{place}[{i}]"), roles, i)
        messages += read or []
        known = known and read is not None
    return messages if known else None


def _plain_turn(
    fields: dict[str, Any], role_key: str, content_key: str, roles: Mapping[str, Role], i: int
) -> Message | None:
    """The message of a turn that is a role and its words; None for any other, which `_turn` reads.

    Most turns are such; `_turn`, which looks for all that a turn may have, takes ten times as long.
    """
    word, content = fields.get(role_key), fields.get(content_key)
    if not isinstance(word, str) or not isinstance(content, str) or not content.strip():
        return None
    role = roles.get(word)
    if role is None or role == "tool" or (role == "system" and i > 0):
        return None
    return Message(role, content)


def _turn(turn: Row, roles: Mapping[str, Role], i: int) -> list[Message] | None:
    """The message of one turn, or several where it holds a call and its result as well; None without a known role."""
    word = turn.value("role")
    role = roles.get(word) if isinstance(word, str) else None
    if role == "system" and i > 0:
        turn.fault("roles", "a system message can only be the first", ORDER_REMEDY)
    if role is None:
        said = "the key 'role' is missing" if word is None else f"unknown role {word!r:.40}"
        turn.fault("unknown role", f"{said} (known: {', '.join(roles)})", ROLE_REMEDY)
    calls = read_calls(turn)
    own_call = _call_with_result(turn)
    content = _content(turn, may_be_empty=role == "system" or bool(calls), may_be_missing=bool(calls))
    if role is None:
        return None
    if role != "assistant" and (calls or own_call):
        turn.fault("tool call", f"a {role}'s turn calls a tool", "only the assistant calls tools")
    thinking = _thinking(turn, role)
    weight = _weight(turn, role)
    call_id = _word(turn, "tool_call_id") if role == "tool" else ""
    name = _word(turn, "name") if role == "tool" else ""
    message = Message(role, content, thinking, calls, call_id, name, weight)
    return [*(_called(own_call, weight) if own_call else ()), message]


def _content(turn: Row, *, may_be_empty: bool, may_be_missing: bool) -> str:
    value = turn.columns.text_value(turn.fields, "content")
    if isinstance(value, list):
        texts = [_part(turn, part, i) for i, part in enumerate(value)]
        if None in texts:
            return ""
        text = "\n".join(text for text in texts if text is not None)
        if not text.strip() and not (may_be_empty and not text):
            turn.fault("empty", f"{turn.columns.told('content')} is empty", "give it words, or take the row out")
        return text
    if may_be_missing and not turn.has("content"):
        return ""
    return turn.text("content", may_be_empty=may_be_empty)


def _part(turn: Row, part: Any, i: int) -> str | None:
    if not isinstance(part, dict):
        turn.fault("content part", f"content[{i}] is {name_of_type(part)}, not an object with a type", PART_REMEDY)
    elif part.get("type") != "text":
        said = f"is of the type {part['type']!r:.40}" if "type" in part else "has no type"
        turn.fault("content part", f"content[{i}] {said}, and only text is read", PART_REMEDY)
    elif not isinstance(part.get("text"), str):
        turn.fault("content part", f"content[{i}] has no text", PART_REMEDY)
    else:
        return part["text"]
    return None


def _thinking(turn: Row, role: Role) -> str:
    """The thoughts before an answer, under any of the keys in use."""
    names = ("thinking",) if "thinking" in turn.columns.paths else ("reasoning_content", "thinking", "reasoning")
    texts = {name: text for name in names if (text := turn.optional_text(name))}
    if len(set(texts.values())) > 1:
        turn.fault("thinking", f"{' and '.join(texts)} differ", "keep one of them")
    if texts and role != "assistant":
        turn.fault("thinking", f"a {role}'s turn has {next(iter(texts))}", "only the assistant thinks")
    return next(iter(texts.values()), "")


def _weight(turn: Row, role: Role) -> float:
    weight, train = turn.value("weight"), turn.value("train")
    if train is not None and not isinstance(train, bool):
        turn.fault("weight", f"'train' is {name_of_type(train)}, not true or false", "write true or false")
        return 1.0
    if weight is None:
        weight = 0.0 if train is False else 1.0
    # a boolean is an int to Python, and an int may be too large for a float
    elif isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= _MOST:
        told = f"{weight}" if isinstance(weight, float) else name_of_type(weight)
        remedy = "write 0 for a turn that is not learned, 1 for one that counts as usual"
        turn.fault("weight", f"'weight' is {told}, not a number from 0 to {_MOST:.0f}", remedy)
        return 1.0
    elif train is False and weight > 0:
        turn.fault("weight", f"the turn has train: false and the weight {weight}", "keep one of the two")
    elif role != "assistant" and weight not in (0, 1):
        turn.fault("weight", f"a {role}'s turn has the weight {weight}", "only the assistant's turns are weighed")
    return float(weight)


_MOST = 1e6


def _word(turn: Row, name: str) -> str:
    """A name or id, that templates print as it is."""
    value = turn.value(name)
    if value is not None and not isinstance(value, str):
        turn.fault("wrong type", f"{turn.columns.told(name)} is {name_of_type(value)}, not a string", "make it text")
        return ""
    return value or ""


def _call_with_result(turn: Row) -> tuple[ToolCall, str] | None:
    """The call and its result that a turn holds beside its words, where `data.columns.call_name` says so."""
    if "call_name" not in turn.columns.paths or not turn.has("call_name"):
        return None
    function = {"name": turn.value("call_name"), "arguments": turn.value("call_arguments")}
    call = read_call(turn, function, turn.columns.told("call_name"))
    result = turn.value("call_result")
    text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
    return None if call is None else (call, text)


def _called(own_call: tuple[ToolCall, str], weight: float) -> tuple[Message, Message]:
    """The two turns before a turn that holds a call: the call, and what came back, null where nothing is there."""
    call, result = own_call
    return Message("assistant", "", tool_calls=(call,), weight=weight), Message("tool", result, name=call.name)


def with_system(row: Row, messages: Sequence[Message]) -> list[Message]:
    """``messages`` after the row's ``system``, if it has one."""
    system = row.optional_text("system")
    if system and messages[0].role == "system":
        row.fault("roles", "the row has 'system' and a system message as well", "keep one of the two")
    return [Message("system", system), *messages] if system else list(messages)


def check_conversation(row: Row, messages: Sequence[Message]) -> None:
    """Faults where ``messages`` do not end with an answer to something, or calls and results do not go together."""
    check_results(row, messages)
    answers = [message for message in messages if message.role == "assistant"]
    if not answers:
        row.fault("no answer", "there is no assistant message, so nothing to learn", "add the answer")
    elif messages[-1].role != "assistant":
        message = f"the last message is the {messages[-1].role}'s; nothing after the last answer is learned"
        row.fault("no answer", message, "end the row with the assistant's answer")
    elif all(message.role == "assistant" for message in messages):
        row.fault("no question", "nothing comes before the assistant's answer", "add what it answers")
    elif all(answer.weight == 0 for answer in answers):
        row.fault("no answer", "every answer has the weight 0, so nothing is learned", "take the row out")


def check_results(row: Row, messages: Sequence[Message]) -> None:
    """Faults for results without a call and, but at the end, calls without a result."""
    waiting: OrderedDict[int, ToolCall] = OrderedDict()
    numbers: dict[str, deque[int]] = {}
    for i, message in enumerate(messages):
        if message.role == "tool":
            number = _answered(message.tool_call_id, waiting, numbers)
            if number is None:
                named = f"the call {message.tool_call_id!r:.40}" if message.tool_call_id else "a call"
                said = f"turn {i + 1} is a tool's result, and {named} that waits for one is not before it"
                row.fault("tool result", said, RESULT_REMEDY)
            else:
                numbers[waiting.pop(number).id].popleft()
            continue
        if waiting:
            named = next(iter(waiting.values())).name
            row.fault("tool result", f"the call of {named!r:.40} has no result", RESULT_REMEDY)
            waiting.clear()
        if message.tool_calls:
            waiting.update(enumerate(message.tool_calls))
            numbers = {call.id: deque() for call in message.tool_calls}
            for number, call in waiting.items():
                numbers[call.id].append(number)


def _answered(call_id: str, waiting: Mapping[int, ToolCall], numbers: Mapping[str, Sequence[int]]) -> int | None:
    """Which of the ``waiting`` calls a result answers: the first that has its id or none; without an id, the first."""
    if not call_id:
        return next(iter(waiting), None)
    return min((numbers[name][0] for name in (call_id, "") if numbers.get(name)), default=None)
