"""Whatever happens to a batch, a row goes on as its whole prompt would."""

import copy

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.models.cache import make_prompt_cache
from tiny import tiny_llama

from mlxtune.inference.model_functions import ModelFunctions
from mlxtune.inference.prefix_cache import NO_WINDOW, PrefixedBatch, PrefixedCache

IDS = np.random.default_rng(0).integers(3, 250, 60).tolist()
BEGINNINGS = ([], IDS[:20], IDS[20:25])


@pytest.fixture(scope="module")
def network():
    return tiny_llama(hidden=32, heads=4, kv_heads=2)


def read(network, ids, cache=None):
    """The caches of a prompt after these tokens, and the logits of the one that follows."""
    cache = [PrefixedCache() for _ in network.layers] if cache is None else cache
    with ModelFunctions(network).in_place():
        logits = network(mx.array([ids]), cache=cache)[0, -1]
        mx.eval(logits)
    return cache, logits


def step(network, batch, tokens):
    with ModelFunctions(network).in_place():
        logits = network(mx.array(tokens)[:, None], cache=batch)[:, -1]
        mx.eval(logits)
    return logits


def whole(network, ids):
    return network(mx.array([ids]), cache=make_prompt_cache(network))[0, -1]


def begun(network, beginning):
    """A function that gives the caches of a prompt that begins so, with that beginning in common."""
    if not beginning:
        return lambda: [PrefixedCache() for _ in network.layers]
    shared = [layer.as_prefix() for layer in read(network, beginning)[0]]
    return lambda: [PrefixedCache(layer.prefix) for layer in shared]


def check(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


PROMPT = st.tuples(st.integers(0, 2), st.integers(1, 6))
"""Which beginning, and how many tokens follow."""


@settings(max_examples=15)
@given(first=st.lists(PROMPT, min_size=1, max_size=4), later=st.lists(PROMPT, min_size=1, max_size=3), data=st.data())
def test_rows_that_come_and_go_say_what_they_would_alone(network, first, later, data):
    starts = [begun(network, beginning) for beginning in BEGINNINGS]

    def batch_of(prompts):
        rows = [(BEGINNINGS[which] + IDS[30 : 30 + length]) for which, length in prompts]
        caches = [read(network, IDS[30 : 30 + length], starts[which]())[0] for which, length in prompts]
        return rows, [PrefixedBatch.merge([cache[i] for cache in caches]) for i in range(len(network.layers))]

    rows, batch = batch_of(first)
    check(step(network, batch, [7] * len(rows)), mx.stack([whole(network, [*row, 7]) for row in rows]))
    rows = [[*row, 7] for row in rows]
    more, other = batch_of(later)
    for layer, added in zip(batch, other, strict=True):
        layer.extend(added)
    rows += more
    kept = data.draw(st.lists(st.sampled_from(range(len(rows))), min_size=1, unique=True).map(sorted))
    for layer in batch:
        layer.filter(kept)
    rows = [[*rows[i], 8] for i in kept]
    check(step(network, batch, [8] * len(rows)), mx.stack([whole(network, row) for row in rows]))
    last = len(rows) - 1
    _, logits = read(network, [9], [layer.extract(last) for layer in batch])
    check(logits, whole(network, [*rows[last], 9]))


@pytest.mark.parametrize("length", [0, 1, 19, 20, 21, 29])
def test_a_prompt_goes_on_from_any_place_of_another_and_leaves_it_as_it_was(network, length):
    shared, _ = read(network, IDS[20:30], begun(network, IDS[:20])())
    _, logits = read(network, [7, 8], [layer.first(length) for layer in shared])
    check(logits, whole(network, [*IDS[:length], 7, 8]))
    assert shared[0].offset == 30
    check(read(network, [9], shared)[1], whole(network, [*IDS[:30], 9]))


def test_what_was_read_becomes_a_prefix_whatever_it_is_made_of(network):
    once, _ = read(network, IDS[20:30], begun(network, IDS[:20])())
    twice = [layer.as_prefix() for layer in once]
    assert [(len(layer.prefix), layer.own.offset) for layer in twice] == [(30, 0)] * len(network.layers)
    assert [layer.as_prefix().prefix is layer.prefix for layer in twice] == [True] * len(network.layers)
    check(read(network, [9], twice)[1], whole(network, [*IDS[:30], 9]))
    assert PrefixedCache().as_prefix().prefix is None


def test_a_prefix_takes_its_memory_once(network):
    start = begun(network, IDS[:20])
    rows = [read(network, [7], start())[0] for _ in range(3)]
    assert len({id(row[0].prefix) for row in rows}) == 1
    assert copy.deepcopy(rows[0][0]).prefix is rows[0][0].prefix
    batch = PrefixedBatch.merge([row[0] for row in rows])
    assert batch.groups == [(rows[0][0].prefix, None)]
    assert batch.keys.shape[2] == 1


def test_a_layer_with_a_window_says_that_it_cannot():
    for cache in (PrefixedCache(), PrefixedBatch.merge([PrefixedCache()])):
        with pytest.raises(ValueError, match=NO_WINDOW):
            cache.make_mask(2, window_size=4)
