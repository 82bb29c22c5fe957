"""Scores in parts: each part holds what its rows say, and which rows they are is right for every metric."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_tokenizer

from mlxtune.data.dataset import render_examples
from mlxtune.data.example import Example
from mlxtune.data.store.census import Stream, Weighted
from mlxtune.evaluation import breakdown as module
from mlxtune.evaluation.breakdown import RowFacts, breakdown, correct_for_several, row_facts
from mlxtune.evaluation.calibration import calibration_of
from mlxtune.evaluation.measured import rates, ratio
from mlxtune.evaluation.score import Scores

N = 12
WHERE = [f"rows.jsonl:{number + 1}" for number in range(N)]
TOKENS = np.array([10, 10, 10, 10, 10, 20, 21, 22, 90, 91, 92, 93])
GROUPS = ["nl", "fr", None, "nl", "fr", "nl", "fr", "nl", "nl", "nl", "fr", None]


def scores(losses, right):
    """Of rows of two target tokens, with their nats a token, and a task that was asked of some of them."""
    confidences, hits = np.linspace(0.1, 0.9, N), np.array([1.0] * N) > 0
    measured = {"loss": ratio(np.arange(N), 2 * np.array(losses), np.full(N, 2)), "asked.accuracy": rates(right)}
    return Scores(measured, [], calibration_of(confidences, hits))


BASE = scores(np.arange(N) / 10, dict.fromkeys(range(0, N, 2), 0.0))
TUNED = scores(np.arange(N)[::-1] / 10, dict.fromkeys(range(0, N, 2), 1.0))


def broken_down(base=BASE, tuned=TUNED, column="tongue", groups=GROUPS):
    return breakdown(base, tuned, RowFacts(WHERE, TOKENS, column, groups))


def test_rows_of_like_length_are_a_part_and_none_is_in_two(monkeypatch):
    monkeypatch.setattr(module, "LENGTH_ROWS", 1)
    parts = broken_down()["by_length"]
    spans = [(part["low"], part["high"], part["rows"]) for part in parts]
    assert spans == [(10, 10, 5), (20, 22, 3), (90, 91, 2), (92, 93, 2)]
    assert [part["tuned"]["loss"]["mean"] for part in parts] == pytest.approx([0.9, 0.5, 0.25, 0.05])


@given(tokens=st.lists(st.integers(1, 60), min_size=1, max_size=90))
def test_parts_by_length_hold_all_rows_in_order_and_are_at_most_four(tokens):
    count, values = len(tokens), np.array(tokens)
    one = Scores({"loss": ratio(np.arange(count), values, np.ones(count))}, [], BASE.calibration)
    parts = breakdown(one, one, RowFacts(["a:1"] * count, values))["by_length"]
    assert 1 <= len(parts) <= 4
    assert sum(part["rows"] for part in parts) == count
    bounds = [bound for part in parts for bound in (part["low"], part["high"])]
    assert bounds == sorted(bounds)
    assert (bounds[0], bounds[-1]) == (min(tokens), max(tokens))
    for part in parts:
        within = [value for value in tokens if part["low"] <= value <= part["high"]]
        assert part["base"]["loss"]["mean"] == pytest.approx(np.mean(within))


def test_rows_that_are_all_as_long_are_one_part():
    (part,) = breakdown(BASE, TUNED, RowFacts(WHERE, np.full(N, 7)))["by_length"]
    assert (part["low"], part["high"], part["rows"]) == (7, 7, N)


def test_a_group_is_measured_on_its_own_rows_and_a_task_on_those_that_it_was_asked_of():
    found = broken_down()["by_group"]
    assert [(part["group"], part["rows"]) for part in found["groups"]] == [("nl", 6), ("fr", 4), (None, 2)]
    assert (found["column"], found["others"]) == ("tongue", None)
    for part in found["groups"]:
        numbers = [number for number, group in enumerate(GROUPS) if group == part["group"]]
        assert part["base"]["loss"]["mean"] == pytest.approx(np.mean(numbers) / 10)
        assert part["base"]["asked.accuracy"]["count"] == sum(number % 2 == 0 for number in numbers)
        difference = part["differences"]["loss"]
        assert difference["mean"] == pytest.approx(part["tuned"]["loss"]["mean"] - part["base"]["loss"]["mean"])
        assert part["differences"]["asked.accuracy"]["mean"] == 1
        assert part["differences"]["asked.accuracy"]["test"] == "McNemar"


def test_a_metric_that_no_row_of_a_group_has_is_left_out_there():
    groups = ["odd" if number % 2 else "even" for number in range(N)]
    odd = broken_down(groups=groups)["by_group"]["groups"][1]
    assert (odd["group"], list(odd["base"]), list(odd["differences"])) == ("odd", ["loss"], ["loss"])


def test_the_smallest_of_very_many_groups_are_one_part(monkeypatch):
    monkeypatch.setattr(module, "GROUPS", 2)
    groups = ["a", "a", "b", "b", "b", *"cdefghi"]
    found = broken_down(groups=groups)["by_group"]
    assert [part["group"] for part in found["groups"]] == ["b", "a"]
    assert (found["others"]["groups"], found["others"]["rows"]) == (7, 7)
    assert found["others"]["base"]["loss"]["mean"] == pytest.approx(np.mean(range(5, 12)) / 10)


def test_even_of_the_most_groups_one_that_surely_differs_is_told():
    count = 6 * (module.GROUPS + 1)
    before = ratio(np.arange(count), np.ones(count), np.ones(count))
    groups = [str(number // 6) for number in range(count)]
    after = ratio(np.arange(count), np.array([2.0 if group == "0" else 1.0 for group in groups]), np.ones(count))
    facts = RowFacts(["a:1"] * count, np.full(count, 9), "group", groups)
    one, other = (Scores({"loss": loss}, [], BASE.calibration) for loss in (before, after))
    found = breakdown(one, other, facts)["by_group"]
    told = {part["group"]: part["differences"]["loss"]["verdict"] for part in found["groups"]}
    assert told.pop("0") == "worse"
    assert set(told.values()) == {"not distinguishable"}
    assert found["others"] is not None


def test_without_a_column_there_are_no_groups():
    assert breakdown(BASE, TUNED, RowFacts(WHERE, TOKENS))["by_group"] is None


def test_the_worst_rows_are_those_of_the_highest_loss_a_token_and_the_worsened_those_that_rose_most():
    found = broken_down()
    assert [row["row"] for row in found["worst"]] == list(range(N))
    assert found["worst"][0] == {
        "where": "rows.jsonl:1",
        "row": 0,
        "base_loss": 0.0,
        "tuned_loss": pytest.approx(1.1),
        "target_tokens": 2,
    }
    assert [row["row"] for row in found["worsened"]] == [0, 1, 2, 3, 4, 5]
    assert broken_down(BASE, BASE)["worsened"] == []


def test_of_many_rows_the_worst_alone_are_listed(monkeypatch):
    monkeypatch.setattr(module, "WORST", 3)
    found = broken_down()
    assert [row["row"] for row in found["worst"]] == [0, 1, 2] == [row["row"] for row in found["worsened"]]


def test_p_values_of_several_parts_are_corrected_as_holm_did():
    # The smallest times 4, the next times 3, ...; none smaller than the one before it; none above 1.
    assert correct_for_several([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert correct_for_several([0.6, 0.5]) == [1.0, 1.0]
    assert correct_for_several([]) == []


def test_a_part_says_how_sure_it_is_alone_and_among_all_parts():
    for part in broken_down()["by_group"]["groups"]:
        difference = part["differences"]["loss"]
        assert difference["p_value"] <= difference["p_value_of_all"] <= 1
    values = [part["differences"]["loss"] for part in broken_down()["by_group"]["groups"]]
    expected = correct_for_several([value["p_value"] for value in values])
    assert [value["p_value_of_all"] for value in values] == expected


def test_twenty_groups_that_are_alike_have_none_that_differs():
    rng = np.random.default_rng(3)
    rows = np.arange(800)
    before, after = (ratio(rows, rng.normal(2, 1, 800), np.ones(800)) for _ in range(2))
    calibration = calibration_of(np.ones(1), np.ones(1, bool))
    facts = RowFacts(["a:1"] * 800, np.full(800, 9), "group", [str(number % 20) for number in range(800)])
    found = breakdown(Scores({"loss": before}, [], calibration), Scores({"loss": after}, [], calibration), facts)
    p_values = [part["differences"]["loss"]["p_value"] for part in found["by_group"]["groups"]]
    assert min(p_values) < 0.05, "with so many groups one differs by chance"
    assert min(part["differences"]["loss"]["p_value_of_all"] for part in found["by_group"]["groups"]) > 0.05
    assert {part["differences"]["loss"]["verdict"] for part in found["by_group"]["groups"]} == {"not distinguishable"}


def test_a_group_that_alone_got_worse_is_called_worse():
    groups = ["good" if number % 3 else "spoilt" for number in range(90)]
    losses = np.linspace(1, 2, 90)
    before = ratio(np.arange(90), losses, np.ones(90))
    after = ratio(np.arange(90), losses + [0.5 if group == "spoilt" else -0.5 for group in groups], np.ones(90))
    calibration = calibration_of(np.ones(1), np.ones(1, bool))
    facts = RowFacts(["a:1"] * 90, np.full(90, 9), "group", groups)
    found = breakdown(Scores({"loss": before}, [], calibration), Scores({"loss": after}, [], calibration), facts)
    verdicts = {part["group"]: part["differences"]["loss"]["verdict"] for part in found["by_group"]["groups"]}
    assert verdicts == {"good": "better", "spoilt": "worse"}


def test_all_of_it_is_json():
    assert json.loads(json.dumps(broken_down(), allow_nan=False))["by_group"]["column"] == "tongue"


@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_facts_of_rows_are_those_of_the_examples_however_often_or_in_how_many_parts_a_row_is_read(tmp_path, weight):
    groups = ["x", 1, True, None, {"b": 1, "a": "é"}]
    examples = [
        Example("text", f"rows.jsonl:{number}", text="a" * 5 * number, kept={"group": group})
        for number, group in enumerate(groups, 1)
    ]
    examples.append(Example("text", "rows.jsonl:6", text="no group"))
    stream = Stream((Weighted(lambda: examples, "rows.jsonl", weight=weight),))
    tokenizer = tiny_tokenizer(tmp_path)
    settings = {"path": tmp_path / "rows.jsonl", "train_on": "completions", "max_seq_length": 12, "overflow": "split"}
    dataset = render_examples(stream, tokenizer, **settings)
    facts = row_facts(dataset, list(dataset.examples()), "group")
    assert list(facts.where) == [example.where for example in examples]
    assert list(facts.groups) == ["x", "1", "true", None, '{"a": "é", "b": 1}', None]
    # Each row has EOS, and each further part of one begins with the last token of the part before.
    assert facts.tokens.tolist() == [6, 11, 16 + 1, 21 + 1, 26 + 2, 9]
    assert row_facts(dataset, examples).groups == ()
