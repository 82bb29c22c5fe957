"""Which layers get an update, what is trainable then, and which requests are refused."""

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten, tree_map
from mlx_lm.models import mixtral
from tiny import tiny_llama

from mlxtune.adapters.attach import (
    LoraShape,
    adapter_parameters,
    attach_lora,
    load_adapter_parameters,
)
from mlxtune.adapters.lora import lora_layers
from mlxtune.adapters.shape_of import shape_of_adapter
from mlxtune.errors import AdapterError

LEAVES = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
TOKENS = mx.array([[5, 6, 7, 8]])


def adapted(network):
    return [path for path, _ in lora_layers(network)]


def tiny_mixtral():
    arguments = {"model_type": "mixtral", "vocab_size": 32, "hidden_size": 32, "intermediate_size": 32}
    arguments |= {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "num_local_experts": 2}
    return mixtral.Model(mixtral.ModelArgs.from_dict(arguments))


@pytest.mark.parametrize("quantized", [False, True])
def test_all_linear_means_every_linear_layer_of_every_block_and_never_the_head(quantized):
    network = tiny_llama(tied=False, quantized=quantized)
    attach_lora(network, LoraShape(rank=2, alpha=4.0), seed=0)
    assert {path.rsplit(".", 1)[-1] for path in adapted(network)} == LEAVES
    assert len(adapted(network)) == 2 * len(LEAVES)
    assert not isinstance(network.lm_head, type(lora_layers(network)[0][1]))


def test_named_modules_alone_are_adapted():
    network = tiny_llama()
    attach_lora(network, LoraShape(rank=2, alpha=4.0, target_modules=("q_proj", "mlp.up_proj")), seed=0)
    assert adapted(network) == [
        "model.layers.0.mlp.up_proj",
        "model.layers.0.self_attn.q_proj",
        "model.layers.1.mlp.up_proj",
        "model.layers.1.self_attn.q_proj",
    ]


def test_a_name_is_a_whole_part_of_a_path():
    with pytest.raises(AdapterError, match="'proj' matches no linear layer"):
        attach_lora(tiny_llama(), LoraShape(rank=2, alpha=4.0, target_modules=("proj",)), seed=0)


def test_top_n_layers_are_those_nearest_the_head():
    network = tiny_llama(layers=3)
    attach_lora(network, LoraShape(rank=2, alpha=4.0, target_modules=("q_proj",), layers=2), seed=0)
    assert adapted(network) == ["model.layers.1.self_attn.q_proj", "model.layers.2.self_attn.q_proj"]


def test_a_layers_first_factor_does_not_depend_on_which_others_are_adapted():
    few, all_of_them = tiny_llama(), tiny_llama()
    attach_lora(few, LoraShape(rank=2, alpha=4.0, target_modules=("v_proj",), layers=1), seed=5)
    attach_lora(all_of_them, LoraShape(rank=2, alpha=4.0), seed=5)
    for name, array in adapter_parameters(few).items():
        assert mx.array_equal(array, adapter_parameters(all_of_them)[name])


@pytest.mark.parametrize("quantized", [False, True])
def test_only_the_factors_are_trainable(quantized):
    network = tiny_llama(quantized=quantized)
    network.unfreeze()
    attach_lora(network, LoraShape(rank=2, alpha=4.0), seed=0)
    assert {name for name, _ in tree_flatten(network.trainable_parameters())} == set(adapter_parameters(network))


def test_the_network_answers_as_before():
    network = tiny_llama()
    before = network(TOKENS)
    attach_lora(network, LoraShape(rank=2, alpha=4.0), seed=0)
    np.testing.assert_array_equal(np.array(network(TOKENS)), np.array(before))


def test_factors_have_the_shapes_of_a_quantized_layers_true_dimensions():
    network = tiny_llama(quantized=True)  # hidden 64, intermediate 128
    attach_lora(network, LoraShape(rank=2, alpha=4.0), seed=0)
    parameters = adapter_parameters(network)
    assert parameters["model.layers.0.mlp.down_proj.lora_a"].shape == (128, 2)
    assert parameters["model.layers.0.mlp.down_proj.lora_b"].shape == (2, 64)
    assert parameters["model.layers.1.self_attn.k_proj.lora_b"].shape == (2, 32)


def test_an_unknown_module_is_refused_with_the_nearest_name_and_nothing_is_changed():
    network = tiny_llama()
    network.unfreeze()
    with pytest.raises(AdapterError) as caught:
        attach_lora(network, LoraShape(rank=2, alpha=4.0, target_modules=("q_proj", "gate_porj")), seed=0)
    assert "gate_porj" in caught.value.message
    assert "did you mean gate_proj?" in caught.value.remedy
    assert adapted(network) == []
    assert "model.norm.weight" in dict(tree_flatten(network.trainable_parameters()))


def test_all_linear_means_neither_the_head_nor_the_embedding():
    network = tiny_llama(tied=False)
    attach_lora(network, LoraShape(rank=2, alpha=4.0), seed=0)
    assert all(path.startswith("model.layers.") for path in adapted(network))


def test_more_blocks_than_there_are_is_refused():
    with pytest.raises(AdapterError, match="top 3 blocks; the network has 2"):
        attach_lora(tiny_llama(), LoraShape(rank=2, alpha=4.0, layers=3), seed=0)


def test_all_linear_means_the_experts_of_a_mixture_too():
    network = tiny_mixtral()
    attach_lora(network, LoraShape(rank=2, alpha=4.0), seed=0)
    experts = {path.rsplit(".", 1)[-1] for path in adapted(network) if "switch_mlp" in path}
    assert experts == {"gate_proj", "up_proj", "down_proj"}
    assert len(adapted(network)) == 4 + 1 + 3
    assert adapter_parameters(network)["model.layers.0.block_sparse_moe.switch_mlp.down_proj.lora_b"].shape == (
        2,
        32,
        2,
    )


