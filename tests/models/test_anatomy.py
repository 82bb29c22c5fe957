"""For each family in the table, the head applied to the backbone's output gives the network's own logits."""

import importlib
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_map
from mlx_lm.utils import MODEL_REMAPPING
from tiny import tiny_llama

from mlxtune.models.anatomy import FAMILIES, anatomy_of, apply_head

SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": 50,
}
OWN = {
    "qwen2": {"rope_theta": 1e4},
    "qwen3": {"rope_theta": 1e4, "head_dim": 8, "max_position_embeddings": 64},
    "gemma": {"head_dim": 8},
    "gemma2": {"head_dim": 8, "final_logit_softcapping": 0.5},
    "gemma3_text": {"head_dim": 8, "sliding_window": 4, "sliding_window_pattern": 2},
    "granite": {
        "logits_scaling": 8.0,
        "attention_multiplier": 0.3,
        "embedding_multiplier": 12.0,
        "residual_multiplier": 0.2,
        "max_position_embeddings": 64,
        "attention_bias": False,
        "mlp_bias": False,
        "rope_theta": 1e4,
    },
}
ALWAYS_TIED = ("gemma", "gemma2")  # they have no setting for it


def tiny(model_type: str, **settings: Any) -> nn.Module:
    family = MODEL_REMAPPING.get(model_type, model_type)
    module = importlib.import_module(f"mlx_lm.models.{family}")
    config = {"model_type": model_type} | SHAPE | OWN.get(family, {}) | settings
    network = module.Model(module.ModelArgs.from_dict(config))
    if family == "gemma3_text" and settings["tie_word_embeddings"]:
        network.sanitize({})  # this family ties when it finds no head among its weights
    keys = iter(mx.random.split(mx.random.key(0), 200))
    network.update(tree_map(lambda w: 0.3 * mx.random.normal(w.shape, key=next(keys)), network.parameters()))
    return network


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("model_type", [*FAMILIES, "mistral"])
def test_head_of_backbone_is_the_network(model_type, tied):
    network = tiny(model_type, tie_word_embeddings=tied)
    inputs = mx.array([[3, 1, 4, 1, 5, 9], [2, 6, 5, 3, 5, 8]])

    anatomy = anatomy_of(network)

    assert anatomy is not None
    hidden = anatomy.backbone(inputs)
    assert hidden.shape == (2, 6, 32)
    assert anatomy.tied is (tied or model_type in ALWAYS_TIED)
    np.testing.assert_allclose(apply_head(anatomy, hidden), network(inputs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model_type", [*FAMILIES, "mistral"])
def test_blocks_are_the_networks_own_in_their_order(model_type):
    network = tiny(model_type, tie_word_embeddings=True)

    anatomy = anatomy_of(network)

    assert anatomy is not None
    assert len(anatomy.blocks) == 2
    assert all(block is own for block, own in zip(anatomy.blocks, network.layers, strict=True))


@pytest.mark.parametrize("tied", [True, False])
def test_a_quantized_head_fits_too(tied):
    network = tiny_llama(quantized=True, tied=tied)
    inputs = mx.array([[3, 1, 4]])

    anatomy = anatomy_of(network)

    assert anatomy is not None
    np.testing.assert_array_equal(apply_head(anatomy, anatomy.backbone(inputs)), network(inputs))


def test_the_backbone_goes_on_from_a_cache():
    network = tiny_llama()
    anatomy = anatomy_of(network)
    assert anatomy is not None
    from mlx_lm.models.cache import make_prompt_cache

    cache = make_prompt_cache(network)
    anatomy.backbone(mx.array([[3, 1]]), cache=cache)
    last = apply_head(anatomy, anatomy.backbone(mx.array([[4]]), cache=cache))

    np.testing.assert_allclose(last[:, 0], network(mx.array([[3, 1, 4]]))[:, -1], rtol=1e-4, atol=1e-5)


def test_an_unknown_family_has_no_anatomy():
    assert anatomy_of(nn.Linear(2, 2)) is None
    assert anatomy_of(tiny("olmo2", tie_word_embeddings=True, rope_theta=1e4)) is None
