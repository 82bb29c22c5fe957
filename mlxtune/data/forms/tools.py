"""Functions that a model may call, and its calls of them, as rows write them: OpenAI's form, its older one, or bare.

Tools come as a list of JSON schemas or as its JSON text; a bare function (``name``, ``parameters``) is wrapped as
OpenAI does, ``{"type": "function", "function": ...}``, the form that chat templates are written for. A call's arguments
are an object or its JSON text. Which results answer which calls is `turns`' matter.
"""

import json
import re
from typing import Any

from mlxtune.data.example import ToolCall
from mlxtune.data.forms.row import Row
from mlxtune.json_text import name_of_type, parse_json

TOOL_REMEDY = 'write {"type": "function", "function": {"name": ..., "parameters": {...}}} for each tool'
CALL_REMEDY = 'write {"id": ..., "type": "function", "function": {"name": ..., "arguments": {...}}} for each call'

OLDER_TOOLS = "functions"
"""What the column of tools was called before."""

UNREADABLE = re.compile(r"[\ud800-\udfff]|\\u0000")
"""What no token says: half of a surrogate pair, and NUL, as `json.dumps` writes them."""


def read_tools(row: Row) -> tuple[dict[str, Any], ...]:
    """The functions in a row's ``tools``, or in the older ``functions``; none where there are none."""
    value = row.value("tools")
    older = row.fields.get(OLDER_TOOLS)
    if value and older:
        row.fault("tools", f"the row has both 'tools' and '{OLDER_TOOLS}'", "keep one of the two")
        return ()
    told = row.columns.told("tools") if value or not older else f"'{OLDER_TOOLS}'"
    tools = _parsed(row, value or older or [], told, "tools", TOOL_REMEDY)
    if not isinstance(tools, list):
        if tools is not None:
            row.fault("tools", f"{told} is {name_of_type(tools)}, not a list", TOOL_REMEDY)
        return ()
    return tuple(tool for i, item in enumerate(tools) if (tool := _tool(row, item, f"tools[{i}]")) is not None)


def _tool(row: Row, item: Any, place: str) -> dict[str, Any] | None:
    if not isinstance(item, dict):
        row.fault("tools", f"{place} is {name_of_type(item)}, not an object", TOOL_REMEDY)
        return None
    if item.get("type", "function") != "function" and "function" not in item and "parameters" not in item:
        row.fault("tools", f"{place} has the type {item['type']!r:.40}, and only functions are read", TOOL_REMEDY)
        return None
    function = item.get("function", item)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        row.fault("tools", f"{place} has no function with a name", TOOL_REMEDY)
        return None
    return item if "function" in item else {"type": "function", "function": item}


def read_calls(row: Row) -> tuple[ToolCall, ...]:
    """The calls in a turn's ``tool_calls``, or in the older ``function_call``."""
    calls = row.value("tool_calls")
    older = row.fields.get("function_call")
    if calls and older:
        row.fault("tool call", "there are both 'tool_calls' and 'function_call'", "keep one of the two")
        return ()
    if older:
        calls = [older]
    calls = _parsed(row, calls or [], row.columns.told("tool_calls"), "tool call", CALL_REMEDY)
    if not isinstance(calls, list):
        if calls is not None:
            row.fault("tool call", f"'tool_calls' is {name_of_type(calls)}, not a list", CALL_REMEDY)
        return ()
    found = [read_call(row, item, f"tool_calls[{i}]") for i, item in enumerate(calls)]
    ids = [call.id for call in found if call is not None and call.id]
    if len(set(ids)) < len(ids):
        row.fault("tool call", "two tool calls have the same id", "give each call an id of its own")
    return tuple(call for call in found if call is not None)


def read_call(row: Row, item: Any, place: str) -> ToolCall | None:
    """One call; None after a fault."""
    if not isinstance(item, dict):
        row.fault("tool call", f"{place} is {name_of_type(item)}, not an object", CALL_REMEDY)
        return None
    if item.get("type", "function") != "function":
        message = f"{place} has the type {item['type']!r:.40}, and only functions are read"
        row.fault("tool call", message, CALL_REMEDY)
        return None
    function = item.get("function", item)
    function = function if isinstance(function, dict) else {}
    name, call_id = function.get("name"), item.get("id")
    if not isinstance(name, str) or not name.strip():
        row.fault("tool call", f"{place} has no name", CALL_REMEDY)
        return None
    if call_id is not None and not isinstance(call_id, str):
        row.fault("tool call", f"the id of {place} is {name_of_type(call_id)}, not a string", CALL_REMEDY)
        return None
    arguments = _parsed(row, function.get("arguments") or {}, f"the arguments of {place}", "tool call", CALL_REMEDY)
    if not isinstance(arguments, dict):
        if arguments is not None:
            message = f"the arguments of {place} are {name_of_type(arguments)}, not an object"
            row.fault("tool call", message, CALL_REMEDY)
        return None
    return ToolCall(name, arguments, call_id or "")


def _parsed(row: Row, value: Any, told: str, kind: str, remedy: str) -> Any:
    """``value``, parsed where it is JSON text; None after a fault."""
    if not isinstance(value, str):
        return value
    try:
        parsed = parse_json(value)
    except ValueError as error:
        row.fault(kind, f"{told}: {error}", remedy)
        return None
    if parsed is None:
        row.fault(kind, f"{told}: null", remedy)
    elif "\\u" in value and UNREADABLE.search(json.dumps(parsed, ensure_ascii=False)):
        row.fault(kind, f"{told}: a string holds a NUL character, or half of a surrogate pair", remedy)
        return None
    return parsed
