"""Adapter folders: what is in them, who can open them, and what is refused by name."""

import json

import mlx.core as mx
import numpy as np
import pytest
import safetensors.numpy
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import load, save_config
from tiny import tiny_llama, tiny_model_folder

from mlxtune.adapters.attach import LoraShape, adapter_parameters, attach_lora, load_adapter_parameters
from mlxtune.adapters.format import mlx_lm_name, peft_name, read_adapter, save_adapter
from mlxtune.adapters.lora import lora_layers
from mlxtune.adapters.open import attach_adapter
from mlxtune.errors import AdapterError

TOKENS = mx.array([[5, 6, 7, 8]])
PEFT_CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
MLX_LM_CONFIG = {"num_layers": -1, "lora_parameters": {"rank": 2, "scale": 2.0, "keys": ["self_attn.q_proj"]}}


def tuned(network, shape):
    """The network with an adapter that changes its answer."""
    attach_lora(network, shape, seed=0)
    parameters = adapter_parameters(network)
    keys = mx.random.split(mx.random.key(1), len(parameters))
    load_adapter_parameters(
        network,
        {
            name: array + 0.05 * mx.random.normal(array.shape, key=key)
            for (name, array), key in zip(parameters.items(), keys, strict=True)
        },
    )
    return network


def saved(folder, network, shape):
    folder.mkdir()
    save_adapter(network, folder, shape=shape, base_model="base", extra={"train_on": "completions"})
    return folder


def peft_folder(folder, config=PEFT_CONFIG, *, drop=(), **tensors):
    """A folder as PEFT writes it, for the query projections of a tiny llama."""
    folder.mkdir()
    layers = {}
    for i in range(2):
        layers[f"base_model.model.model.layers.{i}.self_attn.q_proj.lora_A.weight"] = np.full((2, 64), 0.1, np.float32)
        layers[f"base_model.model.model.layers.{i}.self_attn.q_proj.lora_B.weight"] = np.full((64, 2), 0.2, np.float32)
    layers = {name: array for name, array in (layers | tensors).items() if name not in drop}
    safetensors.numpy.save_file(layers, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    "shape",
    [
        LoraShape(rank=3, alpha=5.0),
        LoraShape(rank=2, alpha=4.0, target_modules=("q_proj", "down_proj"), layers=1),
        LoraShape(rank=2, alpha=4.0, target_modules=("layers.0.self_attn.v_proj", "layers.1.mlp.up_proj")),
    ],
)
@pytest.mark.parametrize("file", ["adapters.safetensors", "adapter_model.safetensors"])
def test_what_was_saved_is_what_opens_from_either_file(tmp_path, shape, file):
    network = tuned(tiny_llama(), shape)
    folder = saved(tmp_path / "adapter", network, shape)
    for other in {"adapters.safetensors", "adapter_model.safetensors"} - {file}:
        (folder / other).unlink()
    again = tiny_llama()
    opened = attach_adapter(again, folder)
    assert (opened.rank, opened.alpha) == (shape.rank, shape.alpha)
    assert adapter_parameters(again).keys() == adapter_parameters(network).keys()
    assert mx.array_equal(again(TOKENS), network(TOKENS))


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize(
    "shape",
    [
        LoraShape(rank=2, alpha=5.0),
        LoraShape(rank=2, alpha=4.0, target_modules=("q_proj", "down_proj"), layers=1),
        LoraShape(rank=2, alpha=4.0, target_modules=("layers.0.self_attn.v_proj", "layers.1.mlp.up_proj")),
    ],
)
def test_mlx_lm_opens_the_folder_and_gives_the_same_logits(tmp_path, shape, quantized):
    base = tiny_model_folder(tmp_path / "base", quantized=quantized)
    network = tuned(tiny_llama(quantized=quantized), shape)
    folder = saved(tmp_path / "adapter", network, shape)
    theirs, _ = load(str(base), adapter_path=str(folder))
    np.testing.assert_allclose(np.array(theirs(TOKENS)), np.array(network(TOKENS)), rtol=0, atol=1e-5)
    theirs_adapted = {name for name, module in theirs.named_modules() if type(module).__name__ == "LoRALinear"}
    assert theirs_adapted == {path for path, _ in lora_layers(network)}


