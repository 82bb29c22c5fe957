"""Full fine-tuning's weights: which of them train, their folder in mlx-lm and here, and what is refused."""

import json
import shutil

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map
from mlx_lm.tuner.utils import load_adapters
from tiny import tiny_llama, tiny_model_folder

from mlxtune.adapters.attach import LoraShape, attach_lora
from mlxtune.adapters.bank import BASE, AdapterBank
from mlxtune.adapters.format import CONFIG_FILE, hash_of_adapter, save_adapter, who_can_open
from mlxtune.adapters.full import FullShape, shape_of_weights, trained_weights, unfreeze_weights
from mlxtune.adapters.merge import layer_updates, merged_weights
from mlxtune.adapters.open import attach_adapter
from mlxtune.adapters.update_norm import update_norm
from mlxtune.errors import AdapterError

TOKENS = mx.array([[5, 6, 7, 8, 200, 31]])
TOP = FullShape(layers=1)
ENDS = {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"}


def logits(network):
    return np.array(network(TOKENS).astype(mx.float32))


def trained(shape=TOP, **settings):
    """A network whose chosen weights have moved."""
    network = tiny_llama(**settings)
    unfreeze_weights(network, shape)
    network.update(tree_map(lambda array: array * 1.1, network.trainable_parameters()))
    return network


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "adapter").mkdir()
    save_adapter(trained(), tmp_path / "adapter", base_model="tiny")
    return tmp_path / "adapter"


@pytest.mark.parametrize("embeddings", [False, True])
@pytest.mark.parametrize("layers", [1, "all"])
def test_the_blocks_that_are_named_train_and_what_is_outside_them_where_it_is_asked_for(layers, embeddings):
    network = tiny_llama(tied=False)
    shape = FullShape(layers, embeddings)
    unfreeze_weights(network, shape)
    names = {name for name, _ in tree_flatten(network.trainable_parameters())}
    assert {name for name in names if not name.startswith("model.layers.")} == (ENDS if embeddings else set())
    blocks = {name.split(".")[2] for name in names - ENDS}
    assert blocks == ({"1"} if layers == 1 else {"0", "1"})
    assert len(names - ENDS) == 9 * len(blocks)  # seven matrices and two norms a block
    assert shape_of_weights(network) == shape


def test_the_folder_opens_in_mlx_lm_and_here_with_the_same_answers(folder):
    expected = logits(trained())
    assert np.abs(expected - logits(tiny_llama())).max() > 0.01
    here = tiny_llama()
    config = attach_adapter(here, folder)
    assert np.array_equal(logits(here), expected)
    assert np.array_equal(logits(load_adapters(tiny_llama(), str(folder))), expected)
    assert (config["fine_tune_type"], config["num_layers"]) == ("full", 1)
    assert who_can_open(folder) == {"PEFT": "these are the network's own weights, and no adapter", "mlx-lm": None}
    assert len(hash_of_adapter(folder)) == 64
    assert shape_of_weights(here) == TOP


def test_what_mlx_lm_s_own_training_leaves_is_opened_too(tmp_path):
    network = trained(FullShape(layers="all"))
    mx.save_safetensors(str(tmp_path / "adapters.safetensors"), dict(tree_flatten(network.trainable_parameters())))
    config = {"fine_tune_type": "full", "num_layers": 2, "lora_parameters": {"rank": 8, "scale": 20.0, "dropout": 0.0}}
    (tmp_path / CONFIG_FILE).write_text(json.dumps(config))
    here = tiny_llama()
    attach_adapter(here, tmp_path)
    assert np.array_equal(logits(here), logits(network))


def test_a_bank_puts_whole_weights_on_and_takes_them_off(folder):
    bank = AdapterBank(tiny_llama())
    bank.add("tuned", folder)
    for name, expected in (("tuned", logits(trained())), (BASE, logits(tiny_llama())), ("tuned", logits(trained()))):
        bank.select(name)
        assert np.array_equal(logits(bank.network), expected), name


