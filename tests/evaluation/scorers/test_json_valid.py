"""The scorer json_valid: one JSON value alone, and of which kind."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxtune.evaluation.scorers.json_valid import score


@pytest.mark.parametrize(
    ("output", "valid", "same_kind"),
    [
        (' {"a": 1}\n', 1, 1),
        ("{}", 1, 1),
        ("[1]", 1, 0),
        ("1", 1, 0),
        ("", 0, 0),
        ('```json\n{"a": 1}\n```', 0, 0),
        ('{"a": 1} or so', 0, 0),
        ('{"a": NaN}', 0, 0),
        ('{"a": 1, "a": 2}', 0, 0),
        ("[" * 100_000, 0, 0),
    ],
    ids=lambda output: str(output)[:12],
)
def test_an_answer_is_json_where_a_strict_reader_takes_it(output, valid, same_kind):
    assert score(output, '{"any": "object"}') == {"json_valid": valid, "same_kind": same_kind}


def test_a_reference_that_is_no_json_has_no_kind_to_compare():
    assert score("[]", "a list, please") == {"json_valid": 1}


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_whatever_python_writes_as_json_is_json(value):
    text = json.dumps(value)
    assert score(text, text) == {"json_valid": 1, "same_kind": 1}
