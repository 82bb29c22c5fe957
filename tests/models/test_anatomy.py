"""For each family in the table, the head applied to the backbone's output gives the network's own logits."""

import families
import mlx.core as mx
import numpy as np
import pytest
from families import tiny_network
from mlx import nn
from mlx_lm.models.cache import make_prompt_cache
from tiny import tiny_llama

from mlxtune.models.anatomy import FAMILIES, anatomy_of, apply_head, split_backbone

WITHOUT = ("gpt_neox", "gemma3n")  # a head inside the backbone; several streams of states
KNOWN = [family for family in families.FAMILIES if family not in WITHOUT]
ALWAYS_TIED = ("gemma", "gemma2", "cohere", "cohere2", "gpt2", "lfm2")  # they have no setting for it
NEVER_TIED = (
    *("phi", "glm4", "glm4_moe", "stablelm", "qwen2_moe", "gpt_oss", "deepseek_v2", "deepseek_v3", "deepseek_v32"),
    *("gemma4", "mistral3", "nemotron_h"),
)
INPUTS = mx.array([[3, 1, 4, 1, 5, 9], [2, 6, 5, 3, 5, 8]])

NOT_TO_BE_CUT = {
    # they look up masks by block number, of two widths of attention
    *("mistral", "ministral3", "mistral3", "gemma3_text", "gemma4_text", "gemma4"),
    *("cohere2", "olmo3", "exaone4", "gpt_oss"),
    # the same, of two kinds of block
    *("qwen3_next", "qwen3_5", "qwen3_5_moe", "jamba", "lfm2", "granitemoehybrid", "nemotron_h"),
    "gpt2",  # adds positions to its embeddings
    "rwkv7",  # has the first block's values in all blocks
}


def test_every_family_in_the_table_is_tried():
    modules = {type(tiny_network(family)).__module__.rpartition(".")[2] for family in KNOWN}
    assert modules >= FAMILIES.keys()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", KNOWN)
def test_head_of_backbone_is_the_network(family, tied):
    network = tiny_network(family, tie_word_embeddings=tied)

    anatomy = anatomy_of(network)

    assert anatomy is not None
    hidden = anatomy.backbone(INPUTS, cache=None)
    assert hidden.shape == (2, 6, 64)
    assert anatomy.tied is (family in ALWAYS_TIED or (tied and family not in NEVER_TIED))
    np.testing.assert_allclose(apply_head(anatomy, hidden), network(INPUTS), rtol=1e-5, atol=1e-6)
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

    cache = make_prompt_cache(network)
    anatomy.backbone(mx.array([[3, 1]]), cache=cache)
    last = apply_head(anatomy, anatomy.backbone(mx.array([[4]]), cache=cache))

    np.testing.assert_allclose(last[:, 0], network(mx.array([[3, 1, 4]]))[:, -1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", KNOWN)
def test_a_backbone_comes_apart_into_halves_that_give_the_whole_or_not_at_all(family):
    network = tiny_network(family)
    anatomy = anatomy_of(network)
    assert anatomy is not None

    halves = split_backbone(anatomy, 1)

    assert (halves is None) == (family in NOT_TO_BE_CUT)
    whole = anatomy.backbone(INPUTS, cache=None)
    if halves is not None:
        lower, upper = halves
        np.testing.assert_allclose(upper(lower(INPUTS)), whole, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(anatomy.backbone(INPUTS, cache=None), whole)  # and the whole is as it was


@pytest.mark.parametrize("family", WITHOUT)
def test_a_family_that_is_not_in_the_table_has_no_anatomy(family):
    assert anatomy_of(tiny_network(family)) is None


def test_what_is_no_network_of_mlx_lm_has_no_anatomy():
    assert anatomy_of(nn.Linear(2, 2)) is None
