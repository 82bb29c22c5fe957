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
from mlxtune.adapters.format import in_words, read_adapter, save_adapter, who_can_open
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


def saved(folder, network):
    folder.mkdir()
    save_adapter(network, folder, base_model="base", extra={"train_on": "completions"})
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
    folder = saved(tmp_path / "adapter", network)
    for other in {"adapters.safetensors", "adapter_model.safetensors"} - {file}:
        (folder / other).unlink()
    again = tiny_llama()
    attach_adapter(again, folder)
    told = {(layer.rank, layer.alpha, layer.dropout) for _, layer in lora_layers(again)}
    assert told == {(shape.rank, shape.alpha, shape.dropout)}
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
    folder = saved(tmp_path / "adapter", network)
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
    folder = saved(tmp_path / "adapter", tuned(tiny_llama(), shape))
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
    folder = saved(tmp_path / "adapter", tuned(tiny_llama(), shape))
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


def test_a_folder_of_peft_opens(tmp_path):
    stored = read_adapter(peft_folder(tmp_path / "adapter"))
    assert stored.factors["model.layers.1.self_attn.q_proj"].lora_a.shape == (64, 2)
    assert stored.config == PEFT_CONFIG
    assert attach_adapter(tiny_llama(), tmp_path / "adapter") == PEFT_CONFIG


def test_factors_are_float32_whatever_the_file_holds(tmp_path):
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    folder = peft_folder(tmp_path / "adapter", **{name: np.ones((2, 64), np.float16)})
    network = tiny_llama()
    attach_adapter(network, folder)
    assert {array.dtype for array in adapter_parameters(network).values()} == {mx.float32}


def test_a_file_that_another_program_left_behind_is_not_taken_for_the_adapter(tmp_path):
    shape = LoraShape(rank=2, alpha=4.0, target_modules=("q_proj",))
    stale = saved(tmp_path / "stale", tuned(tiny_llama(), shape)) / "adapters.safetensors"
    folder = peft_folder(tmp_path / "adapter")
    (folder / "adapters.safetensors").write_bytes(stale.read_bytes())
    stored = read_adapter(folder)
    assert stored.factors["model.layers.0.self_attn.q_proj"].lora_a[0, 0].item() == np.float32(0.1)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"fine_tune_type": "full"}, "the network's own weights, and no low-rank adapter"),
        ({"fine_tune_type": "ia3"}, "'ia3'"),
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


def test_what_does_not_hold_together_is_refused_with_a_remedy(tmp_path):
    folder = peft_folder(tmp_path / "adapter", PEFT_CONFIG | {"r": 3})
    with pytest.raises(AdapterError, match="the config says 3") as caught:
        read_adapter(folder)
    assert caught.value.remedy == "use an adapter of this base model, as its program wrote it"


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
        save_adapter(tiny_llama(), tmp_path, base_model="base")
    assert list(tmp_path.iterdir()) == []


def test_who_can_open_a_folder_is_told_with_the_reason(tmp_path):
    shape = LoraShape(rank=2, alpha=4.0, target_modules=("q_proj",))
    network = tuned(tiny_llama(), shape)
    folder = saved(tmp_path / "uniform", network)
    assert who_can_open(folder) == {"PEFT": None, "mlx-lm": None}
    assert in_words(who_can_open(folder)) == ""
    (_, layer), _ = lora_layers(network)
    layer.lora_a, layer.lora_b = mx.zeros((64, 5)), mx.zeros((5, 64))
    folder = saved(tmp_path / "ranks", network)
    assert not (folder / "adapters.safetensors").exists()
    assert in_words(who_can_open(folder)) == "mlx-lm cannot open it: ranks differ by layer"
    assert in_words(who_can_open(peft_folder(tmp_path / "theirs"))) == (
        "mlx-lm cannot open it: there is no adapters.safetensors"
    )


@pytest.mark.parametrize("own", [5, {"not_for": 5}, {"not_for": {"mlx-lm": None}}])
def test_what_a_config_tells_in_another_form_is_not_taken_for_a_reason(tmp_path, own):
    folder = peft_folder(tmp_path / "adapter", PEFT_CONFIG | {"mlxtune": own})
    assert who_can_open(folder) == {"PEFT": None, "mlx-lm": "there is no adapters.safetensors"}


def test_the_config_of_an_adapter_that_is_not_uniform_says_so_in_few_words(tmp_path):
    network = tuned(tiny_llama(layers=3), LoraShape(rank=2, alpha=4.0, target_modules=("q_proj", "v_proj")))
    for path, layer in lora_layers(network):
        if path.endswith("v_proj"):
            layer.scale = 0.5
        if path == "model.layers.1.self_attn.q_proj":
            layer.lora_a, layer.lora_b, layer.scale = mx.zeros((64, 8)), mx.zeros((8, 64)), 0.5
    config = json.loads((saved(tmp_path / "adapter", network) / "adapter_config.json").read_text())
    assert config["r"] == 2
    assert config["rank_pattern"] == {r"model\.layers\.1\.self_attn\.q_proj": 8}
    assert (config["lora_alpha"], config["alpha_pattern"]) == (4, {"v_proj": 1})
    assert "lora_parameters" not in config
    again = tiny_llama(layers=3)
    attach_adapter(again, tmp_path / "adapter")
    assert [(layer.rank, layer.scale) for _, layer in lora_layers(again)] == [
        (layer.rank, layer.scale) for _, layer in lora_layers(network)
    ]
