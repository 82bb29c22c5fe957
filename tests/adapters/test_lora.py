"""One adapted layer: its numbers, its types, its dropout, its gradients."""

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.models.switch_layers import SwitchLinear
from reference.lora import lora_forward
from tiny import tiny_llama

from mlxtune.adapters.attach import LoraShape, adapter_parameters, attach_lora, load_adapter_parameters
from mlxtune.adapters.lora import LoRALinear, initial_factors, lora_layers, set_dropout_keys
from mlxtune.device.precision import GPU_BFLOAT16, apply_precision


def random_layer(*, dropout=0.0, bias=True, rank=4, alpha=10.0):
    shapes = {"weight": (16, 24), "bias": (16,), "lora_a": (24, rank), "lora_b": (rank, 16)}
    drawn = {name: mx.random.normal(shapes[name], key=mx.random.key(i)) for i, name in enumerate(shapes)}
    linear = nn.Linear(24, 16, bias=bias)
    linear.update({name: drawn[name] for name in ("weight", "bias")[: 1 + bias]})
    lora_a, lora_b = drawn["lora_a"], drawn["lora_b"]
    return LoRALinear(linear, lora_a, lora_b, scale=alpha / rank, dropout=dropout)


def rows(seed=7):
    return mx.random.normal((3, 5, 24), key=mx.random.key(seed))


@pytest.mark.parametrize("bias", [True, False])
def test_forward_equals_the_papers_equation(bias):
    layer = random_layer(bias=bias)
    expected = lora_forward(
        rows(),
        layer.linear.weight,
        np.array(layer.lora_a).T,
        np.array(layer.lora_b).T,
        alpha=10.0,
        bias=np.array(layer.linear.bias) if bias else None,
    )
    np.testing.assert_allclose(np.array(layer(rows())), expected, rtol=1e-4, atol=1e-5)


def test_a_layer_starts_out_as_its_base():
    linear = nn.Linear(24, 16)
    lora_a, lora_b = initial_factors(linear, 4, seed=0, path="x")
    layer = LoRALinear(linear, lora_a, lora_b, scale=2.0, dropout=0.0)
    assert mx.array_equal(layer(rows()), linear(rows()))


def test_initial_a_fills_its_bounds_evenly():
    lora_a, _ = initial_factors(nn.Linear(1024, 8), 64, seed=0, path="x")
    values = np.array(lora_a) * 1024**0.5
    assert values.min() >= -1.0
    assert values.max() <= 1.0
    assert abs(values.mean()) < 0.01
    assert abs(values.var() - 1 / 3) < 0.01  # of the uniform distribution on [-1, 1]


def test_initial_a_depends_on_seed_and_path_and_on_nothing_else():
    first, _ = initial_factors(nn.Linear(24, 16), 4, seed=3, path="model.layers.0.mlp.up_proj")
    mx.random.normal((5,))  # whatever else draws from the global state
    again, _ = initial_factors(nn.Linear(24, 16), 4, seed=3, path="model.layers.0.mlp.up_proj")
    other_seed, _ = initial_factors(nn.Linear(24, 16), 4, seed=4, path="model.layers.0.mlp.up_proj")
    other_path, _ = initial_factors(nn.Linear(24, 16), 4, seed=3, path="model.layers.1.mlp.up_proj")
    assert mx.array_equal(first, again)
    assert not mx.array_equal(first, other_seed)
    assert not mx.array_equal(first, other_path)


def test_each_expert_starts_from_factors_of_its_own_and_an_embedding_from_a_row_a_token():
    lora_a, lora_b = initial_factors(SwitchLinear(24, 16, 3), 4, seed=3, path="x")
    assert (lora_a.shape, lora_b.shape) == ((3, 4, 24), (3, 16, 4))
    assert not mx.array_equal(lora_a[0], lora_a[1])
    assert abs(np.abs(lora_a).max() * 24**0.5 - 1) < 0.1
    lora_a, lora_b = initial_factors(nn.Embedding(30, 8), 4, seed=3, path="x")
    assert (lora_a.shape, lora_b.shape) == ((30, 4), (4, 8))


def test_drawing_the_initial_factors_leaves_the_global_random_state_alone():
    linear = nn.Linear(24, 16)
    before = mx.random.state[0].tolist()
    initial_factors(linear, 4, seed=3, path="x")
    assert mx.random.state[0].tolist() == before


