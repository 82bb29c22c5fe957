"""A small part of Go's text/template, the part that our Modelfiles are written in: enough to see what one renders.

Text, ``if`` with ``else``, ``range $i, $m := X``, assignments, fields, the functions ``and``, ``not``, ``eq``, ``len``
and ``slice``, and strings and whole numbers. No ``{{-``, which cuts white space off: what is written here needs none.

Source: https://pkg.go.dev/text/template
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

ACTION = re.compile(r'\{\{ ((?:"(?:[^"\\]|\\.)*"|[^"])*?) \}\}', re.DOTALL)
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\(|\)|[^\s()]+')
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "and": lambda *values: next((value for value in values if not value), values[-1]),
    "not": lambda value: not value,
    "eq": lambda left, right: left == right,
    "len": len,
    "slice": lambda values, start: values[start:],
}

Scope = dict[str, Any]
"""Variables by name; ``.`` is what fields are of."""


def quoted(text: str) -> str:
    """Text as it stands in a template, where nothing of it is an action, nor makes one with what follows it."""
    is_plain = "{{" not in text and not text.endswith("{")
    return text if is_plain else f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}"


def render(template: str, data: Mapping[str, Any]) -> str:
    """What Go's text/template makes of ``template`` and ``data``. Raises: ValueError, for what is no part of ours."""
    parts = ACTION.split(template)
    *before, last = parts[0::2]
    if any("{{" in f"{text}{{" for text in before) or "{{" in last:
        raise ValueError("a brace stands before an action, or begins one that is none of ours")
    output: list[str] = []
    end = _run(parts, 0, {"$": data, ".": data}, output)
    if end != len(parts):
        raise ValueError(f"{{{{ {parts[end]} }}}} has no beginning")
    return "".join(output)


def _run(parts: Sequence[str], at: int, scope: Scope, output: list[str]) -> int:
    """Run a block: texts are at even places, actions at odd ones. Returns: the place of the action that ends it."""
    while at < len(parts):
        part = parts[at]
        if at % 2 == 0:
            output.append(part)
        elif part == "end" or part.startswith("else"):
            return at
        elif part.startswith("if "):
            at = _if(parts, at, scope, output)
        elif part.startswith("range "):
            at = _range(parts, at, scope, output)
        elif " := " in part:
            name, _, value = part.partition(" := ")
            scope[name] = _evaluate(value, scope)
        else:
            value = _evaluate(part, scope)
            output.append(value if isinstance(value, str) else str(value).lower())
        at += 1
    return at


def _if(parts: Sequence[str], at: int, scope: Scope, output: list[str]) -> int:
    """Returns: the place of its ``end``. Branches that are not taken are run too, into nothing, to find their end."""
    is_done = False
    while parts[at] != "end":
        condition = parts[at].removeprefix("else").strip().removeprefix("if").strip()
        is_taken = not is_done and (not condition or bool(_evaluate(condition, scope)))
        is_done = is_done or is_taken
        at = _run(parts, at + 1, dict(scope), output if is_taken else [])
        if at >= len(parts):
            raise ValueError("an if has no end")
    return at


def _range(parts: Sequence[str], at: int, scope: Scope, output: list[str]) -> int:
    names, _, values = parts[at].removeprefix("range ").partition(" := ")
    index, element = names.split(", ")
    end = _run(parts, at + 1, {**scope, index: 0, element: {}, ".": {}}, [])
    for i, value in enumerate(_evaluate(values, scope)):
        _run(parts, at + 1, {**scope, index: i, element: value, ".": value}, output)
    return end


def _evaluate(expression: str, scope: Scope) -> Any:
    tokens = iter(TOKEN.findall(expression))
    return _call(tokens, scope)


def _call(tokens: Iterator[str], scope: Scope) -> Any:
    """A function with its arguments, or one value, up to the closing bracket or the end."""
    first = next(tokens)
    values = [] if first in FUNCTIONS else [_value(first, tokens, scope)]
    for word in tokens:
        if word == ")":
            break
        values.append(_value(word, tokens, scope))
    if first in FUNCTIONS:
        return FUNCTIONS[first](*values)
    (value,) = values
    return value


def _value(word: str, tokens: Iterator[str], scope: Scope) -> Any:
    if word == "(":
        return _call(tokens, scope)
    if word.startswith('"'):
        return json.loads(word)
    if word.isdigit():
        return int(word)
    name, _, key = word.partition(".")
    value = scope[name or "."]
    # As with ollama's missingkey=zero: what is not there is empty.
    return value.get(key, "") if key else value
