"""Opening a model folder: what mlx_lm opens, in the device's formats, frozen; and nothing that would run code."""

import json
import socket
from pathlib import Path

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten
from tiny import tiny_model_folder

from mlxtune.device.precision import CPU_FLOAT32, GPU_BFLOAT16, GPU_FLOAT16
from mlxtune.errors import ModelError
from mlxtune.models.load import load_network, open_model, precision_to_ask
from mlxtune.models.tokenizer import open_tokenizer

INPUTS = mx.array([[3, 1, 4, 1, 5]])


def edit_config(folder: Path, **changes) -> None:
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("quantized", [False, True])
def test_on_the_cpu_the_network_is_float32_and_gives_mlx_lms_logits(tmp_path, quantized):
    folder = tiny_model_folder(tmp_path, quantized=quantized)
    reference, _ = mlx_lm.load(str(folder))

    model = open_model(folder, CPU_FLOAT32)

    assert not any(isinstance(module, nn.QuantizedLinear) for module in model.network.modules())
    np.testing.assert_allclose(model.network(INPUTS), reference(INPUTS), rtol=1e-4, atol=1e-4)
    assert model.config["model_type"] == "llama"
    assert model.folder == folder


def test_for_a_gpu_quantized_weights_stay_and_floats_become_bfloat16(tmp_path):
    model = open_model(tiny_model_folder(tmp_path, quantized=True), GPU_BFLOAT16)

    layer = model.network.layers[0].self_attn.q_proj
    assert isinstance(layer, nn.QuantizedLinear)
    assert layer.scales.dtype == mx.bfloat16


@pytest.mark.parametrize(
    ("config", "asked"),
    [
        ({"torch_dtype": "float16"}, GPU_FLOAT16),
        ({"dtype": "float16"}, GPU_FLOAT16),
        ({"torch_dtype": "bfloat16"}, GPU_BFLOAT16),
        ({"torch_dtype": "float16", "quantization": {"group_size": 32, "bits": 4}}, GPU_BFLOAT16),
    ],
)
def test_a_model_stored_in_float16_is_asked_in_it_on_a_gpu(tmp_path, config, asked):
    folder = tiny_model_folder(tmp_path, quantized="quantization" in config)
    edit_config(folder, **config)
    assert precision_to_ask(folder, GPU_BFLOAT16) == asked
    assert precision_to_ask(folder, CPU_FLOAT32) == CPU_FLOAT32
    network = open_model(folder, asked).network
    assert network(mx.array([[5, 6]])).dtype == asked.dtype


@pytest.mark.parametrize("precision", [CPU_FLOAT32, GPU_BFLOAT16])
def test_the_network_is_frozen_and_in_evaluation_mode(tmp_path, precision):
    network = open_model(tiny_model_folder(tmp_path, quantized=True), precision).network

    assert tree_flatten(network.trainable_parameters()) == []
    assert not network.training


@pytest.mark.parametrize(
    ("in_config", "in_generation_config", "ends"),
    [
        ({}, {}, {2}),
        ({"eos_token_id": None}, {"eos_token_id": 0}, {0, 2}),
        ({"eos_token_id": 1}, {"eos_token_id": [0, 5]}, {0, 1, 2, 5}),
        ({"time_step_limit": [0.0, float("inf")]}, {"eos_token_id": [0]}, {0, 2}),
        ({"eos_token_id": [0, 1]}, {"max_length": 20}, {0, 1, 2}),
    ],
)
def test_an_end_of_text_counts_wherever_it_is_named(tmp_path, in_config, in_generation_config, ends):
    folder = tiny_model_folder(tmp_path)
    edit_config(folder, eos_token_id=None)
    edit_config(folder, **in_config)
    (folder / "generation_config.json").write_text(json.dumps(in_generation_config))

    assert open_tokenizer(folder).eos_token_ids == ends  # 2 is the tokenizer's own
    assert open_model(folder, CPU_FLOAT32).tokenizer.eos_token_ids == ends


@pytest.mark.parametrize("content", ["[]", '{"eos_token_id": "</s>"}', '{"eos_token_id": [true]}', "{"])
def test_an_end_of_text_that_cannot_be_read_is_refused_with_its_file(tmp_path, content):
    folder = tiny_model_folder(tmp_path)
    (folder / "generation_config.json").write_text(content)

    with pytest.raises(ModelError, match=r"not a JSON object|no token's id") as caught:
        open_tokenizer(folder)

    assert caught.value.where == str(folder / "generation_config.json")


