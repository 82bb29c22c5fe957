"""The scorer rouge_l, against Google's rouge-score, and against the table that the definition gives."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from mlxtune.errors import DataError
from mlxtune.evaluation.scorers.rouge_l import common_length, score

WORDS = st.lists(st.sampled_from(["the", "cat", "Sat", "on", "a", "mat", "it's", "3.5", "--"]), max_size=30)


@given(output=WORDS, reference=WORDS.filter(lambda words: set(words) - {"--"}))
def test_the_numbers_are_those_of_rouge_score(output, reference):
    expected = RougeScorer(["rougeL"]).score(" ".join(reference), " ".join(output))["rougeL"]
    found = score(" ".join(output), " ".join(reference))
    assert found["rouge_l"] == pytest.approx(expected.fmeasure)
    assert found["rouge_l_precision"] == pytest.approx(expected.precision)
    assert found["rouge_l_recall"] == pytest.approx(expected.recall)


def table_length(left, right):
    """The longest common subsequence, by the usual table."""
    row = [0] * (len(right) + 1)
    for a in left:
        before = row
        row = [0]
        for j, b in enumerate(right):
            row.append(before[j] + 1 if a == b else max(before[j + 1], row[-1]))
    return row[-1]


@given(left=st.lists(st.integers(0, 4), max_size=90), right=st.lists(st.integers(0, 4), max_size=90))
def test_the_longest_common_subsequence_is_that_of_the_table(left, right):
    assert common_length(left, right) == table_length(left, right)


def test_words_of_other_scripts_count():
    assert score("кошка сидит", "кошка лежит") == {
        "rouge_l": 0.5,
        "rouge_l_precision": 0.5,
        "rouge_l_recall": 0.5,
    }


def test_a_reference_without_words_is_an_error():
    with pytest.raises(DataError, match="no words"):
        score("anything", "...", where="rows.jsonl:1")
