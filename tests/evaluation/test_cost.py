"""What a model costs: counted, and measured in one way for all."""

import mlx.core as mx
import pytest
from mlx import nn
from mlx.utils import tree_flatten
from tiny import VOCABULARY_SIZE, tiny_llama

from mlxtune.adapters.attach import LoraShape, attach_lora
from mlxtune.evaluation.cost import WRITTEN_TOKENS, Cost, count_parameters, measure_cost

SHAPE = {"hidden": 64, "heads": 4, "kv_heads": 2}
LAYER = 64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128 + 2 * 64
"""q and o, k and v, the three of the MLP, two norms."""
PARAMETERS = VOCABULARY_SIZE * 64 + 2 * LAYER + 64


def test_parameters_are_those_of_the_architecture_whatever_bits_they_are_stored_in():
    assert count_parameters(tiny_llama(**SHAPE)) == PARAMETERS
    assert count_parameters(tiny_llama(quantized=True, **SHAPE)) == PARAMETERS
    assert count_parameters(tiny_llama(tied=False, **SHAPE)) == PARAMETERS + VOCABULARY_SIZE * 64


def test_biases_count_and_scales_do_not():
    network = nn.Sequential(nn.Linear(64, 32), nn.Linear(32, 32, bias=False))
    nn.quantize(network, group_size=32, bits=4)
    assert count_parameters(network) == 64 * 32 + 32 + 32 * 32


def test_an_adapters_parameters_are_counted_beside_its_bases():
    network = tiny_llama(**SHAPE)
    attach_lora(network, LoraShape(rank=2, alpha=4.0, dropout=0.0, target_modules=("q_proj",), layers="all"), seed=0)
    assert count_parameters(network) == PARAMETERS + 2 * 2 * (64 + 64)


def test_memory_holds_the_weights_and_what_an_answer_takes():
    network = tiny_llama(**SHAPE)
    weights = sum(array.nbytes for _, array in tree_flatten(network.parameters()))
    short, long = (measure_cost(network, [5] * length) for length in (4, 512))
    assert short.peak_memory_bytes > weights
    # keys and values alone: 2 layers of 2 heads of 16 numbers, of 4 bytes each, at each of 508 more positions
    assert long.peak_memory_bytes - short.peak_memory_bytes > 508 * 2 * 2 * 2 * 16 * 4


def test_every_model_writes_as_many_tokens_whatever_it_would_rather_say():
    asked = []

    class Counting(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        @property
        def layers(self):
            return self.network.layers

        def __call__(self, token_ids, cache=None):
            asked.append(token_ids.shape)
            return self.network(token_ids, cache=cache)

    cost = measure_cost(Counting(tiny_llama(**SHAPE)), [1, 2, 3], disk_bytes=7)
    assert asked == [(1, 3)] + [(1, 1)] * WRITTEN_TOKENS
    assert cost.tokens_per_s > 0
    assert (cost.parameters, cost.disk_bytes) == (PARAMETERS, 7)


def test_what_else_is_in_memory_is_not_the_models():
    network = tiny_llama(**SHAPE)
    alone = measure_cost(network, [5] * 8)
    beside = mx.zeros((1 << 22,))
    mx.eval(beside)
    assert measure_cost(network, [5] * 8).peak_memory_bytes == pytest.approx(alone.peak_memory_bytes, rel=0.2)


def test_costs_survive_json():
    assert Cost.from_json(Cost(1, 2, 3, 4.5).to_json()) == Cost(1, 2, 3, 4.5)
    with pytest.raises(TypeError):
        Cost.from_json({"price": 3})
