"""The child process that runs strangers' SQL: a line of JSON on standard input, tables and queries, a line back.

Run as a file of its own (``python -I -S worker.py``), with nothing but the standard library, so that it starts in
30 ms. What a query is kept from: every file, since the database is in memory, none may be attached and the process may
write none; changing what it reads, since the authorizer knows nothing but reading; running for ever, since steps are
counted, and so the same query always comes to the same end; and filling the memory, by SQLite's own limit, which every
system obeys. One step may still be long (a pattern against a long text): lengths are limited, and the parent waits only
so long.
"""

import contextlib
import json
import resource
import sqlite3
import sys
from collections.abc import Callable
from typing import Any

STEPS = 20_000_000
"""Of SQLite's machine, for one statement: about a second."""
STEPS_AT_ONCE = 10_000
ROWS = 10_000
"""Of a result."""
RESULT_CHARACTERS = 4_000_000
"""Of all its values."""
LENGTH = 1_000_000
"""Bytes of a value, and of a row."""
SETUP_LENGTH = 20_000_000
"""Bytes of the SQL that makes the tables."""
MEMORY_BYTES = 128 << 20
"""Of SQLite's; the tables are in it."""
CPU_SECONDS = 30
"""Of one line's work: the end of a process whose parent was killed while it hung."""
LIMITS = {
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_COLUMN: 500,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 100,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 200,
    sqlite3.SQLITE_LIMIT_FUNCTION_ARG: 100,
    sqlite3.SQLITE_LIMIT_LENGTH: LENGTH,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 200,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 100_000,
    sqlite3.SQLITE_LIMIT_VDBE_OP: 100_000,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
"""While a query runs."""

READING = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE})
FORBIDDEN_FUNCTIONS = frozenset(
    {"load_extension", "fts3_tokenizer", "readfile", "writefile", "edit", "random", "randomblob"}
)
"""Those that reach outside, and those that say something else each time."""
MAKING = READING | {
    sqlite3.SQLITE_ALTER_TABLE,
    sqlite3.SQLITE_CREATE_INDEX,
    sqlite3.SQLITE_CREATE_TABLE,
    sqlite3.SQLITE_CREATE_VIEW,
    sqlite3.SQLITE_DELETE,
    sqlite3.SQLITE_DROP_TABLE,
    sqlite3.SQLITE_DROP_VIEW,
    sqlite3.SQLITE_INSERT,
    sqlite3.SQLITE_REINDEX,
    sqlite3.SQLITE_TRANSACTION,
    sqlite3.SQLITE_UPDATE,
}
"""What may be done to make the tables."""


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """``{"results": [...]}``, for each query its rows or an error; or ``{"error": ...}``, of the tables."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    with contextlib.closing(connection):
        connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, SETUP_LENGTH)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.set_authorizer(may_make)
        error = attempt(connection, lambda: make_tables(connection, asked["setup"]))
        if isinstance(error, dict):
            return error
        if connection.in_transaction:
            connection.execute("COMMIT")
        connection.set_authorizer(may_read)
        for name, limit in LIMITS.items():
            connection.setlimit(name, limit)
        queries = asked["queries"]
        return {"results": [attempt(connection, lambda query=query: rows_of(connection, query)) for query in queries]}


def may_make(action: int, _first: str | None, second: str | None, *_: str | None) -> int:
    """SQLite's question whether a statement that makes tables may do something."""
    if action == sqlite3.SQLITE_PRAGMA:  # dumps begin with some; they are passed over
        return sqlite3.SQLITE_IGNORE
    return sqlite3.SQLITE_OK if action in MAKING or may_call(action, second) else sqlite3.SQLITE_DENY


def may_read(action: int, _first: str | None, second: str | None, *_: str | None) -> int:
    """SQLite's question whether a query may do something."""
    return sqlite3.SQLITE_OK if action in READING or may_call(action, second) else sqlite3.SQLITE_DENY


def may_call(action: int, name: str | None) -> bool:
    return action == sqlite3.SQLITE_FUNCTION and (name or "").lower() not in FORBIDDEN_FUNCTIONS


def make_tables(connection: sqlite3.Connection, setup: list[Any]) -> None:
    """Args: setup: SQL texts, and objects of table names to lists of rows, each an object."""
    for part in setup:
        if isinstance(part, str):
            connection.executescript(part)
            continue
        for table, rows in part.items():
            names = list(dict.fromkeys(name for row in rows for name in row))
            columns = ", ".join(map(quoted, names))
            connection.execute(f"CREATE TABLE {quoted(table)} ({columns})")
            marks = ", ".join("?" * len(names))
            values = [[as_value(row.get(name)) for name in names] for row in rows]
            connection.executemany(f"INSERT INTO {quoted(table)} VALUES ({marks})", values)  # noqa: S608 - names are quoted


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def as_value(value: Any) -> Any:
    """What is no SQL value is its JSON text."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def rows_of(connection: sqlite3.Connection, query: str) -> dict[str, Any]:
    """The rows of one query, within the limits."""
    cursor = connection.execute(query)
    if cursor.description is None:
        return {"error": "it is no query"}
    rows: list[list[Any]] = []
    characters = 0
    for row in cursor:
        plain = [{"blob": value.hex()} if isinstance(value, bytes) else value for value in row]
        characters += sum(len(str(value)) for value in plain)
        if len(rows) == ROWS or characters > RESULT_CHARACTERS:
            return {"error": "it gives too many rows"}
        rows.append(plain)
    return {"rows": rows}


def attempt(connection: sqlite3.Connection, work: Callable[[], Any]) -> Any:
    """What ``work`` gives, or ``{"error": ...}``."""
    left = [STEPS // STEPS_AT_ONCE]

    def count_steps() -> bool:
        left[0] -= 1
        return left[0] < 0

    connection.set_progress_handler(count_steps, STEPS_AT_ONCE)
    try:
        return work()
    except MemoryError:
        return {"error": "it needs too much memory"}
    # sqlite3.Warning: several statements, before Python 3.12; the others are of values that SQLite has no place for
    except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
        return {"error": "it takes too long" if left[0] < 0 else str(error)[:200] or type(error).__name__}


def limit() -> None:
    """Bound what this process may take."""
    for name, value in (("RLIMIT_CORE", 0), ("RLIMIT_FSIZE", 0), ("RLIMIT_AS", 8 * MEMORY_BYTES)):
        with contextlib.suppress(ValueError, OSError):  # a stricter limit is there already, or macOS knows none
            resource.setrlimit(getattr(resource, name), (value, value))
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"PRAGMA hard_heap_limit = {MEMORY_BYTES}")


def limit_cpu() -> None:
    """Give this process `CPU_SECONDS` from here on."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (int(usage.ru_utime + usage.ru_stime) + CPU_SECONDS, hard))


def main() -> None:
    """Answer each line of standard input until it ends."""
    limit()
    for line in sys.stdin:
        limit_cpu()
        sys.stdout.write(json.dumps(answer(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
