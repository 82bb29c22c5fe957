"""Reductions of large arrays, held against numpy in float64."""

import mlx.core as mx
import numpy as np
import pytest

from mlxtune.device.reductions import all_finite, total

FLOATS = pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16, mx.float32, mx.float64], ids=str)


def test_a_sum_over_many_values_loses_none_of_them():
    values = np.random.default_rng(0).random((8192, 8192), np.float32)
    assert total(mx.array(values)) == pytest.approx(values.sum(dtype=np.float64), rel=1e-6)


def test_a_large_value_does_not_swallow_the_others():
    values = np.ones((4096, 1024), np.float32)
    values[0, 0] = 2.0**24
    assert total(mx.array(values)) == pytest.approx(values.sum(dtype=np.float64), rel=1e-4)


@pytest.mark.parametrize("shape", [(), (5,), (0,), (2, 3, 4)])
def test_every_shape_and_type_has_a_sum(shape):
    assert total(mx.full(shape, 1.5, mx.float16)) == 1.5 * np.prod(shape)


@FLOATS
@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan"), -float("nan")])
def test_one_value_that_is_not_finite_is_found(dtype, value):
    array = mx.random.normal((50, 70), key=mx.random.key(0)).astype(dtype)
    array[31, 17] = value
    assert not all_finite(array)
    assert not all_finite(array.T)
    assert not all_finite(array[31, 17])


@FLOATS
def test_the_largest_values_of_a_type_are_finite(dtype):
    for value in (mx.finfo(dtype).max, mx.finfo(dtype).min, 0.0, -0.0):
        assert all_finite(mx.full((3, 5), value, dtype).T)


@pytest.mark.parametrize("array", [mx.zeros((0, 4)), mx.array([2**32 - 1], mx.uint32), mx.array([True])])
def test_what_has_no_values_or_only_whole_ones_is_finite(array):
    assert all_finite(array)