def test_weights_get_the_type_of_those_they_replace_but_for_who_merges(folder):
    for as_stored, dtype in ((False, mx.bfloat16), (True, mx.float32)):
        network = tiny_llama()
        network.set_dtype(mx.bfloat16)
        attach_adapter(network, folder, as_stored=as_stored)
        assert {array.dtype for array in trained_weights(network).values()} == {dtype}


def test_what_changed_is_told_from_the_base_beside_it(folder):
    network = tiny_llama()
    attach_adapter(network, folder)
    updates = dict(layer_updates(network, tiny_llama()))
    assert len(updates) == 9
    for path, (weight, change) in updates.items():
        np.testing.assert_allclose(np.array(change), 0.1 * np.array(weight), rtol=0, atol=1e-6, err_msg=path)
    assert update_norm(network, tiny_llama()).relative_norm == pytest.approx(0.1, rel=1e-4)
    merged = dict(merged_weights(network, mx.float32))
    expected = dict(tree_flatten(trained().parameters()))
    assert merged.keys() == expected.keys()
    assert all(np.array_equal(np.array(merged[name]), np.array(expected[name])) for name in expected)


def test_a_quantized_layer_is_refused_with_the_way_out(folder):
    for act in (lambda network: unfreeze_weights(network, TOP), lambda network: attach_adapter(network, folder)):
        with pytest.raises(AdapterError, match="is quantized, and full fine-tuning changes float weights") as caught:
            act(tiny_llama(quantized=True))
        assert "mlxtune convert" in caught.value.remedy


def test_more_blocks_than_there_are_and_a_network_with_an_adapter_are_refused():
    with pytest.raises(AdapterError, match="top 3 blocks are to be trained; the network has 2"):
        unfreeze_weights(tiny_llama(), FullShape(layers=3))
    network = tiny_llama()
    attach_lora(network, LoraShape(rank=2, alpha=4.0), seed=0)
    with pytest.raises(AdapterError, match="has an adapter already"):
        unfreeze_weights(network, TOP)


def test_weights_of_another_network_are_refused_by_name(folder):
    with pytest.raises(AdapterError, match=r"model.layers.1.\S+ is \[64\], and the network's \[32\]"):
        attach_adapter(tiny_llama(hidden=32, heads=2, kv_heads=1), folder)
    with pytest.raises(AdapterError, match="has no place in the network"):
        attach_adapter(tiny_llama(layers=1), folder)


def test_a_weight_that_is_not_finite_is_refused(folder):
    tensors = mx.load(str(folder / "adapters.safetensors"))
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name] = mx.where(mx.arange(64) == 3, mx.array(float("nan")), tensors[name])
    mx.save_safetensors(str(folder / "adapters.safetensors"), tensors)
    with pytest.raises(AdapterError, match=f"{name} is not of finite floats"):
        attach_adapter(tiny_llama(), folder)


def test_a_folder_without_its_weights_says_what_is_missing(folder):
    (folder / "adapters.safetensors").unlink()
    with pytest.raises(AdapterError, match=r"has no adapters\.safetensors"):
        attach_adapter(tiny_llama(), folder)


def test_some_of_a_block_s_weights_are_opened_and_not_gone_on_with(tmp_path):
    shutil.rmtree(tmp_path / "model", ignore_errors=True)
    tiny_model_folder(tmp_path / "model")
    name = "model.layers.1.mlp.up_proj.weight"
    mx.save_safetensors(str(tmp_path / "adapters.safetensors"), {name: mx.ones((128, 64))})
    (tmp_path / CONFIG_FILE).write_text(json.dumps({"fine_tune_type": "full", "num_layers": 1}))
    network = tiny_llama()
    attach_adapter(network, tmp_path)
    with pytest.raises(AdapterError, match="not all weights of the top 1 blocks"):
        shape_of_weights(network)
