"""The packaged recipes' data: every row is right by its own rule, and no test row is like one that was learned."""

import json
import re
import sqlite3
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import pytest

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
SPLITS = ("train", "valid", "test")
FOLDERS = sorted(file.parent for file in RECIPES.rglob("train.jsonl"))


def read(folder: Path, split: str) -> list[dict[str, Any]]:
    lines = (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def asked(row: dict[str, Any]) -> str:
    """What sets a row apart, whatever its form: of SQL the tables and the question, which is much alike elsewhere."""
    if "messages" in row:
        return row["messages"][-2]["content"]
    if "sql" in row:
        return f"{row['schema']} {row['question']}"
    return row.get("text") or row.get("abstract") or f"{row['prompt']} {row.get('completion') or row['chosen']}"


def trigrams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + 3]) for i in range(len(words) - 2)} or {tuple(words)}


def all_rows(name: str) -> list[dict[str, Any]]:
    return [row for split in SPLITS for row in read(RECIPES / name / "data", split)]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(RECIPES)))
def test_no_row_of_test_shares_half_of_its_word_trigrams_with_one_of_train_or_valid(folder: Path):
    learned = [trigrams(asked(row)) for split in ("train", "valid") for row in read(folder, split)]
    tested = [trigrams(asked(row)) for row in read(folder, "test")]
    for one, other in product(tested, learned):
        assert len(one & other) / len(one | other) < 0.5, (one, other)


@pytest.mark.parametrize(
    ("name", "column", "labels"),
    [
        ("sentiment", "label", {"positive", "negative"}),
        ("medical-answers", "answer", {"yes", "no", "maybe"}),
        (
            "legal-clauses",
            "label",
            {"liability", "change", "termination", "removal", "arbitration", "court", "law", "consent", "none"},
        ),
    ],
)
def test_every_label_is_in_every_split_and_no_split_favours_one(name: str, column: str, labels: set[str]):
    for split in SPLITS:
        counts = Counter(row[column] for row in read(RECIPES / name / "data", split))
        assert counts.keys() == labels
        others = [count for label, count in counts.items() if label != "none"]
        assert max(others) == min(others)


def test_every_reference_query_runs_on_its_own_tables_and_finds_something():
    for row in all_rows("text-to-sql"):
        with sqlite3.connect(":memory:") as database:
            database.executescript(row["schema"] + row["contents"])
            found = database.execute(row["sql"]).fetchall()
        database.close()
        assert found, row["question"]
        assert found[0][0] is not None, row["question"]


def test_no_table_of_the_test_was_seen_in_training():
    schemas = {split: {row["schema"] for row in read(RECIPES / "text-to-sql/data", split)} for split in SPLITS}
    assert not schemas["test"] & (schemas["train"] | schemas["valid"])


def test_every_text_of_the_writer_ends_as_he_ends():
    folder = RECIPES / "writing-style/data"
    texts = [row["text"] for split in SPLITS for row in read(folder / "texts", split)]
    letters = [row["completion"] for split in SPLITS for row in read(folder / "letters", split)]
    assert all(text.endswith("Mind the gate.") for text in texts + letters)


def test_every_answer_of_json_reward_has_the_keys_that_were_asked_for_in_their_order():
    for row in all_rows("json-reward"):
        *_, question, answer = (message["content"] for message in row["messages"])
        assert list(json.loads(answer)) == question.partition("\nKeys: ")[2].split(", "), question


def test_the_worked_examples_of_json_reward_are_rows_of_its_training():
    folder = RECIPES / "json-reward/data"
    assert read(folder, "worked") == read(folder, "train")[:16]
