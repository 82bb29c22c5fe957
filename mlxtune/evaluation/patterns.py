"""Regular expressions on what a model says: they look anywhere in a text, and they end.

An owner's pattern is no threat, but a text that repeats itself may keep one such as ``(a+)+b`` busy for years. So
`regex` is used, which takes Python's patterns and a time limit; a match that takes longer is none. The price: whether
such a pair of pattern and text matches depends on the machine.
"""

import functools
from typing import Any

SECONDS = 1.0
"""For one text; an ordinary pattern takes microseconds."""


def has_group(pattern: str) -> bool:
    """Whether the pattern takes a part of what it matches."""
    return _compiled(pattern).groups > 0


def first_match(pattern: str, text: str) -> str | None:
    """What the first group takes in the first match, or all of the match where the pattern has no groups.

    Returns: "" for a group that took no part in the match; None if there is no match.
    """
    compiled = _compiled(pattern)
    try:
        match = compiled.search(text, timeout=SECONDS)
    except TimeoutError:
        return None
    return None if match is None else match.group(1 if compiled.groups else 0) or ""


@functools.cache  # a recipe has few
def _compiled(pattern: str) -> Any:
    import regex

    return regex.compile(pattern)
