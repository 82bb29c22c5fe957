"""What is kept of metrics.jsonl for the live view, against the whole of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxtune.deployment.server.live_curves import POINTS, Curve, Curves


def step_line(step, **values):
    return {"step": step, "loss": 1.0, "seconds": 2.0, "tokens": 10} | values


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=6 * POINTS))
def test_points_are_means_of_neighbours_with_their_range(values):
    curve = Curve()
    for step, value in enumerate(values, 1):
        curve.add(step, value)
    points = curve.points()
    assert len(points) <= 2 * POINTS
    assert curve.last == (len(values), values[-1])
    for number, (step, mean, low, high) in enumerate(points):
        group = values[number * curve.width : (number + 1) * curve.width]
        first = number * curve.width + 1
        assert step == pytest.approx(first + (len(group) - 1) / 2)
        assert mean == pytest.approx(sum(group) / len(group), abs=1e-6)
        assert (low, high) == (min(group), max(group))
    assert sum(len(values[i * curve.width : (i + 1) * curve.width]) for i in range(len(points))) == len(values)


def test_few_values_are_left_as_they_are():
    curve = Curve()
    for step in range(1, 2 * POINTS + 1):
        curve.add(step, step / 7)
    assert curve.points() == [(step, step / 7, step / 7, step / 7) for step in range(1, 2 * POINTS + 1)]


def test_a_spike_in_a_long_run_stays_visible():
    curve = Curve()
    for step, value in enumerate(np.random.default_rng(0).random(100_000).tolist(), 1):
        curve.add(step, 50.0 if step == 77_777 else value)
    assert max(high for *_, high in curve.points()) == 50.0
    assert len(curve.points()) <= 2 * POINTS


def test_counts_are_those_of_all_lines():
    curves = Curves()
    for step in range(1, 5):
        curves.add(step_line(step, loss=4.0 / step))
    curves.add({"step": 4, "valid_loss": 1.5, "valid_seconds": 3.0})
    curves.add({"step": 5, "skipped": "loss", "seconds": 1.0, "rows": ["a"]})
    curves.add({"step": 6, "out_of_memory": True, "part_positions": 4})
    assert (curves.step, curves.seconds, curves.tokens, curves.skipped) == (5, 9.0, 40, 1)
    assert curves.was_short_of_memory
    assert curves.best == (4, 1.5)


def test_the_best_validation_is_the_first_of_the_lowest():
    curves = Curves()
    for step, loss in ((2, 1.5), (4, 1.2), (6, 1.2), (8, 1.4)):
        curves.add({"step": step, "valid_loss": loss, "valid_seconds": 1.0})
    assert curves.best == (4, 1.2)


def test_what_is_left_is_told_by_the_last_steps_and_their_validations():
    curves = Curves()
    for step in range(1, 201):
        curves.add(step_line(step, seconds=100.0 if step <= 150 else 2.0))
        if step % 10 == 0:
            curves.add({"step": step, "valid_loss": 1.0, "valid_seconds": 5.0, "samples_seconds": 1.0})
    assert curves.seconds_left(300, None) == pytest.approx(100 * (2.0 + 0.6))


def test_the_limit_that_comes_first_tells_what_is_left():
    curves = Curves()
    for step in range(1, 31):
        curves.add(step_line(step, seconds=2.0))
    assert curves.seconds_left(1000, 2.0) == pytest.approx(60.0)  # of two minutes one is over
    assert curves.share_done(1000, 2.0) == pytest.approx(0.5)
    assert curves.seconds_left(35, 2.0) == pytest.approx(10.0)
    assert curves.share_done(35, 2.0) == pytest.approx(30 / 35)


def test_where_nothing_limits_a_run_or_nothing_was_made_nothing_is_told():
    curves = Curves()
    assert (curves.seconds_left(10, None), curves.share_done(10, None)) == (None, 0.0)
    curves.add(step_line(1))
    assert (curves.seconds_left(None, None), curves.share_done(None, None)) == (None, None)


@pytest.mark.parametrize(
    "line",
    [{}, {"step": "1"}, {"step": True}, {"step": None, "loss": 1.0}, {"step": 1.5, "loss": 2.0}],
)
def test_lines_of_something_else_are_passed_over(line):
    curves = Curves()
    curves.add(line)
    assert curves.step is None
    assert all(curve.last is None for curve in curves.curves.values())


def test_values_that_are_no_numbers_are_passed_over():
    curves = Curves()
    curves.add({"step": 1, "loss": "low", "seconds": None, "tokens": float("nan"), "grad_norm": 10**400})
    assert (curves.step, curves.seconds, curves.tokens) == (1, 0.0, 0)
    assert curves.curves["loss"].last is None
