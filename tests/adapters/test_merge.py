"""Folding an adapter into weights; that the weights are those of the formulas, test_layer_kinds.py shows."""

import mlx.core as mx
import numpy as np
import pytest
from adapted import NETWORKS, TOKENS
from mlx.utils import tree_flatten
from mlx_lm.models import llama
from tiny import tiny_config, tiny_llama

from mlxtune.adapters.attach import LoraShape, adapter_parameters, attach_lora, load_adapter_parameters
from mlxtune.adapters.lora import lora_layers
from mlxtune.adapters.merge import layer_updates, merged_weights
from mlxtune.device.dequantize import dequantize_network


def tuned(kind="tied", **shape):
    network = NETWORKS[kind](**shape)
    attach_lora(network, LoraShape(rank=2, alpha=4.0), seed=0)
    load_adapter_parameters(network, {name: array + 0.05 for name, array in adapter_parameters(network).items()})
    return network


@pytest.mark.parametrize("quantized", [True, False])
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_plain_network_with_the_merged_weights_answers_as_the_adapted_one(kind, quantized):
    network, plain = tuned(kind, quantized=quantized), NETWORKS[kind]()
    plain.load_weights(list(merged_weights(network, mx.float32)))  # strict: every name, no other
    np.testing.assert_allclose(np.array(plain(TOKENS)), np.array(network(TOKENS)), rtol=0, atol=2e-4)


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_updates_are_what_lies_between_the_base_and_the_merged_weights(kind):
    network, base = tuned(kind, quantized=True), NETWORKS[kind](quantized=True)
    dequantize_network(base)
    before, merged = dict(tree_flatten(base.parameters())), dict(merged_weights(network, mx.float32))
    updates = dict(layer_updates(network))
    assert updates.keys() == {path for path, _ in lora_layers(network)}
    for path, (weight, update) in updates.items():
        assert weight.dtype == update.dtype == mx.float32
        assert mx.array_equal(weight, before[f"{path}.weight"])
        assert mx.array_equal(merged[f"{path}.weight"], weight + update)


def test_merging_rounds_once():
    network = tuned()
    merged = dict(merged_weights(network, mx.bfloat16))
    for path, (weight, update) in layer_updates(network):
        assert merged[f"{path}.weight"].dtype == mx.bfloat16
        assert mx.array_equal(merged[f"{path}.weight"], (weight + update).astype(mx.bfloat16))


def test_biases_stay_with_their_layer():
    network = llama.Model(llama.ModelArgs.from_dict(tiny_config() | {"attention_bias": True}))
    expected = {name for name, _ in tree_flatten(network.parameters())}
    attach_lora(network, LoraShape(rank=2, alpha=4.0), seed=0)
    assert {name for name, _ in merged_weights(network, mx.float32)} == expected


def test_a_network_without_an_adapter_gives_its_own_weights():
    network = tiny_llama()
    assert dict(layer_updates(network)) == {}
    for name, array in merged_weights(network, mx.float32):
        assert mx.array_equal(array, dict(tree_flatten(network.parameters()))[name])


def test_merging_leaves_the_network_as_it_is():
    network = tuned()
    before = network(TOKENS)
    mx.eval([array for _, array in merged_weights(network, mx.float16)])
    assert len(lora_layers(network)) == 14
    assert mx.array_equal(network(TOKENS), before)
