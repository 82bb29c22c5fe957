"""Layers' names in PEFT and in mlx-lm, both ways, where they are the same and where they are not."""

from importlib.util import find_spec

import pytest
from adapted import NETWORKS
from mlx import nn
from mlx_lm.models import gemma3
from tiny import tiny_llama

from mlxtune.adapters import names as exceptions
from mlxtune.adapters.attach import READ_PAST_THE_LAYER
from mlxtune.adapters.names import Names
from mlxtune.adapters.saved import separate_head


def tiny_wrapped_gemma3():
    """A text model inside another, as mlx-lm keeps that of Gemma 3."""
    text = {"model_type": "gemma3_text", "hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 32}
    text |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 32}
    return gemma3.Model(gemma3.ModelArgs(model_type="gemma3", text_config=text, vocab_size=32))


def test_the_families_that_are_exceptions_are_ones_that_mlx_lm_has():
    lists = (exceptions.EXPERTS_APART, exceptions.REWRITTEN, exceptions.REWRITTEN_HEADS, exceptions.WEIGHT_READERS)
    lists += (exceptions.WEIGHT_READERS_IF_TIED, exceptions.SHIFTED_NORMS, READ_PAST_THE_LAYER)
    for family in {family for one in lists for family in one}:
        assert find_spec(f"mlx_lm.models.{family}"), family


def test_the_names_of_most_families_are_the_same():
    network = tiny_llama(tied=False)
    names = Names(network)
    for path, module in network.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding | nn.RMSNorm):
            assert names.names_of(path) == [path]
            assert names.place_of(path) == (path, None)
    assert names.tied_embedding is None


def test_a_text_model_inside_another_is_found_by_the_names_of_old_and_new_versions_of_transformers():
    names = Names(tiny_wrapped_gemma3())
    ours = "language_model.model.layers.0.mlp.up_proj"
    now = "model.language_model.layers.0.mlp.up_proj"
    assert names.names_of(ours) == [now]
    for theirs in (now, ours, "model.layers.0.mlp.up_proj"):
        assert names.place_of(theirs) == (ours, None)


@pytest.mark.parametrize(
    ("kind", "ours", "theirs"),
    [
        ("mixtral", "model.layers.1.block_sparse_moe.switch_mlp.{}", "model.layers.1.block_sparse_moe.experts.{}.{}"),
        ("qwen3_moe", "model.layers.1.mlp.switch_mlp.{}", "model.layers.1.mlp.experts.{}.{}"),
    ],
)
def test_stacked_experts_have_a_name_each(kind, ours, theirs):
    names = Names(NETWORKS[kind]())
    leaves = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}
    for leaf, w in leaves.items():
        known = [theirs.format(expert, w if kind == "mixtral" else leaf) for expert in range(4)]
        assert names.names_of(ours.format(leaf)) == known
        assert [names.place_of(name) for name in known] == [(ours.format(leaf), expert) for expert in range(4)]
    assert names.place_of(theirs.format(4, "w1")) is None
    assert names.place_of(theirs.format(0, "w4")) is None


def test_a_tied_head_is_the_embedding_until_an_adapter_parts_them():
    network = tiny_llama(tied=True)
    assert Names(network).tied_embedding == "model.embed_tokens"
    assert Names(network).place_of("lm_head") is None
    network.model.embed_tokens = separate_head(network.model.embed_tokens)
    names = Names(network)
    assert names.tied_embedding is None
    for theirs, ours in (
        ("lm_head", "model.embed_tokens.outputs"),
        ("model.embed_tokens", "model.embed_tokens.inputs"),
    ):
        assert names.place_of(theirs) == (ours, None)
        assert names.names_of(ours) == [theirs]


@pytest.mark.parametrize("name", ["model.layers.9.mlp.up_proj", "transformer.h.0.attn", "", "model.layers.0.mlp.up"])
def test_a_name_that_the_network_does_not_have_has_no_place(name):
    assert Names(tiny_llama()).place_of(name) in (None, ("", None))
