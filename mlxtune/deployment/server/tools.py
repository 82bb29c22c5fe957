"""OpenAI's ``tools`` and ``tool_choice``: what a request may offer, calls that have to come, and calls as they come.

Calls are read from an answer's text by mlx-lm's parser of the family, or, where a call is a bare JSON object, as one. A
call that has to come is written by a grammar. Where a call may come but need not, its arguments are what the model
makes of them, ``strict`` or not: a grammar from a place in the middle of an answer on is not made. The price of reading
calls from text is that an answer which spells a call's marks out for the reader is taken for a call. Knows nothing of
HTTP.
"""

import json
import re
import secrets
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlxtune.data.example import ToolCall
from mlxtune.deployment.server.errors import ApiError
from mlxtune.deployment.server.tool_syntax import CALL, TOOL, CallSyntax, call_syntax, shows_tools, special_names
from mlxtune.errors import UsageError
from mlxtune.inference.constrain import Grammars, GrammarState, json_part
from mlxtune.inference.schema_limits import check_schemas
from mlxtune.json_text import name_of_type

MOST_TOOLS = 128
NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
"""Of a function: OpenAI's, and dots, which other servers' tools have."""
MOST_CALLS = 16
"""Calls in an answer that has to have some."""
NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}
LETTERS = string.ascii_letters + string.digits
ID_LENGTH = len(CALL.id)
"""Nine letters and digits: Mistral's templates take no other ids."""

Read = tuple[str, list[ToolCall]]
"""What of an answer is content, and the calls that are whole."""


def check_tools(tools: Sequence[Any], tokenizer: Any) -> tuple[dict[str, Any], ...]:
    """The functions that a request offers, in the form that chat templates take them: without ``strict``.

    Raises: ApiError, naming the tool that is wrong, or where the model's template has no place for tools.
    """
    if not tools:
        return ()
    if len(tools) > MOST_TOOLS:
        raise _wrong(f"there are {len(tools)} tools; at most {MOST_TOOLS} are taken")
    found = tuple(_checked(tool, f"tools[{i}]") for i, tool in enumerate(tools))
    names = [tool["function"]["name"] for tool in found]
    if twice := next((name for i, name in enumerate(names) if name in names[:i]), None):
        raise _wrong(f"two tools are called {twice}; give each a name of its own")
    said = None
    if not tokenizer.has_chat_template or not shows_tools(tokenizer):
        said = "this model cannot be told of tools: its chat template has no place for them; leave tools out"
    elif not tokenizer.has_tool_calling and call_syntax(tokenizer) is None:
        said = "this model's calls cannot be read: its chat template writes none in a form that is known"
    if said is not None:
        raise ApiError(400, said, param="tools", code="unsupported_parameter")
    return found


def _checked(tool: Any, place: str) -> dict[str, Any]:
    """One tool. Raises: ApiError."""
    if not isinstance(tool, Mapping):
        raise _wrong(f"{place} is {name_of_type(tool)}, not an object")
    function = tool.get("function")
    if tool.get("type") != "function" or not isinstance(function, Mapping):
        raise _wrong(f'{place} is not {{"type": "function", "function": {{...}}}}; there are no other tools here')
    name = function.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise _wrong(f"{place}.function.name is not 1 to 64 of letters, digits, '_', '-' and '.'")
    for key, kind, told in (("description", str, "a string"), ("parameters", Mapping, "a JSON schema, an object")):
        if function.get(key) is not None and not isinstance(function[key], kind):
            raise _wrong(f"{place}.function.{key} is {name_of_type(function[key])}, not {told}")
    parameters = function.get("parameters")
    if parameters and parameters.get("type", "object") != "object":
        raise _wrong(f"{place}.function.parameters is not the schema of an object: a call's arguments are one")
    kept = {key: value for key, value in function.items() if key != "strict" and value is not None}
    return {"type": "function", "function": kept}


def _wrong(said: str) -> ApiError:
    return ApiError(400, said, param="tools", code="invalid_value")


