"""What a method puts on a network: strengths, ranks and magnitudes by their papers' formulas, and what is refused."""

import adapted as examples
import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten
from reference.lora import dora_forward, dora_merge, finite_differences, lora_forward, lora_merge, rslora_scale
from tiny import tiny_llama

from mlxtune.adapters.attach import LoraShape, adapter_parameters, attach_lora
from mlxtune.adapters.lora import LoRALinear, initial_magnitude, lora_layers
from mlxtune.adapters.saved import saved_modules
from mlxtune.adapters.shape_of import shape_of_adapter
from mlxtune.errors import AdapterError

TOKENS = mx.array([[5, 6, 7, 8, 200, 31]])
UP = "model.layers.0.mlp.up_proj"


def network_of(shape, **settings):
    network = tiny_llama(**settings)
    attach_lora(network, shape, seed=0)
    return network


def drawn(network):
    """The network with every factor away from where training starts."""
    for number, (_, layer) in enumerate(lora_layers(network)):
        layer.lora_b = 0.1 * mx.random.normal(layer.lora_b.shape, key=mx.random.key(number))
        if "m" in layer:
            layer.m = layer.m * mx.random.uniform(0.8, 1.2, layer.m.shape, key=mx.random.key(99 + number))
    return network


def test_rslora_divides_by_the_root_of_the_rank_in_the_answer_and_in_the_merged_weight():
    network = drawn(network_of(LoraShape(rank=8, alpha=16.0, use_rslora=True)))
    layer = dict(lora_layers(network))[UP]
    assert layer.scale == rslora_scale(16.0, 8)
    assert layer.alpha == 16
    x = np.random.default_rng(0).normal(size=(3, 64))
    a, b = np.array(layer.lora_a).T, np.array(layer.lora_b).T
    plain_alpha = rslora_scale(16.0, 8) * 8  # with which LoRA's own formula says the same
    expected = lora_forward(x, layer.linear.weight, a, b, alpha=plain_alpha)
    np.testing.assert_allclose(np.array(layer(mx.array(x, mx.float32))), expected, rtol=0, atol=1e-5)
    merged = lora_merge(layer.linear.weight, a, b, alpha=plain_alpha)
    np.testing.assert_allclose(np.array(layer.merged()), merged, rtol=0, atol=1e-5)


