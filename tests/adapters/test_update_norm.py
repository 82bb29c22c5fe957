"""The size of an adapter beside its weights, by numpy from the formula: |scale B A| / |W|, layer by layer."""

import mlx.core as mx
import numpy as np
import pytest
from tiny import tiny_llama

from mlxtune.adapters.attach import LoraShape, attach_lora
from mlxtune.adapters.lora import base_weight, lora_layers
from mlxtune.adapters.update_norm import update_norm


def adapted(*, quantized=False, spread=0.0):
    """A network with an adapter of scale 2 whose B is random where it is to have a ``spread``."""
    network = tiny_llama(quantized=quantized)
    attach_lora(network, LoraShape(rank=4, alpha=8.0, dropout=0.0, target_modules="all-linear", layers="all"), seed=1)
    for number, (_, layer) in enumerate(lora_layers(network)):
        layer.lora_b = spread * (1 + number) * mx.random.normal(layer.lora_b.shape, key=mx.random.key(number))
    return network


@pytest.mark.parametrize("quantized", [False, True])
def test_it_is_the_norm_of_the_update_over_that_of_the_weights(quantized):
    network = adapted(quantized=quantized, spread=0.01)
    ratios = []
    for _, layer in lora_layers(network):
        a, b = np.array(layer.lora_a, np.float64), np.array(layer.lora_b, np.float64)
        weight = np.array(base_weight(layer.base), np.float64)
        ratios.append(np.linalg.norm(2 * (a @ b)) / np.linalg.norm(weight))
    found = update_norm(network)
    assert found is not None
    assert found.layers == 14
    assert found.relative_norm == pytest.approx(np.median(ratios), rel=1e-5)
    assert found.largest == pytest.approx(max(ratios), rel=1e-5)


def test_a_new_adapter_changes_nothing():
    found = update_norm(adapted())
    assert found is not None
    assert (found.relative_norm, found.largest) == (0.0, 0.0)


def test_without_adapter_or_with_numbers_gone_wrong_there_is_no_size():
    assert update_norm(tiny_llama()) is None
    assert update_norm(adapted(spread=float("nan"))) is None
