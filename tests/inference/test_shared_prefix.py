import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.models import gemma2, llama, qwen3
from mlx_lm.models.cache import KVCache
from tiny import tiny_llama

from mlxtune.inference.shared_prefix import (
    can_share_prefix,
    common_prefix_length,
    forward_both,
    forward_shared,
    layer_windows,
)

SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "rms_norm_eps": 1e-5,
    "vocab_size": 64,
    "rope_theta": 10000.0,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}
FAMILIES = {
    "llama": (llama, {"model_type": "llama"}),
    "llama with a sliding window": (
        llama,
        {
            "model_type": "llama",
            "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
            "sliding_window": 6,
        },
    ),
    "qwen3": (qwen3, {"model_type": "qwen3"}),
    "gemma2": (gemma2, {"model_type": "gemma2", "query_pre_attn_scalar": 8.0, "sliding_window": 16}),
}


@pytest.fixture(params=FAMILIES)
def network(request):
    module, extra = FAMILIES[request.param]
    mx.random.seed(0)
    return module.Model(module.ModelArgs.from_dict(SHAPE | extra))


def rows_with_prefix(prefix: int, rows: int, length: int) -> tuple[mx.array, mx.array]:
    generator = np.random.default_rng(3)
    return mx.array(generator.integers(0, 64, prefix)), mx.array(generator.integers(0, 64, (rows, length)))


def whole_rows(prefix: mx.array, rows: mx.array) -> mx.array:
    return mx.concatenate([mx.broadcast_to(prefix[None], (rows.shape[0], prefix.shape[0])), rows], axis=1)


def test_logits_are_those_of_the_whole_rows(network):
    prefix, rows = rows_with_prefix(9, 3, 7)
    shared = forward_shared(network, layer_windows(network), prefix, rows)
    np.testing.assert_allclose(np.array(shared), np.array(network(whole_rows(prefix, rows))[:, 9:]), atol=2e-5)


def test_gradients_are_those_of_the_whole_rows(network):
    prefix, rows = rows_with_prefix(9, 3, 7)
    network.freeze()
    layer = network.model.layers[0].self_attn.k_proj
    layer.unfreeze()
    windows = layer_windows(network)

    def gradient(loss):
        from mlx import nn

        return np.array(nn.value_and_grad(layer, loss)()[1]["weight"])

    shared = gradient(lambda: mx.sum(mx.square(forward_shared(network, windows, prefix, rows))))
    whole = gradient(lambda: mx.sum(mx.square(network(whole_rows(prefix, rows))[:, 9:])))
    np.testing.assert_allclose(shared, whole, atol=1e-5 * np.abs(whole).max())


@pytest.mark.parametrize("prefix", [0, 9])
@pytest.mark.parametrize("piece", [1, 3, 5, 100])
def test_long_rows_in_pieces_give_the_logits_of_the_whole_rows(network, prefix, piece):
    prefix, rows = rows_with_prefix(prefix, 3, 11)
    pieces = forward_shared(network, layer_windows(network), prefix, rows, piece=piece)
    whole = network(whole_rows(prefix, rows))[:, prefix.size :]
    np.testing.assert_allclose(np.array(pieces), np.array(whole), atol=3e-5)


def test_a_long_prefix_is_read_in_pieces_too(network):
    prefix, rows = rows_with_prefix(9, 2, 4)
    read, _ = forward_both(network, layer_windows(network), prefix, rows, piece=4)
    assert read is not None
    np.testing.assert_allclose(np.array(read), np.array(network(prefix[None])), atol=3e-5)


def test_gradients_flow_through_all_pieces(network):
    from mlx import nn

    prefix, rows = rows_with_prefix(9, 3, 11)
    network.freeze()
    layer = network.model.layers[0].self_attn.k_proj
    layer.unfreeze()

    def gradient(piece):
        forward = lambda: forward_shared(network, layer_windows(network), prefix, rows, piece=piece)  # noqa: E731
        return np.array(nn.value_and_grad(layer, lambda: mx.sum(mx.square(forward())))()[1]["weight"])

    whole = gradient(100)
    np.testing.assert_allclose(gradient(4), whole, atol=1e-5 * np.abs(whole).max())


def test_a_network_that_shares_is_told_from_one_that_reads_its_caches_inside(network):
    assert can_share_prefix(network)

    class ReadsTheCache(type(network)):
        def __call__(self, inputs, cache=None):
            offset = 0 if cache is None else cache[0].offset
            return super().__call__(inputs, cache) * (1 + offset)

    network.__class__ = ReadsTheCache
    assert not can_share_prefix(network)


def test_a_layer_that_keeps_more_than_keys_and_values_does_not_share():
    network = tiny_llama()

    class Recurrent(KVCache):
        pass

    network.make_cache = lambda: [KVCache(), Recurrent()]
    assert layer_windows(network) is None
    assert not can_share_prefix(network)


def test_without_a_prefix_nothing_is_recorded(network):
    _, rows = rows_with_prefix(0, 2, 5)
    np.testing.assert_array_equal(
        np.array(forward_shared(network, None, mx.zeros(0, mx.int32), rows)), np.array(network(rows))
    )


@given(
    prefix=st.lists(st.integers(0, 3), max_size=6), tails=st.lists(st.lists(st.integers(0, 3), max_size=4), min_size=1)
)
@settings(max_examples=60, deadline=None)
def test_the_common_prefix_is_the_longest_one(prefix, tails):
    rows = [np.array(prefix + tail, dtype=np.int64) for tail in tails]
    length = common_prefix_length(rows)
    assert all(row[:length].tolist() == rows[0][:length].tolist() for row in rows)
    longer = length + 1
    assert any(len(row) < longer or row[:longer].tolist() != rows[0][:longer].tolist() for row in rows)
