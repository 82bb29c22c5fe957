"""The scorer sql: rows count and wording does not; and what hostile queries come to."""

import sqlite3
import sys

import pytest

from mlxtune.child import Child
from mlxtune.errors import DataError
from mlxtune.evaluation.scorers import sql
from mlxtune.evaluation.sqlite import run
from mlxtune.evaluation.sqlite.run import SetupError, run_queries

TABLES = """
CREATE TABLE player (name TEXT, team TEXT, points INTEGER);
INSERT INTO player VALUES ('Ann', 'red', 3), ('Bea', 'blue', 5), ('Cal', 'red', 5), ('Dan', NULL, 2);
"""


def score(output, reference, *, setup=("tables",), row_order="auto", tables=TABLES, **row):
    return sql.score(output, reference, setup=setup, row_order=row_order, row={"tables": tables, **row}, where="r:1")


@pytest.mark.parametrize(
    ("output", "reference", "right", "runs"),
    [
        ("SELECT name FROM player WHERE team = 'red'", "select p.name as n from player p where p.team='red'", 1, 1),
        ("SELECT name FROM player;", "SELECT name FROM player ORDER BY points, name DESC", 0, 1),
        ("SELECT name FROM player", "SELECT name FROM player", 1, 1),
        ("SELECT name FROM player ORDER BY name DESC", "SELECT name FROM player", 1, 1),
        ("SELECT name FROM player LIMIT 3", "SELECT name FROM player", 0, 1),
        ("SELECT name, team FROM player", "SELECT name FROM player", 0, 1),
        ("SELECT 5", "SELECT max(points) FROM player", 1, 1),
        ("SELECT 5.0", "SELECT max(points) FROM player", 1, 1),
        ("SELECT '5'", "SELECT max(points) FROM player", 0, 1),
        ("SELECT NULL", "SELECT team FROM player WHERE name = 'Dan'", 1, 1),
        ("SELECT ''", "SELECT team FROM player WHERE name = 'Dan'", 0, 1),
        ("SELECT 0.3", "SELECT 0.1 + 0.2", 1, 1),
        ("SELECT x'00ff'", "SELECT x'00FF'", 1, 1),
        ("SELECT name FROM player WHERE 1 = 0", "SELECT name FROM player WHERE points > 99", 1, 1),
        ("SELECT height FROM player", "SELECT name FROM player", 0, 0),
        ("```sql\nSELECT name FROM player\n```", "SELECT name FROM player", 0, 0),
        ("", "SELECT name FROM player", 0, 0),
        ("I do not know", "SELECT name FROM player", 0, 0),
    ],
)
def test_a_query_is_right_where_it_gives_the_rows_of_the_reference(output, reference, right, runs):
    assert score(output, reference) == {"sql": right, "sql_runs": runs}


def test_the_rows_are_those_that_sqlite3_gives():
    queries = ["SELECT team, count(*), avg(points) FROM player GROUP BY team ORDER BY 2, 1", "SELECT * FROM player"]
    connection = sqlite3.connect(":memory:")
    connection.executescript(TABLES)
    expected = [tuple(connection.execute(query)) for query in queries]
    connection.close()
    assert [result.rows for result in run_queries([TABLES], queries)] == expected


@pytest.mark.parametrize(("row_order", "right"), [("auto", 0), ("matters", 0), ("ignored", 1)])
def test_the_order_of_rows_matters_where_the_reference_says_it(row_order, right):
    reference = "SELECT name FROM player ORDER BY name"
    assert score(f"{reference} DESC", reference, row_order=row_order)["sql"] == right


@pytest.mark.parametrize(
    ("query", "ordered"),
    [
        ("SELECT a FROM t ORDER\n BY a", True),
        ("SELECT a FROM (SELECT a FROM t ORDER BY a)", False),
        ("SELECT 'order by' FROM t -- order by", False),
        ('SELECT "order by" FROM t /* order by */', False),
        ("SELECT ')', a FROM t order by 1", True),
        ("SELECT border BY FROM t", False),
    ],
)
def test_an_order_is_asked_for_outside_of_brackets_and_texts(query, ordered):
    assert sql.is_ordered(query) is ordered


def test_tables_may_be_json_and_stand_in_several_columns():
    rows = {"player": [{"name": "Ann", "points": 3}, {"name": "Bea"}, {"name": 'Q"', "points": [1]}]}
    found = score(
        "SELECT count(*) FROM player, extra", "SELECT 6", setup=("tables", "more"), tables=rows,
        more="CREATE TABLE extra (a); INSERT INTO extra VALUES (1), (2)",
    )  # fmt: skip
    assert found["sql"] == 1
    assert run_queries([rows], ["SELECT points FROM player"])[0].rows == ((3,), (None,), ("[1]",))


@pytest.mark.parametrize(
    ("tables", "reference", "message"),
    [
        (None, "SELECT 1", "no column 'tables'"),
        (7, "SELECT 1", "neither SQL nor tables"),
        ({"t": []}, "SELECT 1", "neither SQL nor tables"),
        ("CREATE TABLE (", "SELECT 1", "cannot be made"),
        ("ATTACH 'x.db' AS x", "SELECT 1", "cannot be made"),
        (TABLES, "SELECT height FROM player", "does not run: no such column"),
        (TABLES, "DELETE FROM player", "does not run"),
    ],
)
def test_a_row_that_cannot_be_scored_is_an_error_with_its_place(tables, reference, message):
    with pytest.raises(DataError, match=message) as caught:
        score("", reference, tables=tables)
    assert caught.value.where == "r:1"


