"""The scorer json_fields: what counts as valid, as an equal value, and as a complete answer."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxtune.errors import DataError
from mlxtune.evaluation.scorers.json_fields import score

REFERENCE = '{"category": "billing", "order_id": null, "wants_human": true}'

# Without floats two values are equal exactly when their texts with sorted keys are: the oracle of the tests below.
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "1", "true", "null", "é\n"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
JSON_OBJECTS = st.dictionaries(st.text(max_size=4), JSON_VALUES, max_size=5)


def canonical(value) -> str:
    return json.dumps(value, sort_keys=True)


@given(answer=JSON_OBJECTS, seed=st.randoms())
def test_the_same_object_is_right_whatever_the_order_of_its_keys_and_its_layout(answer, seed):
    items = list(answer.items())
    seed.shuffle(items)
    scores = score(f"\n {json.dumps(dict(items), indent=2)} ", json.dumps(answer))
    assert set(scores.values()) == {1.0}
    assert set(scores) == {"valid_json", "all_fields"} | {f"field:{name}" for name in answer} | (
        {"fields"} if answer else set()
    )


@given(answer=JSON_OBJECTS, reference=JSON_OBJECTS)
def test_each_field_agrees_with_equality_of_canonical_json(answer, reference):
    scores = score(json.dumps(answer), json.dumps(reference))
    right = {
        name: float(name in answer and canonical(answer[name]) == canonical(reference[name])) for name in reference
    }
    assert {name: scores[f"field:{name}"] for name in reference} == right
    assert scores["all_fields"] == float(canonical(answer) == canonical(reference))
    if reference:
        assert scores["fields"] == pytest.approx(sum(right.values()) / len(right), abs=1e-12)


@given(output=st.text(), reference=JSON_OBJECTS)
def test_any_output_is_scored_from_0_to_1_without_an_error(output, reference):
    scores = score(output, json.dumps(reference))
    assert all(0 <= value <= 1 for value in scores.values())
    if not scores["valid_json"]:
        assert set(scores.values()) == {0.0}


@pytest.mark.parametrize(
    "output",
    [
        "",
        "billing",
        "null",
        f"[{REFERENCE}]",
        f"Here you are: {REFERENCE}",
        f"{REFERENCE} Anything else?",
        f"```json\n{REFERENCE}\n```",
        f"{REFERENCE}\n{REFERENCE}",
        REFERENCE[:-1],
        REFERENCE.replace('"', "'"),
        REFERENCE.replace("null", "NaN"),
        REFERENCE.replace("null", "-Infinity"),
        REFERENCE.replace("}", ",}"),
        REFERENCE.replace("}", ', "category": "billing"}'),
        REFERENCE.replace("null", '{"a": 1, "a": 1}'),
        '{"a":' * 100_000,
        '{"order_id": ' + "1" * 5000 + "}",
    ],
    ids=lambda output: output[:24],
)
def test_what_is_not_exactly_one_json_object_has_every_metric_at_0(output):
    assert set(score(output, REFERENCE).values()) == {0.0}


@pytest.mark.parametrize(
    ("answered", "expected", "right"),
    [
        ("true", "1", 0),
        ("1", "true", 0),
        ("false", "0", 0),
        ("null", "false", 0),
        ('"3"', "3", 0),
        ('"null"', "null", 0),
        ("1.0", "1", 1),
        ("1e2", "100", 1),
        ("100000000000000001", "100000000000000000.0", 0),
        ("[1, 2]", "[2, 1]", 0),
        ("[1]", "[1, 1]", 0),
        ("[true]", "[1]", 0),
        ('{"x": [1, {"y": 2}]}', '{"x": [1.0, {"y": 2}]}', 1),
        ('{"x": 1}', '{"x": 1, "z": null}', 0),
        (r'"\u00e9"', '"é"', 1),
        ('"Billing"', '"billing"', 0),
    ],
)
def test_values_are_equal_when_json_says_so_type_included(answered, expected, right):
    scores = score(f'{{"value": {answered}}}', f'{{"value": {expected}}}')
    assert scores == {"valid_json": 1, "field:value": right, "fields": right, "all_fields": right}


def test_a_missing_key_is_not_null():
    scores = score('{"category": "billing", "wants_human": true}', REFERENCE)
    assert scores["field:order_id"] == 0
    assert scores["fields"] == pytest.approx(2 / 3)
    assert scores["all_fields"] == 0


def test_an_extra_key_costs_all_fields_and_nothing_else():
    scores = score(REFERENCE.replace("}", ', "mood": "cross"}'), REFERENCE)
    assert (scores["valid_json"], scores["fields"], scores["all_fields"]) == (1, 1, 0)


def test_named_fields_alone_are_scored_and_the_others_may_be_wrong_or_missing():
    assert score('{"category": "billing", "order_id": 7}', REFERENCE, fields=["category"]) == {
        "valid_json": 1,
        "field:category": 1,
        "fields": 1,
        "all_fields": 1,
    }


def test_a_named_field_that_the_reference_lacks_is_an_error_with_its_place():
    with pytest.raises(DataError, match="'mood'") as caught:
        score(REFERENCE, REFERENCE, fields=["category", "mood"], where="test.jsonl:3")
    assert caught.value.where == "test.jsonl:3"


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("billing", "Expecting value"),
        ("[]", "a list"),
        ("null", "null"),
        ('{"a": NaN}', "NaN"),
        ('{"a": 1, "a": 2}', "'a' stands twice"),
    ],
)
def test_a_reference_that_is_no_json_object_is_an_error_with_its_place_and_reason(reference, reason):
    with pytest.raises(DataError, match=reason) as caught:
        score(REFERENCE, reference, where="test.jsonl:3")
    assert caught.value.where == "test.jsonl:3"
    assert caught.value.remedy
