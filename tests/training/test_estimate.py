import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxtune.data.batch import Shape
from mlxtune.training.estimate import Costs, fit_costs, highest_cost

SHAPES = [Shape(0, 1, 40, 5), Shape(20, 4, 60, 30), Shape(20, 8, 100, 64), Shape(0, 2, 400, 200), Shape(64, 8, 90, 90)]
TRUE = Costs(position=3e-3, pair=2e-6, target=1e-3, batch=0.02)

shapes = st.builds(Shape, st.integers(0, 100), st.integers(1, 16), st.integers(1, 300), st.integers(1, 100))


def test_costs_that_are_sums_are_found():
    found = fit_costs(SHAPES, [TRUE.of(shape) for shape in SHAPES])
    unseen = Shape(10, 6, 200, 80)
    assert found.of(unseen) == pytest.approx(TRUE.of(unseen), rel=0.01)


def test_noise_of_some_percent_moves_the_forecast_by_no_more():
    noise = np.random.default_rng(0).uniform(0.95, 1.05, len(SHAPES))
    found = fit_costs(SHAPES, [TRUE.of(shape) * factor for shape, factor in zip(SHAPES, noise, strict=True)])
    for shape in SHAPES:
        assert found.of(shape) == pytest.approx(TRUE.of(shape), rel=0.1)


def test_one_measurement_grows_with_what_there_is_more_of():
    found = fit_costs([Shape(0, 2, 50, 10)], [1.0])
    assert found.of(Shape(0, 2, 50, 10)) == pytest.approx(1.0)
    assert found.of(Shape(0, 4, 50, 20)) == pytest.approx(2.0)


def test_nothing_measured_foretells_nothing():
    with pytest.raises(ValueError, match="nothing"):
        fit_costs([], [])


@given(st.lists(shapes, min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_no_cost_is_below_zero(measured, seed):
    values = np.random.default_rng(seed).uniform(0.1, 10.0, len(measured))
    found = fit_costs(measured, values.tolist())
    assert min(found.position, found.pair, found.target, found.batch) >= 0


@given(shapes, shapes)
def test_the_highest_cost_is_no_less_than_any_sum_would_give(shape, measured):
    for costs in (TRUE, Costs(1, 0, 0, 0), Costs(0, 1, 0, 0), Costs(0, 0, 1, 0), Costs(0, 0, 0, 1)):
        assert highest_cost(shape, measured, costs.of(measured)) >= costs.of(shape) * (1 - 1e-9)
