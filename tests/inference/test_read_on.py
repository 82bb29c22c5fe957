"""A network that reads on from a place says what it says of the whole text."""

import mlx.core as mx
import numpy as np
import pytest
from tiny import VOCABULARY_SIZE, tiny_llama

from mlxtune.inference.likelihood import make_reader, target_logits
from mlxtune.inference.read_on import evaluate, read_on


@pytest.fixture(scope="module")
def network():
    return tiny_llama(hidden=32, heads=2, kv_heads=1)


def ids(*shape):
    return mx.array(np.random.default_rng(sum(shape)).integers(3, VOCABULARY_SIZE, shape))


@pytest.mark.parametrize("piece", [256, 3])
def test_rows_that_read_on_from_several_places_say_what_whole_rows_say(network, piece):
    reader = make_reader(network)
    reader = type(reader)(reader.network, reader.anatomy, reader.windows, piece)
    prefix, prompts, ends = ids(1, 4), ids(3, 5), ids(4, 2)
    owners = [2, 0, 2, 1]
    _, begun = read_on(reader, prefix)
    states, place = read_on(reader, prompts, begun)
    evaluate(states, place)
    assert (place.rows, place.length) == (3, 9)
    found = target_logits(reader, read_on(reader, ends, place.of(owners))[0])
    whole = mx.concatenate([mx.broadcast_to(prefix, (4, 4)), prompts[mx.array(owners)], ends], axis=1)
    np.testing.assert_allclose(found, network(whole)[:, 9:], atol=2e-5)


def test_a_place_can_be_read_on_from_more_than_once(network):
    reader = make_reader(network)
    _, place = read_on(reader, ids(1, 6))
    first, again = (read_on(reader, ids(2, 3), place)[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)
