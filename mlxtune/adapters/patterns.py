"""Regular expressions that come from a stranger's file: they compile, and they end.

PEFT matches layers' names with Python's ``re``, which a pattern such as ``(a+)+b`` can keep busy for years. The package
`regex` takes the same patterns and a time limit.
"""

import functools
import re
from typing import Any

import regex

from mlxtune.errors import AdapterError

LONGEST = 20_000
"""Characters of a pattern; one with every layer's name written out is about half as long."""
SECONDS = 0.5
"""For one name; an ordinary pattern takes microseconds."""


def matches(pattern: str, name: str) -> bool:
    """Whether the whole of ``name`` fits ``pattern``. Raises: AdapterError, for one that is none or does not end."""
    return found(pattern, name) is not None


def found(pattern: str, name: str) -> Any:
    """The match of the whole of ``name`` with ``pattern``, or None. Raises: AdapterError, as `matches`."""
    if len(pattern) > LONGEST:
        raise AdapterError(f"a pattern has {len(pattern):,} characters: {pattern[:60]} ...", remedy="write it shorter")
    try:
        return _compiled(pattern).fullmatch(name, timeout=SECONDS)
    except TimeoutError as error:
        raise AdapterError(
            f"the pattern {pattern[:200]!r} takes too long to match {name}", remedy="write it without nested repeats"
        ) from error
    except (re.error, regex.error, OverflowError, RecursionError, MemoryError) as error:
        raise AdapterError(f"{pattern[:200]!r} is no regular expression: {error}", remedy="correct it") from error


@functools.cache  # those of re and regex hold about 500, fewer than a large network may have patterns
def _compiled(pattern: str) -> Any:
    """A pattern that PEFT can compile, too."""
    re.compile(pattern)
    return regex.compile(pattern)
