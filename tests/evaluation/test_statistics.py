"""Bootstrap intervals against closed forms: normal theory, exact binomial bounds, and how often they hold the truth."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxtune.evaluation.statistics import (
    BLOCK_NUMBERS,
    bootstrap_interval,
    bootstrap_rate_interval,
    bootstrap_ratio_interval,
)

NORMAL_975 = 1.959963984540054
VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30).map(np.array)


@given(values=VALUES, seed=st.integers(0, 2**32))
def test_the_interval_holds_the_mean_and_stays_within_the_values(values, seed):
    interval = bootstrap_interval(values, resamples=50, seed=seed)
    slack = 1e-9 * (1 + np.abs(values).max())
    assert interval.mean == pytest.approx(values.mean(), abs=slack)
    assert values.min() - slack <= interval.low <= interval.mean <= interval.high <= values.max() + slack
    assert interval.count == len(values)


@given(value=st.floats(-1e9, 1e9), count=st.integers(1, 300))
def test_rows_that_are_all_equal_give_an_interval_without_width(value, count):
    interval = bootstrap_interval(np.full(count, value), resamples=20, seed=0)
    assert interval.low == interval.mean == interval.high == pytest.approx(value)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    values = np.random.default_rng(0).normal(size=50)
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values.copy(), seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)


def test_a_large_sample_agrees_with_the_normal_interval():
    values = np.random.default_rng(1).exponential(size=4000)
    interval = bootstrap_interval(values, seed=1)
    half = NORMAL_975 * values.std(ddof=1) / math.sqrt(len(values))
    # the 2.5 % point of 2000 resamples has a standard error of 6 % of the standard error
    assert interval.low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_a_ratio_of_a_large_sample_agrees_with_the_delta_method():
    generator = np.random.default_rng(2)
    tokens = generator.integers(5, 60, size=3000)
    nats = tokens * generator.gamma(4, 0.4, size=3000)
    ratio = nats.sum() / tokens.sum()
    half = NORMAL_975 * (nats - ratio * tokens).std(ddof=1) / tokens.mean() / math.sqrt(len(tokens))
    interval = bootstrap_ratio_interval(nats, tokens, seed=2)
    assert interval.mean == pytest.approx(ratio, rel=1e-12)
    assert interval.low == pytest.approx(ratio - half, abs=0.15 * half)
    assert interval.high == pytest.approx(ratio + half, abs=0.15 * half)


def test_a_ratio_weighs_a_row_by_its_denominator():
    assert bootstrap_ratio_interval(np.array([3.0, 10.0]), np.array([1, 9]), seed=0).mean == pytest.approx(1.3)


def test_the_interval_for_95_percent_holds_the_truth_in_92_to_98_of_100_samples():
    generator = np.random.default_rng(4)
    held = []
    for number in range(500):
        nats = generator.gamma(2, 1.5, size=120)
        tokens = generator.integers(1, 40, size=120)
        mean = bootstrap_interval(nats, resamples=400, seed=number)
        ratio = bootstrap_ratio_interval(nats * tokens, tokens, resamples=400, seed=number)
        held.append([interval.low <= 3.0 <= interval.high for interval in (mean, ratio)])
    coverage = np.mean(held, axis=0)
    assert (coverage >= 0.92).all(), coverage
    assert (coverage <= 0.98).all(), coverage


def test_more_confidence_asks_for_a_wider_interval():
    values = np.random.default_rng(5).normal(size=40)
    narrow, wide = (bootstrap_interval(values, confidence=confidence, seed=0) for confidence in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high
    assert (narrow.confidence, wide.confidence) == (0.8, 0.99)


def test_a_test_set_that_is_resampled_in_several_blocks_has_the_interval_of_its_size():
    values = np.random.default_rng(6).normal(size=BLOCK_NUMBERS // 8)
    interval = bootstrap_interval(values, resamples=50, seed=0)
    half = NORMAL_975 / math.sqrt(len(values))
    assert interval.high - interval.low == pytest.approx(2 * half, rel=0.4)


@pytest.mark.parametrize("count", [1, 6, 100])
def test_no_success_at_all_leaves_the_exact_binomial_bound_open(count):
    interval = bootstrap_rate_interval(np.zeros(count), seed=0)
    assert (interval.mean, interval.low) == (0, 0)
    assert (1 - interval.high) ** count == pytest.approx(0.025)  # the rate that shows no success once in 40 times


@pytest.mark.parametrize("count", [1, 6, 100])
def test_nothing_but_success_is_the_mirror_image_of_no_success(count):
    wrong, right = (bootstrap_rate_interval(np.full(count, value), seed=0) for value in (0.0, 1.0))
    assert (right.mean, right.high) == (1, 1)
    assert right.low == pytest.approx(1 - wrong.high)


def test_a_rate_that_is_neither_0_nor_1_has_the_bootstrap_interval():
    values = np.repeat([0.0, 1.0], [70, 30])
    assert bootstrap_rate_interval(values, seed=8) == bootstrap_interval(values, seed=8)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf], [[1.0], [2.0]]])
def test_numbers_that_have_no_mean_are_refused(values):
    with pytest.raises(ValueError):
        bootstrap_interval(np.array(values), seed=0)


@pytest.mark.parametrize("denominators", [[1, 0], [1, -1], [1], [1, math.nan]])
def test_denominators_that_do_not_fit_are_refused(denominators):
    with pytest.raises(ValueError):
        bootstrap_ratio_interval(np.array([1.0, 2.0]), np.array(denominators), seed=0)


@pytest.mark.parametrize("settings", [{"confidence": 0}, {"confidence": 1}, {"confidence": 95}, {"resamples": 0}])
def test_settings_that_make_no_interval_are_refused(settings):
    with pytest.raises(ValueError, match="confidence"):
        bootstrap_interval(np.array([1.0, 2.0]), seed=0, **settings)


def test_values_that_are_no_rates_are_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        bootstrap_rate_interval(np.array([0.5, 1.5]), seed=0)