def test_gradients_reach_the_factors_of_every_expert_that_had_a_token():
    network = tiny_mixtral()
    attach_lora(network, LoraShape(rank=2, alpha=4.0, target_modules=("up_proj",)), seed=0)
    load_adapter_parameters(network, {name: array + 0.1 for name, array in adapter_parameters(network).items()})
    tokens = mx.arange(32)[None]  # enough for rows to be sorted by their experts

    def loss():
        return (network(tokens) ** 2).mean()

    _, gradients = nn.value_and_grad(network, loss)()
    for _, gradient in tree_flatten(gradients):
        assert (mx.abs(gradient).max(axis=(1, 2)) > 0).all()


def test_a_layer_that_no_update_fits_is_refused_and_others_are_named():
    network = tiny_llama()
    network.layers[1].self_attn.q_proj = Doubled(64, 64)
    with pytest.raises(AdapterError, match="q_proj is a Doubled") as caught:
        attach_lora(network, LoraShape(rank=2, alpha=4.0), seed=0)
    assert "down_proj, gate_proj" in caught.value.remedy


class Doubled(nn.Linear):
    """Does more with its weight than an update could follow."""

    def __call__(self, x):
        return 2 * super().__call__(x)


def test_the_plain_layers_of_a_mixture_can_be_adapted_by_name():
    network = tiny_mixtral()
    attach_lora(network, LoraShape(rank=2, alpha=4.0, target_modules=("q_proj", "v_proj")), seed=0)
    assert len(adapted(network)) == 2


@pytest.mark.parametrize(
    "shape",
    [
        LoraShape(rank=2, alpha=4, target_modules=("k_proj", "q_proj")),
        LoraShape(rank=3, alpha=5, dropout=0.1, target_modules=("up_proj",), layers=1),
        LoraShape(rank=2, alpha=4, target_modules=("model.layers.0.mlp.up_proj", "model.layers.2.mlp.up_proj")),
    ],
    ids=str,
)
def test_the_shape_of_an_adapter_can_be_told_from_the_network(shape):
    network = tiny_llama(layers=3)
    attach_lora(network, shape, seed=0)
    assert shape_of_adapter(network) == shape


def test_a_second_adapter_is_refused():
    network = tiny_llama()
    attach_lora(network, LoraShape(rank=2, alpha=4.0), seed=0)
    with pytest.raises(AdapterError, match="has an adapter already"):
        attach_lora(network, LoraShape(rank=2, alpha=4.0), seed=0)


@pytest.mark.parametrize(
    "values",
    [{"rank": 0}, {"alpha": 0.0}, {"alpha": float("nan")}, {"dropout": 1.0}, {"layers": 0}, {"target_modules": ()}],
)
def test_a_shape_that_means_nothing_is_refused(values):
    with pytest.raises(AdapterError):
        LoraShape(**({"rank": 2, "alpha": 4.0} | values))


def test_the_scale_is_alpha_over_rank():
    assert LoraShape(rank=8, alpha=16.0).scale == 2.0


def test_factors_that_are_loaded_are_the_ones_that_answer():
    source, target = tiny_llama(), tiny_llama()
    for network, seed in ((source, 1), (target, 2)):
        attach_lora(network, LoraShape(rank=2, alpha=4.0), seed=seed)
    parameters = {name: array + 0.1 for name, array in adapter_parameters(source).items()}
    load_adapter_parameters(source, parameters)
    load_adapter_parameters(target, tree_map(lambda array: array.astype(mx.float32), parameters))
    assert mx.array_equal(source(TOKENS), target(TOKENS))


def test_every_misfit_is_named_and_nothing_is_loaded():
    network = tiny_llama()
    attach_lora(network, LoraShape(rank=2, alpha=4.0, target_modules=("q_proj",)), seed=0)
    before = adapter_parameters(network)
    parameters = {name: array + 1 for name, array in before.items()}
    del parameters["model.layers.0.self_attn.q_proj.lora_b"]
    parameters["model.layers.1.self_attn.q_proj.lora_a"] = mx.zeros((64, 3))
    parameters["model.layers.9.self_attn.q_proj.lora_a"] = mx.zeros((64, 2))
    with pytest.raises(AdapterError) as caught:
        load_adapter_parameters(network, parameters)
    assert "model.layers.0.self_attn.q_proj.lora_b is missing" in caught.value.message
    assert (
        "model.layers.1.self_attn.q_proj.lora_a is [64, 3], the network's layer takes [64, 2]" in caught.value.message
    )
    assert "model.layers.9.self_attn.q_proj.lora_a has no place" in caught.value.message
    assert all(mx.array_equal(adapter_parameters(network)[name], array) for name, array in before.items())


def test_a_long_list_of_misfits_is_cut():
    network = tiny_llama()
    attach_lora(network, LoraShape(rank=2, alpha=4.0), seed=0)
    with pytest.raises(AdapterError, match="and 23 more"):
        load_adapter_parameters(network, {})


def test_gradients_reach_every_factor_of_every_block():
    network = tiny_llama()
    attach_lora(network, LoraShape(rank=2, alpha=4.0), seed=0)
    load_adapter_parameters(network, {name: array + 0.05 for name, array in adapter_parameters(network).items()})

    def loss():
        return (network(TOKENS) ** 2).mean()

    _, gradients = nn.value_and_grad(network, loss)()
    assert all(mx.abs(gradient).max().item() > 0 for _, gradient in tree_flatten(gradients))
