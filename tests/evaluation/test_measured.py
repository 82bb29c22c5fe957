import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxtune.evaluation.measured import Measured, rates, ratio
from mlxtune.evaluation.statistics import mcnemar


def test_a_ratio_is_of_sums_and_no_mean_of_the_rows_ratios():
    measured = ratio(np.arange(2), np.array([1.0, 300.0]), np.array([1, 100]))
    assert measured.value == pytest.approx(301 / 101)
    assert measured.interval(seed=0).mean == measured.value


def test_a_rate_knows_its_rows_and_that_it_is_one():
    measured = rates({4: 0.0, 1: 1.0, 2: 1.0})
    assert measured.rows.tolist() == [1, 2, 4]
    assert measured.is_rate
    assert measured.value == pytest.approx(2 / 3)
    assert not ratio(np.arange(1), np.array([3.0]), np.array([1])).is_rate


def test_of_tokens_that_are_all_wrong_or_all_right_the_interval_still_has_a_width():
    totals = np.array([3, 2, 4, 3])
    for counts, low, high in ((totals, 0.025**0.25, 1), (0 * totals, 0, 1 - 0.025**0.25)):
        found = ratio(np.arange(4), counts, totals).interval(seed=0)
        assert (found.low, found.high) == pytest.approx((low, high))
    nats = ratio(np.arange(4), 0.5 * totals, totals).interval(seed=0)
    assert (nats.low, nats.high) == pytest.approx((0.5, 0.5))


def test_a_metric_survives_being_written_as_json():
    measured = ratio(np.array([3, 9]), np.array([0.1, 1 / 3]), np.array([2, 5]))
    again = Measured.from_json(json.loads(json.dumps(measured.to_json())))
    np.testing.assert_array_equal(again.rows, measured.rows)
    np.testing.assert_array_equal(again.sums, measured.sums)
    with pytest.raises(ValueError, match="no figure"):
        Measured.from_json(measured.to_json() | {"figure": "vibes"})


def test_what_both_models_find_hard_counts_for_neither():
    rng = np.random.default_rng(0)
    hard = rng.gamma(2.0, 1.0, 200)  # rows differ far more than the models do
    rows, ones = np.arange(200), np.ones(200)
    before, after = ratio(rows, hard + 0.05 + rng.normal(0, 0.02, 200), ones), ratio(rows, hard, ones)
    assert before.interval(seed=0).low < after.interval(seed=0).high, "the intervals overlap"
    difference = after.minus(before, seed=0)
    assert difference.high < 0
    assert difference.p_value < 0.001
    assert difference.test == "paired bootstrap"


def test_the_same_model_twice_does_not_differ():
    values = ratio(np.arange(50), np.random.default_rng(1).normal(2, 1, 50), np.ones(50))
    difference = values.minus(values, seed=0)
    assert (difference.mean, difference.low, difference.high, difference.p_value) == (0, 0, 0, 1)


def test_right_or_wrong_is_tested_by_mcnemar():
    before = rates(dict(enumerate([1.0] * 5 + [0.0] * 15)))
    after = rates(dict(enumerate([1.0] * 4 + [0.0] + [1.0] * 9 + [0.0] * 6)))
    difference = after.minus(before, seed=0)
    assert difference.test == "McNemar"
    assert difference.mean == pytest.approx(8 / 20)
    assert difference.p_value == pytest.approx(2 * (1 + 10) / 2**10)  # of 10 that differ, 1 went the other way


@pytest.mark.parametrize(("before", "after"), [(0.0, 1.0), (1.0, 1.0), (1.0, 0.0)])
def test_where_every_row_goes_the_same_way_the_difference_still_has_a_width(before, after):
    found = rates(dict.fromkeys(range(20), after)).minus(rates(dict.fromkeys(range(20), before)), seed=0)
    others = 1 - 0.025 ** (1 / 20)  # of all rows so many may do otherwise though none of 20 does: Clopper and Pearson
    shares = {-1.0: (-1, others * 2 - 1), 0.0: (-others, others), 1.0: (1 - 2 * others, 1)}
    assert found.mean == after - before
    assert (found.low, found.high) == pytest.approx(shares[after - before])


def test_mcnemar_of_published_counts():
    # The example of statsmodels' and R's documentation (Agresti 1990, approval ratings: 150 and 86 discordant).
    assert mcnemar(86, 150) == pytest.approx(3.716e-05, rel=1e-3)
    assert mcnemar(0, 0) == 1


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_two_sided_binomial_of_a_fair_coin(better, worse):
    total = better + worse
    chances = [math.comb(total, i) / 2**total for i in range(total + 1)]
    as_rare = sum(chance for chance in chances if chance <= chances[better] * (1 + 1e-9))
    assert mcnemar(better, worse) == pytest.approx(as_rare)


def test_rows_that_are_not_the_same_are_not_compared():
    with pytest.raises(ValueError, match="not measured alike"):
        rates({0: 1.0}).minus(rates({1: 1.0}), seed=0)


def test_a_p_value_is_small_no_oftener_than_it_says():
    rng = np.random.default_rng(2)
    ones, rows = np.ones(40), np.arange(40)
    small = 0
    for _ in range(300):  # two models of which neither is better
        before, after = (ratio(rows, rng.normal(1, 0.5, 40), ones) for _ in range(2))
        small += after.minus(before, seed=0).p_value < 0.05
    assert small / 300 < 0.09