def tool_constraint(
    grammars: Grammars,
    tokenizer: Any,
    tools: Sequence[Mapping[str, Any]],
    choice: str | Mapping[str, Any] | None,
    *,
    parallel: bool = True,
) -> GrammarState | None:
    """What an answer follows that has to call: some of ``tools`` for ``required``, once for a named one.

    None for ``none``, ``auto`` and no choice: the answer is free. Arguments follow the function's schema.

    Args:
        tools: what `check_tools` gave.
        parallel: ``parallel_tool_calls``: whether ``required`` may call more than once.

    Raises: ApiError, naming ``tool_choice``, for a choice that is none or a model that does not write calls as a name
        and JSON; naming ``tools``, for a schema that cannot be followed.
    """
    if choice is None or choice in ("none", "auto"):
        return None
    chosen = _chosen(tools, choice)
    syntax = call_syntax(tokenizer)
    if syntax is None or not _reads_back(tokenizer, syntax):
        raise ApiError(
            400,
            "this model cannot be made to call a function: it does not write calls as JSON; use tool_choice auto",
            param="tool_choice",
            code="unsupported_parameter",
        )
    schemas = {tool["function"]["name"]: _schema(tool["function"]) for tool in chosen}
    for name, schema in schemas.items():
        try:
            grammars.json_schema(schema)  # alone, so that an error is about this one
        except UsageError as error:
            raise _wrong(f"the parameters of {name}: {error.message}; {error.remedy}") from error
    most = MOST_CALLS if choice == "required" and parallel else 1
    try:
        check_schemas(list(schemas.values()))
        return grammars.lark(_grammar(syntax, schemas, special_names(tokenizer), most))
    except UsageError as error:
        raise _wrong(f"the tools together: {error.message}; {error.remedy}") from error


def _schema(function: Mapping[str, Any]) -> dict[str, Any]:
    """What a call's arguments follow."""
    parameters = function.get("parameters")
    return {"type": "object", **parameters} if parameters else NO_ARGUMENTS