def test_bfloat16_activations_of_a_quantized_network_stay_bfloat16_in_every_layer():
    network = tiny_llama(quantized=True)
    apply_precision(network, GPU_BFLOAT16)
    attach_lora(network, LoraShape(rank=4, alpha=8.0, dropout=0.5), seed=0)
    set_dropout_keys(network, mx.random.key(0))
    seen: dict[str, mx.Dtype] = {}
    for path, layer in lora_layers(network):
        layer.linear = Watched(layer.linear, path, seen)
    logits = network(mx.array([[5, 6, 7]]))
    assert logits.dtype == mx.bfloat16
    assert set(seen.values()) == {mx.bfloat16}
    assert len(seen) == 14
    assert {layer.lora_a.dtype for _, layer in lora_layers(network)} == {mx.float32}


class Watched(nn.Module):
    """A base layer that notes the type of what goes in."""

    def __init__(self, linear, path, seen):
        super().__init__()
        self.linear, self._path, self._seen = linear, path, seen

    def __call__(self, x):
        self._seen[self._path] = x.dtype
        return self.linear(x)


def test_gradients_of_float32_factors_are_float32_under_bfloat16_activations():
    network = tiny_llama(quantized=True)
    apply_precision(network, GPU_BFLOAT16)
    attach_lora(network, LoraShape(rank=2, alpha=4.0), seed=0)
    _, gradients = nn.value_and_grad(network, lambda: network(mx.array([[5, 6, 7]])).sum())()
    assert {array.dtype for _, array in tree_flatten(gradients)} == {mx.float32}


def test_without_a_key_nothing_is_dropped():
    layer, plain = random_layer(dropout=0.5), random_layer(dropout=0.0)
    plain.linear = layer.linear
    layer.train()
    assert mx.array_equal(layer(rows()), plain(rows()))


def test_dropout_drops_its_share_of_the_updates_input_and_scales_the_rest():
    identity = LoRALinear(nn.Linear(100, 100, bias=False), mx.eye(100), mx.eye(100), scale=1.0, dropout=0.25)
    identity.linear.weight = mx.zeros((100, 100))
    identity.set_dropout_key(mx.random.key(1))
    out = np.array(identity(mx.ones((200, 100))))
    assert set(np.unique(out)) == {np.float32(0.0), np.float32(1 / 0.75)}
    assert abs((out == 0).mean() - 0.25) < 0.01


def test_the_mask_is_a_function_of_the_key_alone():
    layer = random_layer(dropout=0.5)
    layer.set_dropout_key(mx.random.key(1))
    first = layer(rows())
    mx.random.normal((5,))
    assert mx.array_equal(layer(rows()), first)
    layer.set_dropout_key(mx.random.key(2))
    assert not mx.array_equal(layer(rows()), first)


def test_each_layer_gets_its_own_part_of_the_key():
    network = tiny_llama()
    attach_lora(network, LoraShape(rank=2, alpha=4.0, dropout=0.5), seed=0)
    set_dropout_keys(network, mx.random.key(9))
    keys = {tuple(layer._dropout_key.tolist()) for _, layer in lora_layers(network)}
    assert len(keys) == 14


def test_dropout_keys_are_no_parameters_and_survive_a_gradient():
    network = tiny_llama()
    attach_lora(network, LoraShape(rank=2, alpha=4.0, dropout=0.5), seed=0)
    load_adapter_parameters(network, {name: array + 0.1 for name, array in adapter_parameters(network).items()})
    names = {name for name, _ in tree_flatten(network.parameters())}
    set_dropout_keys(network, mx.random.key(9))
    assert {name for name, _ in tree_flatten(network.parameters())} == names

    def loss():
        return (network(mx.array([[5, 6, 7]])) ** 2).sum()

    value, gradients = nn.value_and_grad(network, loss)()
    assert {name for name, _ in tree_flatten(gradients)} == {name for name in names if ".lora_" in name}
    assert mx.array_equal(loss(), value)  # the same masks again
    set_dropout_keys(network, None)
    assert not mx.array_equal(loss(), value)


def test_recomputing_under_checkpointing_meets_the_same_mask():
    layer = random_layer(dropout=0.5)
    layer.set_dropout_key(mx.random.key(1))

    def loss(x, recomputed):
        return ((mx.checkpoint(layer) if recomputed else layer)(x) ** 2).sum()

    plain, again = (mx.grad(lambda x, flag=flag: loss(x, flag))(rows()) for flag in (False, True))
    assert mx.array_equal(plain, again)
