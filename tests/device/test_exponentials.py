"""NumPy's exponentials and MLX's are the same functions, whichever is taken."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mlxtune.device import exponentials

VALUES = st.floats(-200, 200, width=32)


@pytest.fixture(params=[False, True], ids=["MLX", "NumPy"])
def way(request, monkeypatch):
    monkeypatch.setattr(exponentials, "are_slow", lambda: request.param)
    monkeypatch.setattr(exponentials, "FEW", 0)


def softmax(scores):
    powers = np.exp(scores.astype(np.float64) - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def softmax_of_parts(*scores):
    found = exponentials.softmax_over(*scores)
    assert {one.dtype for one in found} == {mx.float32}
    return mx.concatenate(found, axis=-1)


def swiglu(gate, x):
    return gate.astype(np.float64) / (1 + np.exp(-gate.astype(np.float64))) * x


@given(scores=arrays(np.float32, (3, 2, 5), elements=VALUES), cut=st.integers(1, 5))
def test_parts_have_one_softmax(scores, cut):
    for slow in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(exponentials, "are_slow", lambda slow=slow: slow)
            patch.setattr(exponentials, "FEW", 0)
            first, turned = mx.array(scores[..., :cut]), mx.array(scores[..., cut:].swapaxes(0, 1))
            parts = [first, turned.swapaxes(0, 1)] if cut < scores.shape[-1] else [first]
            np.testing.assert_allclose(softmax_of_parts(*parts), softmax(scores), rtol=1e-5, atol=1e-7)


@given(gate=arrays(np.float32, (3, 5), elements=VALUES), x=arrays(np.float32, (3, 5), elements=VALUES))
def test_swiglu_is_its_formula(gate, x):
    for slow in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(exponentials, "are_slow", lambda slow=slow: slow)
            patch.setattr(exponentials, "FEW", 0)
            found = exponentials.swiglu(mx.array(gate), mx.array(x))
            np.testing.assert_allclose(found, swiglu(gate, x), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("way")
def test_what_is_masked_by_the_least_number_has_no_weight():
    least = mx.finfo(mx.float32).min
    found = softmax_of_parts(mx.array([[1.0, least, 1.0], [least, least, least]]) + mx.array([0.0, -3.0, 0.0]))
    np.testing.assert_allclose(found, [[0.5, 0, 0.5], [1 / 3, 1 / 3, 1 / 3]], rtol=1e-6)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_a_softmax_of_16_bits_is_of_32_and_gates_stay_16(dtype):
    found = softmax_of_parts(mx.zeros((1, 4096), dtype))
    np.testing.assert_allclose(found, np.full((1, 4096), 1 / 4096), rtol=1e-6)
    assert exponentials.swiglu(mx.ones(3, dtype), mx.ones(3, dtype)).dtype == dtype


@pytest.mark.usefixtures("way")
def test_gates_are_left_as_they_are():
    gate = mx.array([1.0, -2.0])
    exponentials.swiglu(gate, gate)
    assert gate.tolist() == [1.0, -2.0]


@pytest.mark.usefixtures("way")
def test_numbers_are_drawn_as_often_as_their_logits_say_and_never_without_a_chance():
    logits = mx.array([[-float("inf"), 1.0, -200.0, 2.0, -float("inf")]])
    keys = mx.random.split(mx.random.key(7), 2000)
    drawn = [exponentials.categorical(logits, keys[i]) for i in range(len(keys))]
    assert {(one.shape, one.dtype) for one in drawn} == {((1,), mx.uint32)}
    counts = np.bincount([int(one.item()) for one in drawn], minlength=5)
    assert counts[[0, 2, 4]].tolist() == [0, 0, 0]
    share = 1 / (1 + np.e)
    assert abs(counts[1] / len(keys) - share) < 4 * np.sqrt(share * (1 - share) / len(keys))
    assert np.array_equal(exponentials.categorical(logits, keys[0]), drawn[0])


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("logits", [[np.nan, 1, 2], [1, np.inf, 2], [-np.inf] * 3])
def test_what_a_broken_network_says_still_draws_a_number_of_the_vocabulary(logits):
    drawn = exponentials.categorical(mx.array([logits], mx.float32), mx.random.key(1))
    assert drawn.shape == (1,)
    assert 0 <= drawn.item() < 3


@pytest.mark.parametrize("values", [exponentials.FEW - 1, exponentials.FEW])
def test_numpy_has_those_that_are_many_enough_to_wait_for(monkeypatch, values):
    monkeypatch.setattr(exponentials, "are_slow", lambda: True)
    numpys = exponentials._memories
    taken = []
    monkeypatch.setattr(exponentials, "_memories", lambda *arrays: taken.append(arrays) or numpys(*arrays))
    exponentials.softmax_over(mx.zeros((1, values)))
    exponentials.swiglu(mx.zeros(values), mx.zeros(values))
    assert len(taken) == (2 if values == exponentials.FEW else 0)
