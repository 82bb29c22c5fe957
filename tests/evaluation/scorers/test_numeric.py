"""The scorer numeric: which number of a text counts, and how far it may be off."""

import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxtune.errors import DataError
from mlxtune.evaluation.scorers import numeric

GSM8K = r"####\s*(.+)"


def score(output, reference, **settings):
    defaults = {"tolerance": 0.0, "relative_tolerance": 0.0, "decimal_mark": "."}
    return numeric.score(output, reference, **defaults | settings)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("42", 42),
        ("so there are 3, then 5 of them.", 5),
        ("1,234,567.5 km", Fraction("1234567.5")),
        ("-7", -7),
        ("\N{MINUS SIGN}7", -7),
        ("-$5.20", Fraction("-5.2")),
        ("$-5", -5),
        ("10-3", 3),
        ("(-3)", -3),
        (".5", Fraction("0.5")),
        ("2.5e3", 2500),
        ("**42**", 42),
        ("_42_", 42),
        ("50%", 50),
        ("the answer is 42.", 42),
        ("3,14", None),
        ("26.11.2026", None),
        ("1.2.3", None),
        ("1,2,3", None),
        ("H2O and v2", None),
        ("9" * 500, None),
        ("1e999", None),
        ("none", None),
        ("", None),
    ],
)
def test_the_last_number_of_a_text_counts_and_half_of_something_else_does_not(text, number):
    assert numeric.find_number(text, None, ".") == number


@pytest.mark.parametrize(
    ("text", "number"), [("3,14", Fraction("3.14")), ("1.234,5", Fraction("1234.5")), ("3.14", None)]
)
def test_where_a_comma_stands_before_decimals_it_is_said_so(text, number):
    assert numeric.find_number(text, None, ",") == number


@given(number=st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**12), max_value=10**12))
def test_a_number_is_read_as_python_reads_it(number):
    assert numeric.find_number(f"about {number} of them", None, ".") == Fraction(number)
    assert numeric.find_number(f"about {number:,} of them", None, ".") == Fraction(number)


def test_the_answer_of_a_gsm8k_row_is_the_number_after_the_four_signs():
    reference = "She sold 48 / 2 = <<48/2=24>>24 clips in May.\nIn all 72.\n#### 72"
    assert score("It was 24 + 48 = 72.\n#### 72", reference, pattern=GSM8K) == {"numeric": 1, "has_number": 1}
    assert score("#### 72\n\nQuestion: of 5?\n#### 5", reference, pattern=GSM8K)["numeric"] == 1
    assert score("72", reference, pattern=GSM8K) == {"numeric": 0, "has_number": 0}
    assert score("#### $1,072.00", "#### 1072", pattern=GSM8K)["numeric"] == 1


def test_every_answer_of_gsm8k_can_be_scored(shared_data):
    for split in ("train", "test"):
        lines = (shared_data / "gsm8k" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        for answer in (json.loads(line)["answer"] for line in lines):
            expected = int(answer.rpartition("####")[2].replace(",", ""))
            assert numeric.find_number(answer, GSM8K, ".") == expected


@pytest.mark.parametrize(
    ("found", "settings", "right"),
    [
        ("0.31", {"tolerance": 0.01}, 1),  # in binary fractions they are a little more apart
        ("0.311", {"tolerance": 0.01}, 0),
        ("0.33", {"relative_tolerance": 0.1}, 1),
        ("0.3301", {"relative_tolerance": 0.1}, 0),
        ("0.35", {"relative_tolerance": 0.1, "tolerance": 0.05}, 1),
        ("0.3000", {}, 1),
        ("3e-1", {}, 1),
        ("-0.3", {}, 0),
    ],
)
def test_a_number_may_be_off_by_the_larger_of_two_tolerances(found, settings, right):
    assert score(found, "0.30", **settings)["numeric"] == right


@pytest.mark.parametrize("pattern", [None, GSM8K])
def test_a_reference_without_a_number_is_an_error_with_its_place(pattern):
    with pytest.raises(DataError) as caught:
        score("1", "none", pattern=pattern, where="rows.jsonl:2")
    assert caught.value.where == "rows.jsonl:2"


@given(output=st.text(alphabet="0123456789.,-+eE$ x"))
def test_any_answer_is_scored(output):
    assert score(output, "1")["numeric"] in (0, 1)
