"""The data of packaged recipes is what its card says."""

import json
import re
from itertools import combinations
from pathlib import Path

import pytest

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
FOLDER = RECIPES / "support-triage/data"
FIELDS = {
    "category": {"billing", "shipping", "returns", "defect", "how_to", "account"},
    "priority": {"high", "normal", "low"},
    "product": {"doorbell", "speaker", "thermostat", "vacuum", "lamp", None},
    "wants_human": {True, False},
}


def read(split: str) -> list[dict]:
    lines = (FOLDER / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = []
    for line in lines:
        system, user, assistant = json.loads(line)["messages"]
        assert (system["role"], user["role"], assistant["role"]) == ("system", "user", "assistant")
        rows.append(
            {"system": system["content"], "message": user["content"], "answer": json.loads(assistant["content"])}
        )
    return rows


SPLITS = {split: read(split) for split in ("train", "valid", "test")}
ROWS = [row for rows in SPLITS.values() for row in rows]


def trigrams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + 3]) for i in range(len(words) - 2)} or {tuple(words)}


def test_there_are_at_least_300_examples_100_of_them_for_the_test():
    assert len(ROWS) >= 300
    assert len(SPLITS["test"]) == 100


def test_no_two_messages_share_half_of_their_word_trigrams():
    found = [trigrams(row["message"]) for row in ROWS]
    for (i, a), (j, b) in combinations(enumerate(found), 2):
        assert len(a & b) / len(a | b) < 0.5, f"{ROWS[i]['message']!r} and {ROWS[j]['message']!r}"


def test_all_rows_have_the_same_instruction_which_names_every_field_and_allowed_value():
    (instruction,) = {row["system"] for row in ROWS}
    for field, values in FIELDS.items():
        assert f'"{field}"' in instruction
        for value in values:
            assert re.search(rf"\b{'null' if value is None else str(value).lower()}\b", instruction)
    assert '"order_id"' in instruction


@pytest.mark.parametrize("field", FIELDS)
def test_every_label_is_an_allowed_value(field):
    assert {row["answer"][field] for row in ROWS} == FIELDS[field]


def test_every_order_number_stands_in_its_message_and_every_message_has_at_most_one():
    for row in ROWS:
        numbers = re.findall(r"(?<!\d)\d{5}(?!\d)", row["message"])
        expected = [] if row["answer"]["order_id"] is None else [row["answer"]["order_id"].removeprefix("LK-")]
        assert sorted(set(numbers)) == expected, row["message"]
        assert list(row["answer"]) == ["category", "priority", "product", "order_id", "wants_human"]


def test_lengths_are_mixed():
    words = sorted(len(row["message"].split()) for row in ROWS)
    assert words[len(words) // 5] <= 20
    assert words[-len(words) // 5] >= 40
    assert words[-1] <= 50