def test_opening_asks_nothing_of_the_network(tmp_path, monkeypatch):
    asked = []

    def refuse(*arguments):
        asked.append(arguments)
        raise OSError("there is no network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    folder = tiny_model_folder(tmp_path / "org" / "name")

    open_model(folder, CPU_FLOAT32)

    assert asked == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model_type": "llamma"}, "no class for the model type llamma"),
        ({"model_type": "cache"}, "no class for the model type cache"),
        ({"model_type": "../llama"}, "names no model_type"),
        ({"model_type": None}, "names no model_type"),
        ({"model_type": "mine", "auto_map": {"AutoModel": "mine.Model"}}, "its own code .auto_map. is never run"),
        ({"model_file": "model.py"}, "wants to run its own code .model.py."),
        ({"vision_config": {}}, "vision_config.*not supported"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantized by bitsandbytes"),
        ({"hidden_size": 32}, "do not give a network"),
        ({"hidden_size": "wide"}, "do not give a network"),
        ({"num_hidden_layers": 3}, "do not give a network: ValueError: Missing"),
        ({"num_attention_heads": 0}, "do not give a network"),
        ({"rope_scaling": {"rope_type": "spiral"}}, "do not give a network: ValueError: Unsupported RoPE type"),
        ({"quantization_config": "fp8"}, "quantization_config is not a JSON object"),
        ({"quantization_config": ["fp8"]}, "quantization_config is not a JSON object"),
        ({"quantization": None, "quantization_config": {"quant_method": "awq"}}, "quantized by awq"),
        ({"quantization": 4}, "quantization is not a JSON object"),
        ({"quantization": []}, "quantization is not a JSON object"),
        ({"quantization": {}}, "does not name bits and group_size as numbers"),
        ({"quantization": {"bits": 4}}, "does not name bits and group_size as numbers"),
        ({"quantization": {"bits": "4", "group_size": 32}}, "does not name bits and group_size as numbers"),
        ({"quantization": {"bits": True, "group_size": 32}}, "does not name bits and group_size as numbers"),
        ({"quantization": {"bits": 4, "group_size": 32, "mode": 1}}, "mode, if any, as text"),
    ],
)
def test_a_config_that_cannot_be_used_is_refused_by_name(tmp_path, changes, sentence):
    folder = tiny_model_folder(tmp_path)
    edit_config(folder, **changes)

    with pytest.raises(ModelError, match=sentence) as caught:
        load_network(folder)

    assert str(folder) in str(caught.value.where)
    assert caught.value.remedy


def test_code_in_a_folder_whose_type_is_known_is_left_alone(tmp_path):
    folder = tiny_model_folder(tmp_path)
    edit_config(folder, auto_map={"AutoModel": "evil.Model"})
    (folder / "evil.py").write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\n")

    network, _ = load_network(folder)

    assert type(network).__module__ == "mlx_lm.models.llama"
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000])
def test_a_damaged_config_is_refused(tmp_path, content):
    folder = tiny_model_folder(tmp_path)
    (folder / "config.json").write_text(content)

    with pytest.raises(ModelError, match=r"config\.json is not"):
        load_network(folder)


def test_an_adapter_folder_is_recognised(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")

    with pytest.raises(ModelError, match=r"no config\.json") as caught:
        load_network(tmp_path)

    assert "adapter" in str(caught.value.remedy)


def test_a_truncated_shard_is_refused(tmp_path):
    folder = tiny_model_folder(tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])

    with pytest.raises(ModelError, match="end at byte"):
        open_model(folder, CPU_FLOAT32)


@pytest.mark.parametrize("content", [None, "", "{", '{"model": {"type": "BPE"}}'])
def test_a_missing_or_damaged_tokenizer_is_refused(tmp_path, content):
    folder = tiny_model_folder(tmp_path)
    (folder / "tokenizer.json").unlink()
    if content is None:
        (folder / "tokenizer_config.json").unlink()
    else:
        (folder / "tokenizer.json").write_text(content)

    with pytest.raises(ModelError, match="tokenizer"):
        open_model(folder, CPU_FLOAT32)


def edit_tokenizer(folder, change) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def add_tokens(content, ids) -> None:
    content["added_tokens"] += [
        dict(content["added_tokens"][0], id=number, content=f"<extra {number}>") for number in ids
    ]


def keep_tokens(content, count) -> None:
    vocabulary = content["model"]["vocab"]
    content["model"]["vocab"] = {token: number for token, number in vocabulary.items() if number < count}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda content: add_tokens(content, range(259, 265)), "265 tokens, with ids up to 264"),
        (lambda content: keep_tokens(content, 100), "100 tokens, with ids up to 99"),
    ],
)
def test_a_tokenizer_of_another_model_is_refused(tmp_path, change, sentence):
    folder = tiny_model_folder(tmp_path)
    edit_tokenizer(folder, change)
    with pytest.raises(ModelError, match=rf"the tokenizer has {sentence}; the network has rows for 264") as caught:
        open_model(folder, CPU_FLOAT32)
    assert (caught.value.where, bool(caught.value.remedy)) == (str(folder), True)


def test_a_padding_token_beyond_the_rows_is_no_reason_to_refuse(tmp_path):
    folder = tiny_model_folder(tmp_path)
    edit_tokenizer(folder, lambda content: add_tokens(content, range(259, 265)))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"pad_token": "<extra 264>"}))
    model = open_model(folder, CPU_FLOAT32)
    assert model.tokenizer.pad_token_id == 264


def test_a_tokenizer_that_needs_its_own_code_is_refused_without_a_question(tmp_path, monkeypatch):
    folder = tiny_model_folder(tmp_path)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))

    with pytest.raises(ModelError, match="tokenizer"):
        open_model(folder, CPU_FLOAT32)