def _chosen(tools: Sequence[Mapping[str, Any]], choice: str | Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The tools that may be called. Raises: ApiError, naming ``tool_choice``."""
    if not tools:
        raise ApiError(400, "tool_choice asks for a call, and there are no tools", param="tool_choice")
    if choice == "required":
        return tools
    function = choice.get("function") if isinstance(choice, Mapping) and choice.get("type") == "function" else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        said = 'tool_choice is not none, auto, required or {"type": "function", "function": {"name": ...}}'
        raise ApiError(400, said, param="tool_choice", code="invalid_value")
    named = [tool for tool in tools if tool["function"]["name"] == function["name"]]
    if not named:
        names = ", ".join(tool["function"]["name"] for tool in tools)
        said = f"tool_choice names {function['name']!r:.80}, and the tools are: {names}"
        raise ApiError(400, said, param="tool_choice", code="invalid_value")
    return named


def _reads_back(tokenizer: Any, syntax: CallSyntax) -> bool:
    """Whether a call so written is read as one."""
    stream = ToolStream(tokenizer, (TOOL,))
    given, finished = stream.add(syntax.written()), stream.finish()
    found = [(call.name, call.arguments) for call in given[1] + finished[1]]
    return found == [(CALL.name, CALL.arguments)] and not given[0] + finished[0]


def _grammar(
    syntax: CallSyntax, schemas: Mapping[str, Mapping[str, Any]], special: Mapping[int, str], most: int
) -> str:
    """A Lark grammar of one to ``most`` calls."""
    rules = [
        f"call{i}: {_terms(name + syntax.between, special)} {json_part(schema)}"
        for i, (name, schema) in enumerate(schemas.items())
    ]
    more = (
        "" if syntax.separator is None or most == 1 else f" ({_terms(syntax.separator, special)} call){{0,{most - 1}}}"
    )
    start = f"start: {_terms(syntax.before, special)} call{more} {_terms(syntax.after, special)}"
    return "\n".join([start, f"call: {' | '.join(f'call{i}' for i in range(len(schemas)))}", *rules]) + "\n"


def _terms(text: str, special: Mapping[int, str]) -> str:
    """``text`` in Lark: special tokens by number, since no letters spell them; any id for the trial's."""
    terms = {re.escape(name): f"<[{i}]>" for i, name in special.items()}
    terms[re.escape(CALL.id)] = f"/[A-Za-z0-9]{{{ID_LENGTH}}}/"
    parts = re.split(f"({'|'.join(sorted(terms, key=len, reverse=True))})", text)
    return " ".join(terms.get(re.escape(part)) or json.dumps(part, ensure_ascii=False) for part in parts if part)


def new_id() -> str:
    """An id for a call that the model gave none."""
    return "".join(secrets.choice(LETTERS) for _ in range(ID_LENGTH))


class ToolStream:
    """An answer's text, as it comes, into content and calls.

    What may be the beginning of a call is held back; what turns out to be none is content. White space before and after
    calls is dropped.

    Args:
        tools: what `check_tools` gave: some families' parsers look up what kind of value an argument is.
    """

    def __init__(
        self, tokenizer: Any, tools: Sequence[Mapping[str, Any]], *, new_id: Callable[[], str] = new_id
    ) -> None:
        self._tools = list(tools)
        self._new_id = new_id
        self._parse: Callable[[str, Any], Any] | None = tokenizer.tool_parser
        self._start, self._end = tokenizer.tool_call_start or "", tokenizer.tool_call_end or ""
        self._bare_key: str | None = None
        if not tokenizer.has_tool_calling and (syntax := call_syntax(tokenizer)) is not None:
            self._start, self._bare_key = "{", syntax.arguments_key
            self._parse = self._parse_bare
        self._held = ""  # in a call: its text so far; else: what may begin one
        self._searched = 0  # so far the call's text has no end
        self._space = ""  # white space that is content only if more content follows
        self._in_call = self._has_said = self._has_called = False

    def add(self, text: str) -> Read:
        """What is known of the answer now that ``text`` has come."""
        self._held += text
        content: list[str] = []
        calls: list[ToolCall] = []
        while self._step(content, calls):
            pass
        return "".join(content), calls

    def finish(self) -> Read:
        """What is left. A call that the answer's end cut short is content, unless it can be read without its mark."""
        content: list[str] = []
        calls: list[ToolCall] = []
        if self._in_call:
            self._close(self._held, "", content, calls)
        else:
            content.append(self._said(self._held))
        if not self._has_called:
            content.append(self._space)
        self._held = self._space = ""
        return "".join(content), calls

    def _step(self, content: list[str], calls: list[ToolCall]) -> bool:
        """Pass the next mark. False where there is none in what is held."""
        if not self._in_call:
            at = self._begins()
            content.append(self._said(self._held[: self._free() if at is None else at]))
            if at is None:
                self._held = self._held[self._free() :]
                return False
            self._held, self._in_call, self._searched = self._held[at + len(self._start) :], True, 0
        at = self._held.find(self._end, self._searched) if self._end else -1
        if at < 0:
            self._searched = max(0, len(self._held) - len(self._end) + 1)
            return False
        call, self._held = self._held[:at], self._held[at + len(self._end) :]
        self._close(call, self._end, content, calls)
        return True

    def _begins(self) -> int | None:
        """Where a call begins in what is held; a bare one only at the answer's beginning."""
        if self._parse is None or (self._bare_key is not None and (self._has_said or self._held.strip()[:1] != "{")):
            return None
        at = self._held.find(self._start)
        return None if at < 0 else at

    def _free(self) -> int:
        """How much of what is held cannot begin a call."""
        if self._parse is None:
            return len(self._held)
        most = min(len(self._start) - 1, len(self._held))
        kept = next((count for count in range(most, 0, -1) if self._held.endswith(self._start[:count])), 0)
        return len(self._held) - kept

    def _said(self, text: str) -> str:
        """``text`` as content, as far as it can be given out."""
        self._space += text
        if not self._space.strip() and (self._has_called or not self._has_said):
            return ""
        self._has_said, given, self._space = True, self._space, ""
        return given

    def _close(self, text: str, end: str, content: list[str], calls: list[ToolCall]) -> None:
        """Read a call's text; what is none is content."""
        self._in_call = False
        found = self._read(text)
        if found is None:
            content.append(self._said(self._start + text + end))
            return
        self._has_called, self._space = True, ""
        calls += found

    def _read(self, text: str) -> list[ToolCall] | None:
        """The calls that the text of one says; None where it says none."""
        try:
            parsed = self._parse(text, self._tools) if self._parse is not None else None
        except Exception:  # noqa: BLE001 - a parser of text that a network made up fails in any way
            return None
        found = [self._call(one) for one in (parsed if isinstance(parsed, list) else [parsed])]
        return None if not found or None in found else [call for call in found if call is not None]

    def _call(self, parsed: Any) -> ToolCall | None:
        if not isinstance(parsed, Mapping):
            return None
        name, arguments, own_id = parsed.get("name"), parsed.get("arguments"), parsed.get("id")
        try:
            arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
            json.dumps(arguments, allow_nan=False)
        except (ValueError, TypeError, RecursionError):
            return None
        if not isinstance(name, str) or not name or not isinstance(arguments, dict):
            return None
        return ToolCall(name, arguments, own_id if isinstance(own_id, str) and own_id else self._new_id())

    def _parse_bare(self, text: str, tools: Sequence[Mapping[str, Any]]) -> Any:
        """A call that is an answer's one JSON object, with nothing in it but a tool's name and its arguments."""
        found = json.loads("{" + text)
        if found.keys() != {"name", self._bare_key} or found["name"] not in {one["function"]["name"] for one in tools}:
            return None
        return {"name": found["name"], "arguments": found[self._bare_key]}
