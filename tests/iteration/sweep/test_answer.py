"""Would more data help: the interval is Student's, the verdict that of the differences seed by seed."""

import numpy as np
import pytest
import scipy.stats

from mlxtune.iteration.sweep.answer import T_975, answer, interval
from mlxtune.iteration.sweep.data_sizes import MOST_SEEDS

ROWS = {0.1: 100, 0.3: 300, 1.0: 1000}


def test_the_table_is_students():
    assert len(T_975) == MOST_SEEDS - 1
    for degrees, printed in enumerate(T_975, start=1):
        assert printed == pytest.approx(scipy.stats.t.ppf(0.975, degrees), abs=5e-4)


@pytest.mark.parametrize("count", [2, 3, 10])
def test_the_interval_is_that_of_another_program(count):
    values = np.random.default_rng(count).normal(2.0, 0.3, count)
    low, high = scipy.stats.t.interval(0.95, count - 1, values.mean(), scipy.stats.sem(values))
    assert interval(values.tolist()) == pytest.approx((values.mean(), low, high), abs=1e-3)


def test_losses_that_fall_alike_for_every_seed_say_yes_however_far_the_seeds_are_apart():
    found = answer({0.1: [3.0, 2.0, 1.0], 0.3: [2.5, 1.5, 0.5], 1.0: [2.3, 1.31, 0.29]}, ROWS)
    assert found.verdict == "yes"
    assert found.difference[0] == pytest.approx(-0.2)
    assert found.sentence.startswith("Yes: from 300 to 1000 rows the validation loss fell by 0.200 (")
    assert "3 seeds" in found.sentence


def test_losses_that_rise_say_no():
    assert answer({0.3: [1.0, 1.1, 1.2], 1.0: [1.5, 1.61, 1.69]}, ROWS).verdict == "no"


def test_a_fall_within_what_chance_makes_is_called_that():
    found = answer({0.3: [1.0, 1.2, 1.1], 1.0: [0.9, 1.25, 0.95]}, ROWS)
    assert found.verdict == "not distinguishable"
    assert "not distinguishable from chance" in found.sentence


def test_equal_losses_are_no_help():
    assert answer({0.3: [1.0, 1.0], 1.0: [1.0, 1.0]}, ROWS).verdict == "not distinguishable"


def test_only_the_two_largest_parts_say_whether_more_would_help():
    flat = answer({0.1: [9.0, 9.0, 9.0], 0.3: [1.0, 1.1, 1.0], 1.0: [1.05, 1.0, 1.1]}, ROWS)
    assert flat.verdict == "not distinguishable"


def test_the_band_is_the_interval_of_each_size():
    found = answer({0.1: [3.0, 2.0], 1.0: [1.0, 0.5]}, ROWS)
    assert [(size.rows, size.mean) for size in found.sizes] == [(100, 2.5), (1000, 0.75)]
    assert found.sizes[0].low == pytest.approx(2.5 - 12.706 * 0.5, rel=1e-4)
