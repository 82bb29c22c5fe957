"""The filters that a template may use; each takes time in proportion to what it reads and makes.

Those that could make much of little (replace, join, indent) say how much before they make it. Named as Jinja's own and
doing what those do, as far as texts, numbers and lists go.
"""

import json
from collections.abc import Callable
from typing import Any

import jinja2
from jinja2.runtime import Undefined

from mlxtune.models.sandbox_budget import size_of

WIDEST = 40
"""Spaces that `indent` may put before a line."""

MOST_DIGITS = 15


class RefusedError(Exception):
    """A template asks for what is not to be had; the sentence is for the user."""


def as_filter(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` as a Jinja filter, counted by what goes in and what comes out.

    It takes the context, which also keeps Jinja from working it out when a template is compiled, where nothing counts.
    """

    @jinja2.pass_context
    def counted(context: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        budget = context.environment.budget
        if isinstance(value, Undefined) and function is not _default:
            str(value)  # raises, and says what is undefined
        budget.spend(size_of([value, *args, *kwargs.values()], budget.left))
        if function is _replace:
            budget.spend(largest_of_replace(value, *args[:2]))
        elif function is _join and args:
            budget.spend(len(value) * len(_text(args[0])))
        result = function(value, *args, **kwargs)
        budget.spend(size_of(result, budget.left))
        return result

    return counted


def largest_of_replace(text: Any, old: Any = "", new: Any = "", *_: Any) -> int:
    """How long ``text`` can become with ``old`` replaced by ``new``."""
    text, old, new = _text(text), _text(old), _text(new)
    return text.count(old) * len(new)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise RefusedError("a filter or method for text got something else; `string` makes text of a number")
    return value


def _written(value: Any) -> str:
    if value is None or not isinstance(value, str | int | float):
        raise RefusedError("a filter for texts and numbers got a null, a list or an object")
    return str(value)


def _default(value: Any, other: Any = "", boolean: bool = False) -> Any:
    return other if isinstance(value, Undefined) or (boolean and not value) else value


def _replace(text: Any, old: str, new: str, count: int = -1) -> str:
    return _text(text).replace(old, new, count)


def _join(items: Any, by: str = "") -> str:
    return _text(by).join(_written(item) for item in items)


def _indent(text: str, width: int = 4, first: bool = False) -> str:
    if not 0 <= width <= WIDEST:
        raise RefusedError(f"indent puts 0 to {WIDEST} spaces before a line")
    lines = _text(text).split("\n")
    start = " " * width
    return "\n".join(start + line if line and (first or i) else line for i, line in enumerate(lines))


def _round(number: float, digits: int = 0) -> float:
    return round(number, max(0, min(digits, MOST_DIGITS)))


def _int(value: Any) -> int:
    return int(value)


FILTERS: dict[str, Callable[..., Any]] = {
    "trim": lambda text, characters=None: _text(text).strip(characters),
    "lower": lambda text: _text(text).lower(),
    "upper": lambda text: _text(text).upper(),
    "title": lambda text: _text(text).title(),
    "capitalize": lambda text: _text(text).capitalize(),
    "replace": _replace,
    "indent": _indent,
    "join": _join,
    "string": _written,
    "tojson": lambda value: json.dumps(value, ensure_ascii=False),
    "default": _default,
    "d": _default,
    "length": len,
    "count": len,
    "first": lambda items: items[0],
    "last": lambda items: items[-1],
    "list": list,
    "items": lambda mapping: [[key, value] for key, value in mapping.items()],
    "reverse": lambda items: items[::-1],
    "sort": sorted,
    "sum": sum,
    "min": min,
    "max": max,
    "int": _int,
    "float": float,
    "round": _round,
    "abs": abs,
}
"""By name."""
