"""Rows that are like another are counted once for each split that they meet; those that say the same are not."""

from mlxtune.data.example import Example, Message
from mlxtune.data.likeness.alike import Alike, find_alike
from mlxtune.data.likeness.duplicates import RowIndex

QUESTION = "why was I charged twice for the same coffee at the station this morning"
OTHERS = ("how do I close my account", "where is the nearest branch in town", "which cards can be used abroad for free")


def answering(question, answer, where):
    return Example("prompt_completion", where, messages=(Message("user", question), Message("assistant", answer)))


def test_alike_rows_are_counted_by_split_and_exact_ones_left_out():
    rows = {
        "train": [QUESTION, *OTHERS, f"{QUESTION} please", QUESTION],
        "test": [f"so {QUESTION}", QUESTION.upper(), OTHERS[0]],
    }
    with RowIndex() as index:
        for number, (split, questions) in enumerate(rows.items()):
            for line, question in enumerate(questions, start=1):
                index.add(answering(question, "charge", f"{split}:{line}"), number)
        index.finish()
        found = find_alike(index)
    # 14 words, 12 shingles of three; one word more at either end makes 13
    assert found[0, 0] == [Alike("train:5", "train:1", 12 / 13)]
    assert [row.where for row in found[1, 0]] == ["test:1", "test:2"]
    assert found[1, 0][1] == Alike("test:2", "train:1", 1.0)
    assert found[1, 1] == [Alike("test:2", "test:1", 12 / 13)]


def test_rows_without_a_like_give_nothing():
    with RowIndex() as index:
        for line, question in enumerate(OTHERS, start=1):
            index.add(answering(question, str(line), f"rows:{line}"))
        index.finish()
        assert find_alike(index) == {}
