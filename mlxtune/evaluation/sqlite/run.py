"""SQL queries run on small tables, in a child process that can do nothing else (worker.py).

One process runs many, so that its start (some 30 ms) is paid once; it lives as long as this one.
"""

import atexit
import functools
import json
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxtune.child import Child, ChildDiedError, ChildTimeoutError

SECONDS = 20.0
"""For the tables and queries of one row; the count of steps ends a query long before."""
COMMAND = (sys.executable, "-I", "-S", str(Path(__file__).with_name("worker.py")))


@dataclass(frozen=True)
class Result:
    """What a query gives: its rows, or, where it does not run, why not."""

    rows: tuple[tuple[Any, ...], ...] | None
    error: str = ""


class SetupError(Exception):
    """The tables cannot be made."""


def run_queries(setup: Sequence[str | dict[str, Any]], queries: Sequence[str]) -> list[Result]:
    """The rows of each of ``queries``, on tables of their own.

    Args:
        setup: SQL texts, and objects of table names to lists of rows, each an object of columns to values.

    Raises: SetupError, with SQLite's sentence, if the tables cannot be made.
    """
    asked = json.dumps({"setup": list(setup), "queries": list(queries)}).encode()
    with _LOCK:
        try:
            answer = json.loads(_child().ask(asked))
        except ChildTimeoutError:
            answer = _apart(setup, queries, f"it was not done within {SECONDS:g} s")
        except ChildDiedError:
            answer = _apart(setup, queries, "SQLite crashed on it")
    if "error" in answer:
        raise SetupError(answer["error"])
    return [_result(found) for found in answer["results"]]


_LOCK = threading.Lock()
"""One line at a time is asked and answered."""


def _apart(setup: Sequence[Any], queries: Sequence[str], error: str) -> dict[str, Any]:
    """The answer where some query ended the child: each is asked alone, and only the one that does it again is blamed.

    Raises: SetupError, if the tables do it.
    """
    try:
        answers = json.loads(_child().ask(json.dumps({"setup": list(setup), "queries": []}).encode()))
        if "error" in answers:
            return answers
    except (ChildTimeoutError, ChildDiedError):
        return {"error": error}
    results = []
    for query in queries:
        try:
            asked = json.dumps({"setup": list(setup), "queries": [query]}).encode()
            results += json.loads(_child().ask(asked))["results"]
        except (ChildTimeoutError, ChildDiedError):
            results.append({"error": error})
    return {"results": results}


def _result(found: dict[str, Any]) -> Result:
    if "error" in found:
        return Result(None, found["error"])
    return Result(tuple(tuple(_value(value) for value in row) for row in found["rows"]))


def _value(value: Any) -> Any:
    return bytes.fromhex(value["blob"]) if isinstance(value, dict) else value


@functools.cache
def _child() -> Child:
    child = Child(COMMAND, seconds=SECONDS)
    atexit.register(child.close)
    return child
