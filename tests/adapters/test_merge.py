"""Folding an adapter into weights, against numpy."""

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models import llama
from reference.lora import lora_merge
from tiny import tiny_config, tiny_llama

from mlxtune.adapters.attach import LoraShape, adapter_parameters, attach_lora, load_adapter_parameters
from mlxtune.adapters.lora import lora_layers
from mlxtune.adapters.merge import merge_lora, merged_weights
from mlxtune.errors import AdapterError


def normal(*shape, seed=0, dtype=mx.float32):
    return mx.random.normal(shape, key=mx.random.key(seed)).astype(dtype)


def tuned_llama(**shape):
    network = tiny_llama(**shape)
    attach_lora(network, LoraShape(rank=2, alpha=4.0), seed=0)
    parameters = adapter_parameters(network)
    load_adapter_parameters(network, {name: array + 0.05 for name, array in parameters.items()})
    return network


def test_merge_equals_the_papers():
    weight, lora_a, lora_b = normal(16, 24, seed=1), normal(24, 4, seed=2), normal(4, 16, seed=3)
    expected = lora_merge(weight, np.array(lora_a).T, np.array(lora_b).T, alpha=10.0)
    np.testing.assert_allclose(np.array(merge_lora(weight, lora_a, lora_b, 10.0 / 4)), expected, rtol=1e-5, atol=1e-5)


def test_merge_rounds_once():
    weight, lora_a, lora_b = normal(64, 64, seed=1, dtype=mx.bfloat16), normal(64, 4, seed=2), normal(4, 64, seed=3)
    merged = merge_lora(weight, lora_a, lora_b, 0.013)
    assert merged.dtype == mx.bfloat16
    exact = lora_merge(weight.astype(mx.float32), np.array(lora_a).T, np.array(lora_b).T, alpha=0.013 * 4)
    once = mx.array(exact.astype(np.float32)).astype(mx.bfloat16)
    assert mx.mean(merged == once).item() > 0.99  # float32 and float64 fall on different sides of a tie now and then


def test_factors_that_do_not_fit_are_refused():
    with pytest.raises(AdapterError, match=r"\[24, 4\] and \[4, 16\] do not fit a weight of \[24, 16\]"):
        merge_lora(normal(24, 16), normal(24, 4), normal(4, 16), 1.0)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("quantized", [True, False])
def test_a_plain_network_with_the_merged_weights_answers_as_the_adapted_one(quantized, tied):
    network = tuned_llama(quantized=quantized, tied=tied)
    plain = llama.Model(llama.ModelArgs.from_dict(tiny_config(tied=tied)))
    plain.load_weights(list(merged_weights(network, mx.float32)))  # strict: every name, no other
    tokens = mx.array([[5, 6, 7, 8]])
    np.testing.assert_allclose(np.array(plain(tokens)), np.array(network(tokens)), rtol=0, atol=1e-5)


def test_biases_stay_with_their_layer():
    network = llama.Model(llama.ModelArgs.from_dict(tiny_config() | {"attention_bias": True}))
    expected = {name for name, _ in tree_flatten(network.parameters())}
    attach_lora(network, LoraShape(rank=2, alpha=4.0), seed=0)
    assert {name for name, _ in merged_weights(network, mx.float32)} == expected


def test_merging_leaves_the_network_as_it_is():
    network = tuned_llama()
    before = network(mx.array([[5, 6]]))
    mx.eval([array for _, array in merged_weights(network, mx.float16)])
    assert len(lora_layers(network)) == 14
    assert mx.array_equal(network(mx.array([[5, 6]])), before)