@pytest.mark.parametrize("keys", [None, ["self_attn.q_proj", "mlp.up_proj"]])
@pytest.mark.parametrize("num_layers", [-1, 1, 16])
def test_a_folder_as_mlx_lms_trainer_writes_it_opens(tmp_path, keys, num_layers):
    network = tiny_llama()
    parameters = {"rank": 2, "scale": 20.0, "dropout": 0.0} | ({} if keys is None else {"keys": keys})
    linear_to_lora_layers(network, num_layers, parameters)
    network.update(
        {"model": {"layers": [_noisy(layer) for layer in network.trainable_parameters()["model"]["layers"]]}}
    )
    save_config(
        {"fine_tune_type": "lora", "num_layers": num_layers, "lora_parameters": parameters, "model": "base", "seed": 0},
        tmp_path / "adapter_config.json",
    )
    trained = dict(tree_flatten(network.trainable_parameters()))
    mx.save_safetensors(str(tmp_path / "adapters.safetensors"), trained)
    ours = tiny_llama()
    attach_adapter(ours, tmp_path)
    np.testing.assert_allclose(np.array(ours(TOKENS)), np.array(network(TOKENS)), rtol=0, atol=1e-5)


def _noisy(tree):
    if isinstance(tree, dict):
        return {key: _noisy(value) for key, value in tree.items()}
    return tree + 0.01


def test_the_config_carries_both_programs_keys(tmp_path):
    shape = LoraShape(rank=4, alpha=8.0, dropout=0.1, target_modules=("q_proj", "up_proj"), layers=1)
    folder = saved(tmp_path / "adapter", tuned(tiny_llama(), shape), shape)
    assert json.loads((folder / "adapter_config.json").read_text()) == {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "base",
        "r": 4,
        "lora_alpha": 8,
        "lora_dropout": 0.1,
        "target_modules": ["q_proj", "up_proj"],
        "bias": "none",
        "inference_mode": True,
        "layers_to_transform": [1],
        "layers_pattern": "layers",
        "fine_tune_type": "lora",
        "num_layers": 1,
        "lora_parameters": {"rank": 4, "scale": 2.0, "dropout": 0.1, "keys": ["mlp.up_proj", "self_attn.q_proj"]},
        "mlxtune": {"train_on": "completions"},
    }


def test_the_two_files_hold_each_others_transposes_under_each_programs_names(tmp_path):
    shape = LoraShape(rank=4, alpha=8.0, target_modules=("down_proj",))
    folder = saved(tmp_path / "adapter", tuned(tiny_llama(), shape), shape)
    ours = safetensors.numpy.load_file(folder / "adapters.safetensors")
    theirs = safetensors.numpy.load_file(folder / "adapter_model.safetensors")
    assert ours["model.layers.0.mlp.down_proj.lora_a"].shape == (128, 4)
    for i in range(2):
        for factor, name in (("lora_a", "lora_A"), ("lora_b", "lora_B")):
            np.testing.assert_array_equal(
                theirs.pop(f"base_model.model.model.layers.{i}.mlp.down_proj.{name}.weight"),
                ours.pop(f"model.layers.{i}.mlp.down_proj.{factor}").T,
            )
    assert not theirs
    assert not ours


def test_names_go_both_ways():
    name = "model.layers.3.mlp.up_proj.lora_b"
    assert peft_name(name) == "base_model.model.model.layers.3.mlp.up_proj.lora_B.weight"
    assert mlx_lm_name(peft_name(name)) == name
    assert mlx_lm_name("base_model.model.model.embed_tokens.lora_embedding_A") is None


