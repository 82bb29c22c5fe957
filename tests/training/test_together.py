"""What one rank of several does with what it has read, and with another's state; the other rank is played."""

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_map

from mlxtune.device.distributed import ALONE, Ranks
from mlxtune.training.loop import dropout_key
from mlxtune.training.state import WindowSum
from mlxtune.training.together import digest, follow, joined


def flat(tree):
    return {name: np.array(array) for name, array in tree_flatten(tree)}


def put(array, first):
    """What rank 0's part of a message is, as an array like the other's."""
    return mx.array(np.array(first), array.dtype)


class Exchange:
    """Two ranks of one process, one after the other: rank 0's messages are kept, and rank 1 gets them."""

    def __init__(self):
        self.said = []
        self.first = Ranks(0, 2, self.keep, self.keep)

    def keep(self, array):
        self.said.append(np.array(array))
        return array

    @property
    def second(self):
        said = iter(self.said)
        return Ranks(
            1,
            2,
            lambda own: mx.concatenate([put(own, next(said)), own]),
            lambda own: put(own, next(said)) + own,
        )


def test_sums_of_all_ranks_are_those_of_a_window(tiny_training):
    state = tiny_training.state()
    parameters = state.network.trainable_parameters()
    gradients = tree_map(mx.ones_like, parameters)
    first = [3.5, 4.0, 40.0, 7.0, 9.25, digest(parameters)]
    ranks = Ranks(
        rank=1,
        size=2,
        all_gather=lambda own: mx.concatenate([put(own, [first]), own]),
        all_sum=lambda own: own + 2.0,
    )
    found = joined(WindowSum(1, 1.5, 2.0, 20, 3, seconds=8.0, gradients=gradients), state, ranks)
    assert found.counters() == WindowSum(1, 5.0, 6.0, 60, 10, seconds=9.25).counters()  # the seconds are rank 0's
    assert found.gradients is not None
    assert all((array == 3.0).all() for array in flat(found.gradients).values())

    nothing = joined(WindowSum(), state, ranks)  # a rank that has no row of any batch
    assert nothing.gradients is not None
    assert flat(nothing.gradients).keys() == flat(gradients).keys()
    assert all((array == 2.0).all() for array in flat(nothing.gradients).values())


def test_alone_nothing_is_added_and_nothing_copied(tiny_training):
    found = WindowSum(1, 1.5, 2.0, 20, 3, seconds=8.0)
    state = tiny_training.state()
    assert joined(found, state, ALONE) is found
    before = flat(state.parameters())
    follow(state, ALONE)
    assert all(np.array_equal(array, before[name]) for name, array in flat(state.parameters()).items())


def test_every_rank_goes_on_from_the_first_one_s_state_whatever_the_order_of_its_tensors(tiny_training):
    rows = tiny_training.rows([4] * 8)
    state, other = tiny_training.state(seed=1), tiny_training.state(seed=2)
    tiny_training.train(state, tiny_training.plan(rows, max_steps=3), rows)
    state.window_sum = WindowSum(batches=1, gradients={})
    parameters, optimizer_state = state.parameters()
    state.optimizer.state = dict(reversed(optimizer_state.items()))  # as a file may have it
    exchange = Exchange()
    follow(state, exchange.first)
    follow(other, exchange.second)
    assert other.counters() == state.counters()
    assert other.step == 3
    assert state.window_sum is other.window_sum is None
    expected = flat((parameters, optimizer_state))
    for tensors in (flat(state.parameters()), flat(other.parameters())):
        assert tensors.keys() == expected.keys()
        assert all(array.tobytes() == expected[name].tobytes() for name, array in tensors.items())


def test_a_rank_whose_parameters_have_drifted_takes_the_first_one_s(tiny_training):
    state, other = tiny_training.state(), tiny_training.state()
    parameters = other.network.trainable_parameters()
    other.network.update(tree_map(lambda array: array * (1 + 1e-7), parameters))
    drifted, right = (digest(each.network.trainable_parameters()) for each in (other, state))
    assert drifted != right

    first = Exchange()
    first.keep(np.array([[1.0, 1.0, 1, 1, 0.5, right]]))
    mine = Exchange()
    follow(state, mine.first)  # the tensors are what it says before its counters
    first.said += mine.said[:-2]
    first.keep(np.zeros(1, np.float32))  # the gradient's sum
    joined(WindowSum(1, 1.0, 1.0, 1, 1), other, first.second)
    assert digest(other.network.trainable_parameters()) == right


def test_ranks_draw_other_dropout_and_the_first_what_one_alone_draws():
    keys = {tuple(dropout_key(7, 3, 1, rank).tolist()) for rank in range(3)}
    assert len(keys) == 3
    assert mx.array_equal(dropout_key(7, 3, 1, 0), dropout_key(7, 3, 1))
