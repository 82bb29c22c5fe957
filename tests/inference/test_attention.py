"""Attention over a prefix and a row's own part is attention over both, as the paper writes it
(https://arxiv.org/abs/1706.03762), in NumPy.
"""

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models.cache import BatchKVCache, KVCache, QuantizedKVCache

from mlxtune.device import exponentials
from mlxtune.inference.attention import NO_SINKS, attention
from mlxtune.inference.prefix_cache import Prefix, PrefixedBatch, PrefixedCache

GROUPS, SHARE, WIDTH, VALUE = 2, 3, 8, 4
"""Heads of keys, heads of queries to each, the width of keys and that of values."""
SCALE = 0.3
DRAW = np.random.default_rng(0)


def drawn(*shape):
    return DRAW.normal(size=shape).astype(np.float32)


def expected(queries, keys, values, seen):
    """Of one row: [H, L, D] queries, [G, K, D] keys, [L, K] whether a query sees a key."""
    found = []
    for head, query in enumerate(queries):
        scores = np.where(seen, query @ keys[head // SHARE].T * SCALE, -np.inf)
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
        found.append(powers / powers.sum(axis=-1, keepdims=True) @ values[head // SHARE])
    return np.stack(found)


@pytest.fixture(params=["MLX", "MLX in one", "NumPy"])
def way(request, monkeypatch):
    monkeypatch.setattr(exponentials, "are_slow", lambda: request.param == "NumPy")
    monkeypatch.setattr(exponentials, "FEW", 0)
    monkeypatch.setattr("mlxtune.inference.attention.FEW_QUERIES", 0 if request.param == "MLX in one" else 16)


def batch_of(prefixes):
    return PrefixedBatch.merge([PrefixedCache(prefix) for prefix in prefixes])


LONG = Prefix(mx.array(drawn(1, GROUPS, 11, WIDTH)), mx.array(drawn(1, GROUPS, 11, VALUE)))
SHORT = Prefix(mx.array(drawn(1, GROUPS, 2, WIDTH)), mx.array(drawn(1, GROUPS, 2, VALUE)))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    "prefixes", [[LONG] * 3, [None] * 3, [LONG, SHORT, LONG], [None, LONG, None], [SHORT, None, LONG]]
)
@pytest.mark.parametrize("mask", ["none", "causal", "two axes", "a row each", "added", "a head each"])
@pytest.mark.parametrize("length", [1, 4])
def test_each_row_sees_its_prefix_and_what_the_mask_says_of_its_own(prefixes, mask, length):
    rows, own = len(prefixes), 6
    queries = drawn(rows, GROUPS * SHARE, length, WIDTH)
    keys, values = drawn(rows, GROUPS, own, WIDTH), drawn(rows, GROUPS, own, VALUE)
    causal = np.tri(length, own, own - length, dtype=bool)
    padded = causal & (np.arange(own) >= np.array([0, 1, 2])[:, None, None])
    given, seen = {
        "none": (None, np.ones((rows, length, own), bool)),
        "causal": ("causal", np.stack([causal] * rows)),
        "two axes": (mx.array(causal), np.stack([causal] * rows)),
        "a row each": (mx.array(padded[:, None]), padded),
        "added": (mx.where(mx.array(padded[:, None]), 0.0, mx.finfo(mx.float32).min), padded),
        "a head each": (mx.array(np.repeat(padded[:, None], GROUPS * SHARE, axis=1)), padded),
    }[mask]
    found = attention(*map(mx.array, (queries, keys, values)), batch_of(prefixes), SCALE, given)
    for row, prefix in enumerate(prefixes):
        before = (
            [] if prefix is None else [np.array(prefix.keys[0])],
            [] if prefix is None else [np.array(prefix.values[0])],
        )
        all_keys, all_values = (
            np.concatenate([*was, now[row]], axis=1) for was, now in zip(before, (keys, values), strict=True)
        )
        sees = np.concatenate([np.ones((length, all_keys.shape[1] - own), bool), seen[row]], axis=1)
        np.testing.assert_allclose(found[row], expected(queries[row], all_keys, all_values, sees), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("way")
def test_padding_that_sees_nothing_gives_numbers():
    queries, keys, values = drawn(2, GROUPS * SHARE, 2, WIDTH), drawn(2, GROUPS, 2, WIDTH), drawn(2, GROUPS, 2, VALUE)
    nothing = mx.zeros((2, 1, 2, 2), mx.bool_)
    for prefixes in ([LONG] * 2, [None] * 2):
        found = attention(*map(mx.array, (queries, keys, values)), batch_of(prefixes), SCALE, nothing)
        assert np.isfinite(np.array(found)).all()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("way", ["MLX", "NumPy"], indirect=True)  # MLX's own has scores of 16 bits on a CPU
@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_the_gpus_precision_is_kept(dtype):
    """Of high scores as well, as networks have them whose keys have biases: all keys share a part here."""
    own, length = 5, 200
    queries, common = drawn(2, GROUPS * SHARE, 1, WIDTH), 60 / SCALE / WIDTH
    queries[..., 0] = WIDTH
    arrays = [queries, drawn(2, GROUPS, own, WIDTH), drawn(2, GROUPS, own, VALUE)]
    before = [drawn(1, GROUPS, length, WIDTH), drawn(1, GROUPS, length, VALUE)]
    for keys in (arrays[1], before[0]):
        keys[..., 0] = common
    half = [mx.array(one).astype(dtype) for one in (*arrays, *before)]
    queries, keys, values, first_keys, first_values = (np.array(one.astype(mx.float32), np.float64) for one in half)
    found = attention(*half[:3], batch_of([Prefix(*half[3:])] * 2), SCALE, None)
    assert found.dtype == dtype
    for row in range(2):
        whole = [np.concatenate(both, axis=1) for both in ((first_keys[0], keys[row]), (first_values[0], values[row]))]
        exact = expected(queries[row], *whole, np.ones((1, length + own), bool))
        assert np.abs(np.array(found[row].astype(mx.float32)) - exact).max() < 0.01 * np.abs(exact).max()


@pytest.mark.usefixtures("way")
def test_many_values_of_16_bits_do_not_run_over():
    values = mx.full((1, GROUPS, 8192, VALUE), 10.0, mx.float16)  # their sum is more than float16 has
    prefix = Prefix(mx.zeros((1, GROUPS, 8192, WIDTH), mx.float16), values)
    queries = mx.ones((2, GROUPS * SHARE, 1, WIDTH), mx.float16)
    own = mx.zeros((2, GROUPS, 2, WIDTH), mx.float16), mx.full((2, GROUPS, 2, VALUE), 10.0, mx.float16)
    found = attention(queries, *own, batch_of([prefix] * 2), SCALE, None)
    np.testing.assert_allclose(found.astype(mx.float32), np.full(found.shape, 10.0), rtol=0.01)


@pytest.mark.parametrize("cache", [None, KVCache(), BatchKVCache([0, 0])])
@pytest.mark.usefixtures("way")
def test_other_caches_have_no_prefix(cache):
    queries, keys = drawn(2, GROUPS * SHARE, 3, WIDTH), drawn(2, GROUPS, 5, WIDTH)
    found = attention(mx.array(queries), mx.array(keys), mx.array(keys), cache, SCALE, "causal")
    own = mx.fast.scaled_dot_product_attention(
        mx.array(queries), mx.array(keys), mx.array(keys), scale=SCALE, mask="causal"
    )
    np.testing.assert_allclose(found, own, rtol=1e-5, atol=1e-6)


def test_sinks_and_quantized_keys_are_mlx_lms_own_work(monkeypatch):
    monkeypatch.setattr(exponentials, "are_slow", lambda: True)
    queries, keys = mx.array(drawn(1, GROUPS * SHARE, 1, 64)), mx.array(drawn(1, GROUPS, 5, 64))
    sinks = mx.ones(GROUPS * SHARE)
    own = mx.fast.scaled_dot_product_attention(queries, keys, keys, scale=SCALE, sinks=sinks)
    assert np.array_equal(attention(queries, keys, keys, KVCache(), SCALE, None, sinks=sinks), own)
    cache = QuantizedKVCache(group_size=64, bits=8)
    own = mx.fast.scaled_dot_product_attention(queries, keys, keys, scale=SCALE)
    found = attention(queries, *cache.update_and_fetch(keys, keys), cache, SCALE, None)  # which changes the queries
    np.testing.assert_allclose(found, own, rtol=0.05, atol=0.05)


def test_sinks_are_refused_where_there_may_be_a_prefix():
    queries, keys = mx.array(drawn(1, GROUPS * SHARE, 1, WIDTH)), mx.array(drawn(1, GROUPS, 5, WIDTH))
    with pytest.raises(ValueError, match=NO_SINKS):
        attention(queries, keys, keys, PrefixedCache(), SCALE, None, sinks=mx.zeros(GROUPS * SHARE))