def test_a_folder_of_peft_opens(tmp_path):
    shape, parameters, config = read_adapter(peft_folder(tmp_path / "adapter"))
    assert shape == LoraShape(rank=2, alpha=4, target_modules=("q_proj",))
    assert parameters["model.layers.1.self_attn.q_proj.lora_a"].shape == (64, 2)
    assert config == PEFT_CONFIG
    attach_adapter(tiny_llama(), tmp_path / "adapter")


def test_factors_are_float32_whatever_the_file_holds(tmp_path):
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    folder = peft_folder(tmp_path / "adapter", **{name: np.ones((2, 64), np.float16)})
    _, parameters, _ = read_adapter(folder)
    assert {array.dtype for array in parameters.values()} == {mx.float32}


def test_a_file_that_another_program_left_behind_is_not_taken_for_the_adapter(tmp_path):
    shape = LoraShape(rank=2, alpha=4.0, target_modules=("q_proj",))
    stale = saved(tmp_path / "stale", tuned(tiny_llama(), shape), shape) / "adapters.safetensors"
    folder = peft_folder(tmp_path / "adapter")
    (folder / "adapters.safetensors").write_bytes(stale.read_bytes())
    _, parameters, _ = read_adapter(folder)
    assert parameters["model.layers.0.self_attn.q_proj.lora_a"][0, 0].item() == np.float32(0.1)


def test_peft_settings_that_change_nothing_are_accepted(tmp_path):
    harmless = {"init_lora_weights": True, "use_dora": False, "rank_pattern": {}, "modules_to_save": None}
    harmless |= {"peft_version": "0.21.2", "layers_to_transform": [], "qalora_group_size": 16, "dora_of_tomorrow": None}
    shape, parameters, _ = read_adapter(peft_folder(tmp_path / "adapter", PEFT_CONFIG | harmless))
    plain_shape, plain, _ = read_adapter(peft_folder(tmp_path / "plain"))
    assert shape == plain_shape
    assert parameters.keys() == plain.keys()
    assert all(mx.array_equal(parameters[name], array) for name, array in plain.items())


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"use_rslora": True}, "use_rslora"),
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 4}}, "alpha_pattern"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"setting_of_tomorrow": 1}, "setting_of_tomorrow"),
        ({"bias": "all"}, "bias: all"),
        ({"init_lora_weights": "pissa"}, "'pissa'"),
        ({"peft_type": "IA3"}, "'IA3'"),
        ({"target_modules": ".*q_proj"}, "a pattern cannot"),
        ({"target_modules": None}, "target_modules is None"),
        ({"layers_to_transform": [0, 2]}, "without a gap"),
        ({"layers_to_transform": "top"}, "'top'"),
        ({"r": "2"}, "r is '2'"),
        ({"r": True}, "r is True"),
        ({"r": 0}, "rank is at least 1"),
        ({"lora_alpha": None}, "lora_alpha is None"),
        ({"r": 3}, "have ranks 2 and 2; the config says 3"),
    ],
)
def test_peft_settings_that_would_change_the_factors_meaning_are_refused_by_name(tmp_path, setting, named):
    folder = peft_folder(tmp_path / "adapter", PEFT_CONFIG | setting)
    with pytest.raises(AdapterError) as caught:
        read_adapter(folder)
    assert named in caught.value.message
    assert caught.value.where is not None


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"fine_tune_type": "dora"}, "'dora'"),
        ({"fine_tune_type": "full"}, "'full'"),
        ({"lora_parameters": []}, "no mapping"),
        ({"lora_parameters": {"rank": 2}}, "scale is None"),
        ({"lora_parameters": {"rank": 2, "scale": 1.0, "keys": "q_proj"}}, "no list"),
        ({"num_layers": None}, "num_layers is None"),
    ],
)
def test_mlx_lm_settings_that_cannot_be_opened_are_refused_by_name(tmp_path, setting, named):
    (tmp_path / "adapter_config.json").write_text(json.dumps(MLX_LM_CONFIG | setting))
    with pytest.raises(AdapterError) as caught:
        read_adapter(tmp_path)
    assert named in caught.value.message


