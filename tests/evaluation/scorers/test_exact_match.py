"""The scorer exact_match: what it forgives, and what it does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxtune.evaluation.scorers.exact_match import score


@pytest.mark.parametrize(
    ("output", "reference", "strict", "normalized"),
    [
        ("billing", "billing", 1, 1),
        ("  billing\n", "billing", 1, 1),
        ("billing", "\tbilling ", 1, 1),
        ("Billing", "billing", 0, 1),
        ("select  a\nfrom t", "SELECT a FROM t", 0, 1),
        ("selecta from t", "SELECT a FROM t", 0, 0),
        ("billing.", "billing", 0, 0),
        ("", "billing", 0, 0),
        ("STRASSE", "straße", 0, 1),
    ],
)
def test_strict_forgives_outer_white_space_and_normalized_also_case_and_inner_white_space(
    output, reference, strict, normalized
):
    assert score(output, reference) == {"exact_match": strict, "exact_match_normalized": normalized}


@given(text=st.text(), left=st.text(" \t\n"), right=st.text(" \t\n"))
def test_a_text_matches_itself_whatever_white_space_is_around_it(text, left, right):
    assert score(left + text + right, text) == {"exact_match": 1.0, "exact_match_normalized": 1.0}


@given(output=st.text(), reference=st.text())
def test_strictly_equal_texts_are_also_equal_when_normalized_and_order_does_not_matter(output, reference):
    scores = score(output, reference)
    assert scores["exact_match"] <= scores["exact_match_normalized"]
    assert scores == score(reference, output)
