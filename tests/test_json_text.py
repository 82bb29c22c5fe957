"""JSON is read as the standard has it, and what is refused is told in a sentence."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxtune.json_text import name_of_type, parse_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_whatever_the_standard_allows_is_read_from_text_and_from_utf8(value):
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    assert parse_json(text) == value
    assert parse_json(text.encode()) == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON: Expecting value at column 1"),
        ('{"a": 1,\n "b": }', "not JSON: Expecting value at line 2, column 7"),
        ("NaN", "NaN is no JSON value"),
        ('{"a": -Infinity}', "-Infinity is no JSON value"),
        ('[{"a": 1, "b": 2, "a": 1}]', "the key 'a' stands twice in one object"),
        ("[" * 100_000, "not JSON that can be read: nested too deeply"),
        (b'"\xff"', "not UTF-8: byte 0xff at position 2"),
    ],
)
def test_what_the_standard_forbids_is_refused_with_its_place(text, said):
    with pytest.raises(ValueError) as caught:
        parse_json(text)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("value", "words"),
    [({}, "an object"), ([], "a list"), ("", "a string"), (1, "a number"), (1.5, "a number"), (True, "a boolean")],
)
def test_a_value_has_a_kind_in_words(value, words):
    assert name_of_type(value) == words
    assert name_of_type(None) == "null"


def test_a_number_of_thousands_of_digits_is_refused_with_a_sentence():
    with pytest.raises(ValueError, match="a number has more than 4,300 digits"):
        parse_json("[" + "9" * 5000 + "]")
