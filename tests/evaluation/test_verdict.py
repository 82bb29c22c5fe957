"""Verdicts: a planted regression is called worse, a tie a tie, and what does not compare is not compared."""

import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxtune.evaluation.measured import Measured, rates, ratio
from mlxtune.evaluation.statistics import Difference
from mlxtune.evaluation.verdict import FEWEST_ROWS, judge, read_difference, verdict

SEED = 0


def difference(mean, low, high, p_value=0.001, count=50):
    return Difference(mean, low, high, p_value, "paired bootstrap", count)


def right_or_wrong(values):
    return rates(dict(enumerate(np.asarray(values, float))))


def verdict_of(metric, tuned, base):
    return judge({metric: tuned}, {metric: base}, seed=SEED)[metric]["verdict"]


# --- planted: what is known to be so is said


def test_a_planted_regression_is_called_worse():
    """200 rows, 80 % right; afterwards 30 of those right are wrong and 8 others right: McNemar gives 0.0005."""
    before = np.arange(200) < 160
    after = before.copy()
    after[:30] = False
    after[160:168] = True
    found = judge({"exact_match": right_or_wrong(after)}, {"exact_match": right_or_wrong(before)}, seed=SEED)
    assert found["exact_match"]["verdict"] == "worse"
    assert found["exact_match"]["mean"] == pytest.approx(-22 / 200)
    assert found["exact_match"]["test"] == "McNemar"


def test_a_planted_rise_of_the_loss_is_called_worse_though_the_models_own_intervals_overlap():
    """Rows differ by nats, the models by 0.05 on each: what every row shows alike is not to be lost among rows."""
    nats = np.random.default_rng(1).uniform(1, 4, 100)
    counts = np.ones(100)
    before, after = (ratio(np.arange(100), nats + worse, counts) for worse in (0.0, 0.05))
    assert before.interval(seed=SEED).high > after.interval(seed=SEED).low
    assert verdict_of("loss", after, before) == "worse"
    assert verdict_of("loss", before, after) == "better"


def test_a_tie_is_called_a_tie():
    """Two coins on the same 200 rows: they differ on many, as often one way as the other."""
    one, other = np.zeros(200), np.zeros(200)
    one[:60], other[40:100] = 1, 1  # 40 rows each that the other has not
    assert verdict_of("exact_match", right_or_wrong(one), right_or_wrong(other)) == "not distinguishable"


def test_a_model_against_itself_is_a_tie_in_every_metric():
    nats = np.random.default_rng(2).uniform(1, 4, 40)
    same = {"loss": ratio(np.arange(40), nats, np.ones(40)), "right": right_or_wrong(nats > 2)}
    found = judge(same, same, seed=SEED)
    assert [one["verdict"] for one in found.values()] == ["not distinguishable"] * 2
    assert [(one["mean"], one["p_value"]) for one in found.values()] == [(0.0, 1.0)] * 2


def test_two_equal_models_are_told_apart_in_at_most_one_of_twenty_cases():
    """Of all ways in which 50 rows that two equal models differ on may fall, each as likely as the next."""
    told = 0
    for better in range(51):
        values = np.zeros((2, 100))
        values[0, :better], values[1, better:50] = 1, 1
        if verdict_of("exact_match", *(right_or_wrong(row) for row in values)) != "not distinguishable":
            told += math.comb(50, better)
    assert 0.01 < told / 2**50 <= 0.05


# --- the rule


@pytest.mark.parametrize(
    ("metric", "bounds", "p_value", "expected"),
    [
        ("fields", (0.4, 0.5, 0.6), 0.001, "better"),
        ("fields", (-0.6, -0.5, -0.4), 0.001, "worse"),
        ("loss", (0.4, 0.5, 0.6), 0.001, "worse"),
        ("loss", (-0.6, -0.5, -0.4), 0.001, "better"),
        ("bits_per_byte", (-0.6, -0.5, -0.4), 0.001, "better"),
        ("field:loss", (0.4, 0.5, 0.6), 0.001, "better"),
        ("fields", (0.4, 0.5, 0.6), 0.05, "not distinguishable"),
        ("fields", (-0.1, 0.5, 0.6), 0.001, "not distinguishable"),
        ("fields", (0.0, 0.5, 0.6), 0.001, "not distinguishable"),
        ("loss", (0.0, 0.0, 0.0), 1.0, "not distinguishable"),
    ],
)
def test_the_verdict_needs_the_test_and_the_interval_and_knows_which_way_is_up(metric, bounds, p_value, expected):
    low, mean, high = bounds
    assert verdict(metric, difference(mean, low, high, p_value)) == expected


bounds = st.tuples(*[st.floats(-1, 1)] * 3).map(sorted)


@given(
    bounds=bounds,
    p_value=st.floats(0, 1),
    metric=st.sampled_from(["loss", "bits_per_byte", "exact_match", "token_accuracy"]),
)
def test_exchanging_the_models_exchanges_better_and_worse(bounds, p_value, metric):
    low, mean, high = bounds
    exchanged = {"better": "worse", "worse": "better", "not distinguishable": "not distinguishable"}
    there, back = difference(mean, low, high, p_value), difference(-mean, -high, -low, p_value)
    assert verdict(metric, back) == exchanged[verdict(metric, there)]


@pytest.mark.parametrize(
    ("count", "expected"), [(FEWEST_ROWS - 1, "not distinguishable"), (FEWEST_ROWS, "better"), (100, "better")]
)
def test_all_wrong_against_all_right_is_a_difference_from_six_rows_on(count, expected):
    assert verdict_of("exact_match", right_or_wrong(np.ones(count)), right_or_wrong(np.zeros(count))) == expected


def test_a_few_rows_prove_nothing_however_far_apart_their_losses():
    before, after = (ratio(np.arange(2), np.full(2, nats), np.ones(2)) for nats in (9.0, 0.1))
    assert verdict_of("loss", after, before) == "not distinguishable"


# --- what compares


def test_bits_per_byte_compares_across_tokenizers_and_what_is_counted_a_token_does_not():
    rows, nats = np.arange(10), np.linspace(1, 2, 10)

    def measured(tokens):
        return {
            "loss": ratio(rows, nats, tokens),
            "token_accuracy": ratio(rows, np.ones(10), tokens),
            "bits_per_byte": ratio(rows, nats, np.full(10, 30)),
        }

    ours, theirs = measured(np.full(10, 8)), measured(np.full(10, 5))
    assert judge(ours, theirs, seed=SEED).keys() == {"bits_per_byte"}
    assert judge(ours, measured(np.full(10, 8)), seed=SEED).keys() == ours.keys()


def test_metrics_of_other_rows_or_of_one_model_alone_are_left_out():
    ours = {"a": rates({0: 1.0, 1: 0.0}), "b": rates({0: 1.0}), "c": rates({0: 1.0})}
    theirs = {"a": rates({0: 1.0, 2: 0.0}), "c": Measured(np.array([0]), np.ones((1, 3)), "macro_f1")}
    assert judge(ours, theirs, seed=SEED) == {}


def test_a_difference_survives_scores_json():
    found = difference(0.5, 0.4, 0.6)
    assert read_difference(asdict(found) | {"verdict": "better"}) == found
