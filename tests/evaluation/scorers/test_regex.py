"""The scorer regex: a pattern with a group compares what it takes, one without is the question itself."""

import time

import pytest

from mlxtune.errors import DataError
from mlxtune.evaluation import patterns
from mlxtune.evaluation.scorers.regex import score


@pytest.mark.parametrize(
    ("output", "reference", "pattern", "right", "matches"),
    [
        ("Category: billing.", "Category: billing, of course", r"Category: (\w+)", 1, 1),
        ("Category: returns.", "Category: billing", r"Category: (\w+)", 0, 1),
        ("billing", "Category: billing", r"Category: (\w+)", 0, 0),
        ("category: billing", "Category: billing", r"(?i)category: (\w+)", 1, 1),
        ("on 2024-01-02", "whatever", r"\d{4}-\d\d-\d\d", 1, 1),
        ("on 2 January", "whatever", r"\d{4}-\d\d-\d\d", 0, 0),
        ("a", "b", r"a|(b)", 0, 1),
        ("answer: x ", "answer:x", r"answer:(.*)", 1, 1),
    ],
)
def test_what_a_pattern_takes_is_compared(output, reference, pattern, right, matches):
    assert score(output, reference, pattern=pattern) == {"regex": right, "matches": matches}


def test_a_reference_that_the_pattern_does_not_fit_is_an_error_with_its_place():
    with pytest.raises(DataError) as caught:
        score("Category: x", "billing", pattern=r"Category: (\w+)", where="rows.jsonl:2")
    assert caught.value.where == "rows.jsonl:2"


def test_a_text_that_keeps_a_pattern_busy_is_one_that_does_not_match(monkeypatch):
    monkeypatch.setattr(patterns, "SECONDS", 0.05)
    start = time.monotonic()
    assert score("a" * 60, "", pattern=r"(?:a|a)*(?:a|a)*b")["matches"] == 0
    assert time.monotonic() - start < 30
