import itertools
from dataclasses import dataclass, replace
from functools import reduce

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten, tree_map

from mlxtune.data.batch import make_batch
from mlxtune.inference.likelihood import make_reader
from mlxtune.training.objectives.sft import sft_loss_sum
from mlxtune.training.optimizer import make_optimizer
from mlxtune.training.step import clip, make_step, norm_of


@pytest.fixture(scope="module")
def network(tiny_training):
    return tiny_training.state().network


KEY = mx.random.key(0)


@dataclass(frozen=True)
class Found:
    """What the batches of a window say together."""

    loss: float
    target_count: int
    weight_sum: float
    gradients: dict


def read(network, batches) -> Found:
    reader = make_reader(network)
    step = make_step(
        network,
        make_optimizer("adamw", weight_decay=0.0),
        lambda batch: (sft_loss_sum(reader, batch), []),
        max_grad_norm=None,
    )
    sums = [step.gradient(batch, KEY) for batch in batches]
    weight = sum(float(mx.sum(batch.target_weight)) for batch in batches)
    total = reduce(lambda a, b: tree_map(mx.add, a, b), [gradients for *_, gradients in sums])
    loss = sum(float(loss) for loss, *_ in sums) / weight
    return Found(loss, sum(batch.target_count for batch in batches), weight, tree_map(lambda g: g / weight, total))


def gradient_of(network, rows, parts, *, share_prefix=False):
    return read(network, [make_batch(rows, part, share_prefix=share_prefix) for part in parts])


def flat(gradients):
    return dict(tree_flatten(gradients))


def assert_close(found, expected, *, rtol):
    """Entry by entry, within ``rtol`` of the largest entry of the same array."""
    found, expected = flat(found), flat(expected)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        atol = rtol * float(mx.abs(array).max()) + 1e-9
        np.testing.assert_allclose(np.array(found[name]), np.array(array), rtol=0, atol=atol, err_msg=name)


@given(
    lengths=st.lists(st.integers(3, 9), min_size=2, max_size=6),
    cuts=st.sets(st.integers(1, 5)),
    prefix=st.integers(0, 5),
    share_prefix=st.booleans(),
)
@settings(max_examples=15, deadline=None)
def test_the_gradient_is_the_same_however_the_rows_are_cut_into_batches(
    network, tiny_training, lengths, cuts, prefix, share_prefix
):
    rows = tiny_training.rows(lengths, prefix=prefix)
    numbers = list(range(len(rows)))
    edges = [0, *sorted(cut for cut in cuts if cut < len(rows)), len(rows)]
    parts = [numbers[start:end] for start, end in itertools.pairwise(edges)]
    whole = gradient_of(network, rows, [numbers])
    cut = gradient_of(network, rows, parts, share_prefix=share_prefix)
    assert cut.target_count == whole.target_count == sum(int(row.is_target.sum()) for row in rows)
    assert cut.loss == pytest.approx(whole.loss, rel=1e-5)
    assert_close(cut.gradients, whole.gradients, rtol=1e-5)


def test_a_shared_prefix_leaves_the_gradients_as_they_are(network, tiny_training):
    rows = tiny_training.rows([4, 9, 6, 7], prefix=12)
    assert make_batch(rows, range(4), share_prefix=True).prefix_ids.shape[0] >= 12
    shared = gradient_of(network, rows, [range(4)], share_prefix=True)
    whole = gradient_of(network, rows, [range(4)], share_prefix=False)
    assert shared.loss == pytest.approx(whole.loss, rel=1e-6)
    assert_close(shared.gradients, whole.gradients, rtol=1e-5)


def test_each_target_weighs_the_same_whatever_rows_it_is_batched_with(network, tiny_training):
    rows = tiny_training.rows([3, 17, 5, 30, 8, 2, 12, 21])
    one = gradient_of(network, rows, [range(8)])
    four = gradient_of(network, rows, [range(i, i + 2) for i in range(0, 8, 2)])
    assert four.loss == pytest.approx(one.loss, rel=1e-6)
    assert_close(four.gradients, one.gradients, rtol=1e-6)
    means = [gradient_of(network, rows, [range(i, i + 2)]).loss for i in range(0, 8, 2)]
    assert np.mean(means) != pytest.approx(one.loss, rel=1e-3)  # what a mean of means would have said


def test_weighted_targets_give_the_weighted_mean(network, tiny_training):
    rows = tiny_training.rows([5, 7])

    def found(weights):
        batch = make_batch(rows, range(2), share_prefix=False)
        owner = np.array(batch.target_index) // batch.token_ids.shape[1]
        batch = replace(batch, target_weight=mx.array(np.array(weights, np.float32)[owner]))
        return read(network, [batch])

    first, second, both = found([1.0, 0.0]), found([0.0, 1.0]), found([0.5, 2.0])
    shares = np.array([0.5, 2.0]) * [first.weight_sum, second.weight_sum]
    shares /= shares.sum()
    assert both.loss == pytest.approx(shares @ [first.loss, second.loss], rel=1e-6)
    expected = tree_map(lambda a, b: shares[0] * a + shares[1] * b, first.gradients, second.gradients)
    assert_close(both.gradients, expected, rtol=1e-5)


def test_no_parameter_changes_while_gradients_are_formed(tiny_training):
    state = tiny_training.state()
    before = tiny_training.adapter(state)
    gradient_of(state.network, tiny_training.rows([4, 5, 6]), [[0], [1], [2]])
    after = tiny_training.adapter(state)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_the_norm_of_a_gradient_with_millions_of_values_is_right():
    assert norm_of({"embedding": mx.ones((5000, 5000))}).item() == 5000.0


@pytest.mark.parametrize("max_norm", [0.5, 1e9, None])
def test_clipping_is_by_the_norm_over_all_gradients_together(max_norm):
    generator = np.random.default_rng(0)
    arrays = {"a": generator.normal(size=(5, 7)), "b": [{"c": generator.normal(size=11)}]}
    alone = 0.7  # as families have some
    norm = np.sqrt((arrays["a"] ** 2).sum() + (arrays["b"][0]["c"] ** 2).sum() + alone**2)
    factor = min(1.0, max_norm / norm) if max_norm is not None else 1.0
    gradients = {"a": mx.array(arrays["a"]), "b": [{"c": mx.array(arrays["b"][0]["c"])}], "d": mx.array(alone)}
    told = norm_of(gradients)
    clipped = clip(gradients, told, max_norm)
    assert float(clipped["d"]) == pytest.approx(factor * alone, rel=1e-5)
    assert float(told) == pytest.approx(norm, rel=1e-6)
    np.testing.assert_allclose(np.array(clipped["a"]), factor * arrays["a"], rtol=1e-5)
    np.testing.assert_allclose(np.array(clipped["b"][0]["c"]), factor * arrays["b"][0]["c"], rtol=1e-5)