def test_values_that_are_not_finite_are_refused_by_name(tmp_path):
    name = "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"
    bad = np.zeros((64, 2), np.float32)
    bad[3, 1] = np.nan
    with pytest.raises(AdapterError, match=f"{name} has values that are not finite"):
        read_adapter(peft_folder(tmp_path / "adapter", **{name: bad}))


@pytest.mark.parametrize(
    ("name", "tensor", "named"),
    [
        ("base_model.model.lm_head.modules_to_save.weight", np.zeros((4, 4), np.float32), "is no LoRA factor"),
        ("base_model.model.model.embed_tokens.lora_embedding_A", np.zeros((2, 4), np.float32), "is no LoRA factor"),
        ("base_model.model.x.lora_A.weight", np.zeros((2, 4), np.float32), "x has only one of its two factors"),
        ("base_model.model.x.lora_A.weight", np.zeros((2, 4), np.int32), "not a matrix of floats"),
        ("base_model.model.x.lora_A.weight", np.zeros((2, 4, 1), np.float32), "not a matrix of floats"),
    ],
)
def test_tensors_that_are_no_pair_of_factors_are_refused_by_name(tmp_path, name, tensor, named):
    with pytest.raises(AdapterError) as caught:
        read_adapter(peft_folder(tmp_path / "adapter", **{name: tensor}))
    assert named in caught.value.message


def test_an_adapter_that_lacks_a_layer_is_refused(tmp_path):
    missing = [f"base_model.model.model.layers.1.self_attn.q_proj.lora_{factor}.weight" for factor in "AB"]
    folder = peft_folder(tmp_path / "adapter", drop=missing)
    with pytest.raises(AdapterError, match=r"model\.layers\.1\.self_attn\.q_proj\.lora_a is missing"):
        attach_adapter(tiny_llama(), folder)


@pytest.mark.parametrize("shape", [{"hidden": 32}, {"layers": 3}, {"layers": 1}])
def test_an_adapter_of_another_base_is_refused(tmp_path, shape):
    with pytest.raises(AdapterError, match="does not fit the network") as caught:
        attach_adapter(tiny_llama(**shape), peft_folder(tmp_path / "adapter"))
    assert caught.value.where == str(tmp_path / "adapter")


def test_layers_that_are_not_the_top_ones_are_refused(tmp_path):
    drop = [f"base_model.model.model.layers.1.self_attn.q_proj.lora_{factor}.weight" for factor in "AB"]
    folder = peft_folder(tmp_path / "adapter", PEFT_CONFIG | {"layers_to_transform": [0]}, drop=drop)
    with pytest.raises(AdapterError, match=r"layers\.0\.self_attn\.q_proj\.lora_a has no place"):
        attach_adapter(tiny_llama(), folder)


@pytest.mark.parametrize("content", ["", "[]", "{}", "{", '"x"', "\x00"])
def test_a_config_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(AdapterError, match="the adapter's config is"):
        read_adapter(tmp_path)


def test_a_folder_without_config_or_weights_is_refused_with_what_is_missing(tmp_path):
    with pytest.raises(AdapterError, match=r"no adapter_config\.json"):
        read_adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps(PEFT_CONFIG))
    with pytest.raises(AdapterError, match=r"no adapter_model\.safetensors"):
        read_adapter(tmp_path)
    (tmp_path / "adapter_model.bin").touch()
    with pytest.raises(AdapterError) as caught:
        read_adapter(tmp_path)
    assert "safe_serialization" in caught.value.remedy


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_a_truncated_file_is_refused_as_an_adapters(tmp_path, size):
    file = peft_folder(tmp_path / "adapter") / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(AdapterError) as caught:
        read_adapter(tmp_path / "adapter")
    assert caught.value.where == str(file)


def test_a_network_without_an_adapter_is_not_saved(tmp_path):
    with pytest.raises(AdapterError, match="no adapter to save"):
        save_adapter(tiny_llama(), tmp_path, shape=LoraShape(rank=2, alpha=4.0), base_model="base")
    assert list(tmp_path.iterdir()) == []
