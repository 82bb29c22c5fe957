"""What a chat template finds beside its chat: the functions that transformers gives it, harmless ones.

Knows Jinja's names for them; nothing of what a template may cost.
"""

import json
import re
from datetime import datetime
from typing import Any

import jinja2
from jinja2.exceptions import SecurityError
from jinja2.utils import Namespace


class PlainDict:
    """``dict``, and nothing else of Python's."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args, **kwargs)


class PublicNamespace(Namespace):
    """Jinja's, without names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args
        values = dict(*rest, **kwargs)
        for name in values:
            _refuse_private(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<Namespace>"  # without its values, which may hold each other many times over


def _refuse_private(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a chat template may not keep {name!r:.40} in a namespace")


def raise_exception(message: str) -> None:
    """By which a template refuses a chat. Raises: jinja2.TemplateError, always."""
    raise jinja2.TemplateError(message)


def strftime(now: datetime, form: str) -> str:
    """The date as a template wants it. Raises: SecurityError, for a width, which could be any number of spaces."""
    if re.search(r"%[^a-zA-Z%]*\d", form):
        raise SecurityError("a chat template may not write a date with a width")
    return now.strftime(form)


def to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """JSON as transformers writes it: without Jinja's escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
