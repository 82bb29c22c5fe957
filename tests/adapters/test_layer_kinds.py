"""Layers that carry an update, kind by kind: what they answer, and what they are folded into, against numpy."""

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx_lm.models.switch_layers import SwitchLinear
from reference.lora import dora_merge, lora_merge

from mlxtune.adapters.lora import LoRAEmbedding, LoRALinear, LoRASwitchLinear, adapted_kind, base_weight

RANK, SCALE = 3, 0.7
IDS = mx.array([[0, 3, 29], [3, 1, 7]])


def normal(*shape, seed=0):
    return mx.random.normal(shape, key=mx.random.key(seed))


def linear(*, bias=True, m=None, quantized=False):
    layer = nn.Linear(64, 16, bias=bias)
    layer.weight = normal(16, 64, seed=1)
    if bias:
        layer.bias = normal(16, seed=2)
    if quantized:
        layer = nn.QuantizedLinear.from_linear(layer, group_size=32, bits=4)
    return LoRALinear(layer, normal(64, RANK, seed=3), normal(RANK, 16, seed=4), scale=SCALE, m=m)


def embedding(*, m=None, norm_axis=1, quantized=False):
    layer = nn.Embedding(30, 64)
    layer.weight = normal(30, 64, seed=1)
    if quantized:
        layer = nn.QuantizedEmbedding.from_embedding(layer, group_size=32, bits=4)
    factors = normal(30, RANK, seed=3), normal(RANK, 64, seed=4)
    return LoRAEmbedding(layer, *factors, scale=SCALE, m=m, norm_axis=norm_axis)


def switch(*, quantized=False):
    layer = SwitchLinear(64, 16, 4, bias=True)
    layer.weight, layer.bias = normal(4, 16, 64, seed=1), normal(4, 16, seed=2)
    if quantized:
        layer = layer.to_quantized(group_size=32, bits=4)
    return LoRASwitchLinear(layer, normal(4, RANK, 64, seed=3), normal(4, 16, RANK, seed=4), scale=SCALE)


def merged_by_numpy(layer):
    """From the formulas, with B and A as the papers have them: [D_out, R] and [R, D_in]."""
    weight = np.array(base_weight(layer.base), np.float64)
    a, b = np.array(layer.lora_a, np.float64), np.array(layer.lora_b, np.float64)
    if isinstance(layer, LoRALinear):
        a, b = a.T, b.T
    elif isinstance(layer, LoRAEmbedding):
        a, b = b, a
    if isinstance(layer, LoRASwitchLinear):
        experts = zip(weight, a, b, strict=True)
        return np.stack([lora_merge(w, a, b, alpha=SCALE * RANK) for w, a, b in experts])
    if "m" in layer:
        return dora_merge(weight, a, b, scale=SCALE, magnitude=layer.m, axis=layer.norm_axis)
    return lora_merge(weight, a, b, alpha=SCALE * RANK)


ROWS, COLUMNS = np.abs(normal(30, seed=5)) + 1, np.abs(normal(64, seed=6)) + 1
OUT = np.abs(normal(16, seed=5)) + 1


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("m", [None, mx.array(OUT)], ids=["LoRA", "DoRA"])
def test_a_linear_layer_answers_as_the_papers_weight_does(m, bias, quantized):
    layer, x = linear(bias=bias, m=m, quantized=quantized), normal(2, 5, 64, seed=9)
    weight = merged_by_numpy(layer)
    expected = np.array(x, np.float64) @ weight.T + (np.array(layer.base.bias) if bias else 0.0)
    np.testing.assert_allclose(np.array(layer(x)), expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(np.array(layer.merged()), weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize(
    ("m", "norm_axis"),
    [(None, 1), (mx.array(ROWS), 1), (mx.array(COLUMNS), 0)],
    ids=["LoRA", "DoRA of mlx-lm", "DoRA of PEFT"],
)
def test_an_embedding_answers_as_the_papers_weight_does_at_both_ends(m, norm_axis, quantized):
    layer, x = embedding(m=m, norm_axis=norm_axis, quantized=quantized), normal(2, 5, 64, seed=9)
    weight = merged_by_numpy(layer)
    np.testing.assert_allclose(np.array(layer(IDS)), weight[np.array(IDS)], rtol=1e-4, atol=1e-4)
    expected = np.array(x, np.float64) @ weight.T
    np.testing.assert_allclose(np.array(layer.as_linear(x)), expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(np.array(layer.merged()), weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("sorted_indices", [False, True])
def test_each_expert_answers_with_its_own_weight(sorted_indices, quantized):
    layer, x = switch(quantized=quantized), normal(6, 1, 64, seed=9)
    experts = mx.array([0, 0, 1, 2, 3, 3]) if sorted_indices else mx.array([3, 0, 2, 0, 1, 3])
    weight = merged_by_numpy(layer)
    chosen, biases = weight[np.array(experts)], np.array(layer.base.bias)[np.array(experts)]
    expected = np.einsum("nji,noi->njo", np.array(x, np.float64), chosen) + biases[:, None]
    answer = layer(x, experts, sorted_indices=sorted_indices)
    np.testing.assert_allclose(np.array(answer), expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(np.array(layer.merged()), weight, rtol=1e-4, atol=1e-5)


def test_doras_gain_follows_the_factors():
    layer = linear(m=mx.array(OUT))
    before = layer.gain()
    assert layer.gain() is before  # it is not worked out again
    layer.lora_b = layer.lora_b * 2
    np.testing.assert_allclose(np.array(layer.merged()), merged_by_numpy(layer), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", [linear, embedding, switch])
def test_the_arrays_of_an_update_are_the_only_parameters_beside_the_base(layer):
    made = layer()
    assert set(made.parameters()) - {made.base_name} == {"lora_a", "lora_b"}


def test_bfloat16_activations_stay_bfloat16():
    x = normal(6, 1, 64).astype(mx.bfloat16)
    for layer in (linear(), linear(m=mx.array(OUT)), embedding(m=mx.array(COLUMNS), norm_axis=0), switch()):
        layer.base.update({name: array.astype(mx.bfloat16) for name, array in layer.base.parameters().items()})
        if isinstance(layer, LoRASwitchLinear):
            assert layer(x, mx.array([0, 1, 2, 3, 0, 1])).dtype == mx.bfloat16
        else:
            assert (layer.as_linear(x) if isinstance(layer, LoRAEmbedding) else layer(x)).dtype == mx.bfloat16
    assert layer.lora_a.dtype == mx.float32


def test_dropout_of_experts_follows_its_key():
    layer, x, experts = switch(), mx.ones((6, 1, 64)), mx.array([0, 1, 2, 3, 0, 1])
    layer.dropout = 0.5
    whole = layer(x, experts)
    layer.set_dropout_key(mx.random.key(1))
    assert mx.array_equal(layer(x, experts), layer(x, experts))
    assert not mx.array_equal(layer(x, experts), whole)


def test_a_class_that_is_merely_related_gets_no_update():
    class Special(nn.Linear):
        pass

    assert adapted_kind(nn.Linear(2, 2)) is LoRALinear
    assert adapted_kind(Special(2, 2)) is None
    assert adapted_kind(nn.RMSNorm(2)) is None
