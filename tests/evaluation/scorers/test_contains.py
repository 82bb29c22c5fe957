"""The scorer contains: a reference stands in an answer as words, not as letters in the middle of others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxtune.errors import DataError
from mlxtune.evaluation.scorers.contains import score


@pytest.mark.parametrize(
    ("output", "reference", "strict", "normalized"),
    [
        ("It is Paris.", "Paris", 1, 1),
        ("it is  PARIS", "Paris", 0, 1),
        ("I know that", "no", 0, 0),
        ("no", "no", 1, 1),
        ("no, nothing", "no", 1, 1),
        ("nothing, no", "no", 1, 1),
        ("the year 1912.", "191", 0, 0),
        ("in 1912!", "1912", 1, 1),
        ("C++ is it", "C++", 1, 1),
        ("New\n  York", "New York", 0, 1),
        ("私は東京に住む", "東京", 1, 1),
        ("e\u0301t\u00e9", "t", 0, 0),
        ("anything", " thing ", 0, 0),
        ("any thing", " thing ", 1, 1),
    ],
)
def test_a_reference_is_found_as_words(output, reference, strict, normalized):
    assert score(output, reference) == {"contains": strict, "contains_normalized": normalized}


@given(before=st.text(), reference=st.text(min_size=1).filter(str.strip), after=st.text())
def test_between_spaces_it_is_always_found(before, reference, after):
    assert score(f"{before} {reference.strip()} {after}", reference)["contains"] == 1


@pytest.mark.parametrize("reference", ["", " \n"])
def test_nothing_is_no_reference(reference):
    with pytest.raises(DataError) as caught:
        score("anything", reference, where="rows.jsonl:3")
    assert caught.value.where == "rows.jsonl:3"
