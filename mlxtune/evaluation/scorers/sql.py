"""Does the query give the rows that the reference's gives, on tables that the row brings with it?

Execution counts, not wording: aliases, the order of a join and names of columns mean nothing. Both queries run in
SQLite, in memory, reading alone, within limits (`evaluation/sqlite/`). The price: two queries that mean something else
may give the same rows on few contents, so rows should bring enough of them, and empty tables prove little.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mlxtune.errors import DataError
from mlxtune.evaluation.sqlite.run import SetupError, run_queries

PRIMARY = "sql"

DIGITS = 12
"""Of a fraction that count: sums of the same numbers in another order differ after the 15th or so."""
APART = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/""", re.DOTALL)
"""Texts, names and remarks of a query."""
ORDER_BY = re.compile(r"\border\s+by\b", re.IGNORECASE)
SHOWN = 80
"""Characters of what SQLite says."""


def reads(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns that `score` gets as ``row``."""
    return tuple(settings["setup"])


def score(
    output: str,
    reference: str,
    *,
    setup: Sequence[str],
    row_order: str,
    row: Mapping[str, Any],
    where: object = None,
) -> dict[str, float]:
    """Score one query.

    Args:
        setup: the columns of ``row`` that hold the tables: SQL texts, or objects of table names to lists of rows.
        row_order: whether rows have to come in the reference's order: ``matters``, ``ignored``, or ``auto``, where the
            reference ends with ORDER BY.

    Returns: ``sql``, whether it gives the same rows, and ``sql_runs``, whether it runs; 0 or 1.
    Raises: DataError, if a column is missing, the tables cannot be made, or the reference does not run.
    """
    parts = [_part(row, name, where) for name in setup]
    try:
        expected, found = run_queries(parts, [reference.strip(), output.strip()])
    except SetupError as error:
        raise DataError(
            f"the row's tables cannot be made: {str(error)[:SHOWN]}", where=where, remedy="correct the row's setup"
        ) from error
    if expected.rows is None:
        raise DataError(
            f"the reference does not run: {expected.error[:SHOWN]}", where=where, remedy="correct the row, or its setup"
        )
    ordered = row_order == "matters" or (row_order == "auto" and is_ordered(reference))
    right = found.rows is not None and _plain(found.rows, ordered=ordered) == _plain(expected.rows, ordered=ordered)
    return {PRIMARY: float(right), "sql_runs": float(found.rows is not None)}


def is_ordered(query: str) -> bool:
    """Whether a query says in which order its rows come: ORDER BY stands outside of brackets."""
    text, depth = APART.sub(" ", query), 0
    outside = []
    for character in text:
        depth += (character == "(") - (character == ")")
        outside.append(character if depth == 0 else " ")
    return ORDER_BY.search("".join(outside)) is not None


def _part(row: Mapping[str, Any], name: str, where: object) -> str | dict[str, Any]:
    part = row.get(name)
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and all(_is_table(rows) for rows in part.values()):
        return part
    what = "has no column" if part is None else "has neither SQL nor tables in the column"
    remedy = "name the columns that hold the tables in the task's setup"
    raise DataError(f"the row {what} {name!r}", where=where, remedy=remedy)


def _is_table(rows: Any) -> bool:
    """Whether it is a list of objects, at least one: of none nobody knows the columns."""
    return isinstance(rows, list) and bool(rows) and all(isinstance(row, dict) and row for row in rows)


def _plain(rows: Sequence[Sequence[Any]], *, ordered: bool) -> list[tuple[tuple[str, Any], ...]]:
    plain = [tuple(_value(value) for value in row) for row in rows]
    return plain if ordered else sorted(plain)


def _value(value: Any) -> tuple[str, Any]:
    """What is compared, its kind first: 1 and 1.0 are one number, "1" is none; kinds can be sorted together."""
    if isinstance(value, int | float) and math.isfinite(value):
        is_fraction = isinstance(value, float) and not value.is_integer()
        return "number", float(f"{value:.{DIGITS - 1}e}") if is_fraction else value
    return type(value).__name__, "" if value is None else value