@pytest.mark.parametrize("quantized", [False, True])
def test_dora_starts_at_the_base_and_answers_by_its_formula(quantized):
    network = tiny_llama(quantized=quantized)
    before = np.array(network(TOKENS))
    attach_lora(network, LoraShape(rank=4, alpha=6.0, use_dora=True), seed=0)
    np.testing.assert_allclose(np.array(network(TOKENS)), before, rtol=0, atol=1e-4)
    layer = dict(lora_layers(drawn(network)))[UP]
    weight = mx.dequantize(*(layer.linear[key] for key in ("weight", "scales", "biases")), 32, 4) if quantized else None
    weight = np.array(layer.linear.weight if weight is None else weight)
    x = np.random.default_rng(0).normal(size=(3, 64))
    numbers = {"a": np.array(layer.lora_a).T, "b": np.array(layer.lora_b).T, "scale": 1.5, "magnitude": layer.m}
    expected = dora_forward(x, weight, **numbers)
    np.testing.assert_allclose(np.array(layer(mx.array(x, mx.float32))), expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose(np.array(layer.merged()), dora_merge(weight, **numbers), rtol=0, atol=1e-5)


def test_doras_gradient_takes_the_length_for_a_constant_as_the_paper_does():
    base = nn.Linear(5, 4)
    generator = np.random.default_rng(0)
    a, b, x, seen = (generator.normal(size=size) for size in ((2, 5), (4, 2), (3, 5), (3, 4)))
    m = np.array(initial_magnitude(base), np.float64) * generator.uniform(0.8, 1.2, 4)
    layer = LoRALinear(base, *(mx.array(one.T, mx.float32) for one in (a, b)), scale=1.5, m=mx.array(m, mx.float32))
    base.freeze()
    weight, bias = (np.array(base[key], np.float64) for key in ("weight", "bias"))
    length = np.sqrt(((weight + 1.5 * b @ a) ** 2).sum(axis=1))

    def loss(a, b, m):
        return float((seen * dora_forward(x, weight, a, b, scale=1.5, magnitude=m, length=length, bias=bias)).sum())

    expected = finite_differences(loss, [a, b, m])
    given, wanted = mx.array(x, mx.float32), mx.array(seen, mx.float32)
    _, found = nn.value_and_grad(layer, lambda: mx.sum(wanted * layer(given)))()
    for name, gradient in zip(("lora_a", "lora_b", "m"), expected, strict=True):
        np.testing.assert_allclose(np.array(found[name]), gradient.T, rtol=0, atol=1e-4, err_msg=name)


def test_patterns_give_some_layers_another_rank_and_strength_and_the_first_that_matches_counts():
    shape = LoraShape(
        rank=4,
        alpha=8.0,
        rank_pattern={r"layers\.1\..*q_proj": 3, "q_proj": 2, "mlp.up_proj": 6},
        alpha_pattern={"v_proj": 2.0},
    )
    layers = dict(lora_layers(network_of(shape)))
    assert [layers[f"model.layers.{i}.self_attn.q_proj"].rank for i in (0, 1)] == [2, 3]
    assert layers[UP].rank == 6
    assert layers["model.layers.0.self_attn.v_proj"].scale == 2.0 / 4
    assert layers["model.layers.0.self_attn.q_proj"].scale == 8.0 / 2
    assert layers["model.layers.0.mlp.down_proj"].rank == 4


def test_a_module_to_save_starts_as_the_base_s_and_alone_trains():
    network = tiny_llama(quantized=True)
    before = np.array(network(TOKENS))
    attach_lora(network, LoraShape(rank=2, alpha=4.0, modules_to_save=("embed_tokens", "norm")), seed=0)
    np.testing.assert_allclose(np.array(network(TOKENS)), before, rtol=0, atol=1e-3)
    assert [path for path, _ in saved_modules(network)] == ["model.embed_tokens", "model.norm"]
    trained = dict(tree_flatten(network.trainable_parameters()))
    assert trained.keys() == adapter_parameters(network).keys()
    assert trained["model.embed_tokens.saved.weight"].shape == (264, 64)
    assert {array.dtype for array in trained.values()} == {mx.float32}


@pytest.mark.parametrize("tied", [True, False])
def test_an_embedding_and_a_head_that_are_named_get_an_update(tied):
    names = ("q_proj", "embed_tokens") if tied else ("q_proj", "embed_tokens", "lm_head")
    network = network_of(LoraShape(rank=2, alpha=4.0, target_modules=names, layers=1), tied=tied)
    ends = {"model.embed_tokens"} | (set() if tied else {"lm_head"})
    assert {path for path, _ in lora_layers(network)} == ends | {"model.layers.1.self_attn.q_proj"}


SHAPES = [
    LoraShape(rank=4, alpha=8.0, target_modules=("q_proj", "v_proj"), use_rslora=True),
    LoraShape(rank=4, alpha=8.0, target_modules=("q_proj",), use_dora=True, layers=1),
    LoraShape(rank=4, alpha=8.0, target_modules=("model.embed_tokens", "q_proj")),
    LoraShape(
        rank=4,
        alpha=8.0,
        target_modules=("q_proj", "v_proj"),
        rank_pattern={r"model\.layers\.0\.self_attn\.q_proj": 2},
        alpha_pattern={r"model\.layers\.1\.self_attn\.v_proj": 3},
        modules_to_save=("model.norm",),
    ),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_shape_of_every_method_can_be_told_from_the_network(shape):
    assert shape_of_adapter(network_of(shape)) == shape


@pytest.mark.parametrize(
    ("shape", "said", "way_out"),
    [
        ({"target_modules": ("lm_head",)}, "head is its embedding", "embed_tokens"),
        ({"modules_to_save": ("lm_head",)}, "head is its embedding", "embed_tokens"),
        ({"rank_pattern": {"kv_proj": 4}}, "rank_pattern has 'kv_proj', which matches no layer", "v_proj"),
        ({"alpha_pattern": {"(": 4}}, "no regular expression", "correct it"),
        ({"modules_to_save": ("norms",)}, "'norms' matches no module", "did you mean norm?"),
        ({"modules_to_save": ("mlp",)}, "is a MLP, which cannot be trained as a whole", "a norm or a linear layer"),
        (
            {"target_modules": ("q_proj",), "modules_to_save": ("q_proj",)},
            "in method.target_modules and in method.modules_to_save",
            "leave it out of one",
        ),
    ],
)
def test_what_means_nothing_is_refused_by_name_and_changes_nothing(shape, said, way_out):
    network = tiny_llama()
    with pytest.raises(AdapterError, match=said) as caught:
        attach_lora(network, LoraShape(**{"rank": 2, "alpha": 4.0} | shape), seed=0)
    assert way_out in caught.value.remedy
    assert not lora_layers(network)
    assert not saved_modules(network)


def test_dora_is_refused_for_a_mixture_s_experts_and_not_for_its_other_layers():
    with pytest.raises(AdapterError, match="experts, for which DoRA is not available") as caught:
        attach_lora(examples.tiny_mixture(), LoraShape(rank=2, alpha=4.0, use_dora=True), seed=0)
    assert "method.type to lora" in caught.value.remedy
    network = examples.tiny_mixture()
    attach_lora(network, LoraShape(rank=2, alpha=4.0, use_dora=True, target_modules=("q_proj",)), seed=0)
    assert all("m" in layer for _, layer in lora_layers(network))


def test_a_saved_module_has_memory_of_its_own_before_its_first_update_so_that_a_plan_sees_it():
    network = tiny_llama()
    before = mx.get_active_memory()
    attach_lora(
        network, LoraShape(rank=1, alpha=1.0, target_modules=("q_proj",), modules_to_save=("embed_tokens",)), seed=0
    )
    mx.eval(network.parameters())
    ((_, module),) = saved_modules(network)
    assert mx.get_active_memory() - before >= module.saved.weight.nbytes
    assert np.array_equal(module.saved.weight, module.original.weight)
