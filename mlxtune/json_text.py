"""JSON text into plain values, more strictly than Python reads it.

Python takes NaN and Infinity, which other readers do not know, and of a key that stands twice in an object keeps the
last. Both are refused here, since each would be met much later as a wrong value. Knows nothing of what a text is for.
"""

import json
import sys
from typing import Any, NoReturn


def parse_json(text: str | bytes) -> Any:
    """The value that ``text`` says; bytes are UTF-8.

    Raises: ValueError, with a sentence for the user, if it is not UTF-8 or not JSON (RFC 8259), nested too deeply, or
        has an object with a key twice or a number of thousands of digits.
    """
    try:
        string = text.decode("utf-8") if isinstance(text, bytes) else text
        return STRICT.decode(string)
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise ValueError(f"not UTF-8: byte 0x{byte:02x} at position {error.start + 1}") from error
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise ValueError(f"not JSON: {error.msg} at {line}column {error.colno}") from error
    except ValueError as error:
        if sys.get_int_max_str_digits() and "integer string conversion" in str(error):
            raise ValueError(f"a number has more than {sys.get_int_max_str_digits():,} digits") from error
        raise
    except RecursionError as error:
        raise ValueError("not JSON that can be read: nested too deeply") from error


def name_of_type(value: Any) -> str:
    """A JSON value's kind in words, for messages: "a list", "null"."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    names = {dict: "an object", list: "a list", str: "a string", int: "a number", float: "a number"}
    return names[type(value)]


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return value


STRICT = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_object)
"""Decodes a text as `parse_json` does; what it raises is json's own, or a ValueError with a sentence."""