def test_a_dump_of_sqlite_makes_the_tables_as_it_is():
    connection = sqlite3.connect(":memory:")
    connection.executescript(TABLES)
    dump = "PRAGMA foreign_keys=OFF;\n" + "\n".join(connection.iterdump())
    connection.close()
    assert score("SELECT count(*) FROM player", "SELECT 4", tables=dump)["sql"] == 1


HOSTILE = {
    "attach": "ATTACH DATABASE '{path}' AS other",
    "attach in memory": "ATTACH DATABASE ':memory:' AS other",
    "vacuum into": "VACUUM INTO '{path}'",
    "pragma": "PRAGMA writable_schema = ON",
    "pragma that reads": "PRAGMA table_info(player)",
    "pragma as a table": "SELECT * FROM pragma_database_list",
    "write": "INSERT INTO player VALUES ('Eve', 'red', 9)",
    "write and return": "DELETE FROM player RETURNING name",
    "write through with": "WITH x AS (SELECT 1) UPDATE player SET points = 0",
    "schema": "UPDATE sqlite_master SET sql = ''",
    "create": "CREATE TABLE more (a)",
    "temporary": "CREATE TEMP TABLE more AS SELECT * FROM player",
    "virtual": "CREATE VIRTUAL TABLE more USING fts5(a)",
    "trigger": "CREATE TRIGGER t AFTER INSERT ON player BEGIN SELECT 1; END",
    "drop": "DROP TABLE player",
    "transaction": "BEGIN EXCLUSIVE",
    "two at once": "SELECT 1; DROP TABLE player",
    "extension": "SELECT load_extension('{path}')",
    "tokenizer": "SELECT fts3_tokenizer('simple')",
    "chance": "SELECT random()",
    "a file": "SELECT writefile('{path}', 'x')",
    "for ever": "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c) SELECT count(*) FROM c",
    "memory": "WITH RECURSIVE c(b) AS (SELECT zeroblob(1) UNION SELECT zeroblob(length(b) + 999) FROM c) "
    "SELECT count(*) FROM c",
    "large": "SELECT zeroblob(2000000000)",
    "large by and by": "WITH RECURSIVE c(t) AS (SELECT 'x' UNION ALL SELECT t || t FROM c) SELECT length(t) FROM c",
    "large columns": f"SELECT {', '.join(['zeroblob(900000)'] * 400)}",
    "many rows": "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c LIMIT 100000) SELECT i FROM c",
    "product": f"SELECT count(*) FROM {', '.join(f'player p{i}' for i in range(40))}",  # noqa: S608 - it is to be hostile
    "deep": "SELECT " + "(" * 5000 + "1" + ")" * 5000,
    "long": "SELECT '" + "x" * 200_000 + "'",
    "parameters": "SELECT ?",
    "nothing": ";",
    "half a letter": "SELECT '\ud800'",
    "a zero": "SELECT '\0'",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_query_is_wrong_and_changes_nothing(name, tmp_path):
    path = tmp_path / "taken.db"
    query = HOSTILE[name].replace("{path}", str(path))
    hostile, after = run_queries([TABLES], [query, "SELECT count(*), sum(points) FROM player"])
    assert hostile.rows is None
    assert hostile.error
    assert after.rows == ((4, 15),)
    assert list(tmp_path.iterdir()) == []


def test_a_pattern_that_takes_long_on_a_long_text_ends():
    table = {"t": [{"a": "a" * 100_000}]}
    found = run_queries([table], [f"SELECT a FROM t WHERE a LIKE '{'%a' * 60}b%'", "SELECT 1"])  # noqa: S608 - as above
    assert found[1].rows == ((1,),)


@pytest.mark.parametrize(
    "tables",
    [
        "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c) SELECT count(*) FROM c",
        "CREATE TABLE t AS WITH RECURSIVE c(b) AS (SELECT zeroblob(900000) UNION ALL SELECT b FROM c) SELECT b FROM c",
        "VACUUM INTO 'x.db'",
        "SELECT load_extension('x')",
        "CREATE TRIGGER t AFTER INSERT ON player BEGIN SELECT 1; END",
    ],
)
def test_tables_may_be_hostile_too(tables):
    with pytest.raises(SetupError):
        run_queries([tables], ["SELECT 1"])


def test_a_query_that_ends_the_process_is_blamed_alone(monkeypatch):
    dies = """
import json, os, sys
for line in sys.stdin:
    queries = json.loads(line)["queries"]
    if "DIE" in queries:
        os._exit(1)
    print(json.dumps({"results": [{"rows": [[1]]} for _ in queries]}), flush=True)
"""
    child = Child((sys.executable, "-I", "-S", "-c", dies), seconds=60)
    monkeypatch.setattr(run, "_child", lambda: child)
    found = run_queries([], ["SELECT 1", "DIE", "SELECT 1"])
    child.close()
    assert [result.rows for result in found] == [((1,),), None, ((1,),)]
    assert "crashed" in found[1].error
