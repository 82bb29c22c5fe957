"""A network of each family, written as GGUF by the format's rules, read again: the same logits."""

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.utils import load_model
from reference.gguf_files import write_network
from reference.gguf_models import FAMILIES, GEMMA, LISTED, LLAMA3, ROWS, SHAPE, TOKENIZER, TOKENS, YARN, random_network

from mlxtune.device.precision import CPU_FLOAT32
from mlxtune.errors import ModelError
from mlxtune.models.gguf.read import read_gguf, write_gguf_folder
from mlxtune.models.load import open_model


def logits(network) -> np.ndarray:
    ids = np.random.default_rng(1).integers(0, ROWS, (2, 24))
    return np.array(network(mx.array(ids)))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_network_comes_back_from_gguf_with_the_same_logits(tmp_path, name):
    model_type, own = FAMILIES[name]
    config = SHAPE | {"model_type": model_type} | own
    source = random_network(config)
    write_network(tmp_path / "x.gguf", source, config, TOKENIZER)

    written = write_gguf_folder(tmp_path / "x.gguf", tmp_path)

    network, _ = load_model(tmp_path)
    expected = logits(source)
    np.testing.assert_allclose(logits(network), expected, atol=1e-4 * max(1, np.abs(expected).max()))
    for key in config.keys() - {"rope_scaling"}:
        assert written[key] == pytest.approx(config[key]), key


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3, long"])
def test_the_folder_of_each_family_opens_whole(tmp_path, name):
    model_type, own = FAMILIES[name]
    config = SHAPE | {"model_type": model_type} | own
    write_network(tmp_path / "x.gguf", random_network(config), config, TOKENIZER)
    write_gguf_folder(tmp_path / "x.gguf", tmp_path)

    model = open_model(tmp_path, CPU_FLOAT32)

    assert model.tokenizer.encode("the", add_special_tokens=False) == [259, TOKENS.index("e")]
    assert model.tokenizer.decode(model.tokenizer.encode("ünï 日本 🙂")) == "ünï 日本 🙂"
    assert model.tokenizer.eos_token_ids == {2}


def test_llama_3s_rule_is_found_again_and_not_written_as_a_list(tmp_path):
    model_type, own = FAMILIES["llama 3"]
    config = SHAPE | {"model_type": model_type} | own
    write_network(tmp_path / "x.gguf", random_network(config), config, TOKENIZER)

    assert read_gguf(tmp_path / "x.gguf").config["rope_scaling"] == LLAMA3


def test_factors_that_are_all_one_scale_nothing(tmp_path):
    config = SHAPE | {"model_type": "llama", "rope_scaling": LISTED | {"long_factor": [1.0] * 8}}
    write_network(tmp_path / "x.gguf", random_network(config), config, TOKENIZER)

    assert "rope_scaling" not in read_gguf(tmp_path / "x.gguf").config


def test_a_window_of_0_is_none(tmp_path):
    """llama.cpp's converter writes it for Phi 4, which is of Phi 3's architecture and looks back without a bound."""
    config = SHAPE | {"model_type": "phi3", "sliding_window": 0}
    write_network(tmp_path / "x.gguf", random_network(config), config, TOKENIZER)

    assert "sliding_window" not in read_gguf(tmp_path / "x.gguf").config


@pytest.mark.parametrize(
    ("model_type", "layers", "scalar"),
    [("gemma2", 46, 16), ("gemma2", 2, 32), ("gemma3_text", 62, 16), ("gemma3_text", 6, 32)],
)
def test_the_largest_gemmas_scale_queries_by_the_models_width(tmp_path, model_type, layers, scalar):
    """google's gemma_pytorch, gemma/config.py: in the 27B it is hidden_size // num_attention_heads."""
    small = {"hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 32}
    config = SHAPE | GEMMA | small | {"model_type": model_type, "num_hidden_layers": layers, "sliding_window": 32}
    config |= {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
    write_network(tmp_path / "x.gguf", random_network(config), config, TOKENIZER)

    assert read_gguf(tmp_path / "x.gguf").config["query_pre_attn_scalar"] == scalar


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("gemma", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "type 'linear' is not supported for gemma"),
        ("gemma3", {"rope_scaling": YARN}, "type 'yarn' is not supported for gemma3"),
        ("qwen2", {"head_dim": 32}, "4 heads of 32 are not as wide as the model, 64"),
        ("llama", {"partial_rotary_factor": 0.5}, "8 of 16 rotated dimensions"),
        ("gemma3", {"sliding_window": 0}, "gemma3.attention.sliding_window is 0"),
    ],
)
def test_what_a_familys_class_does_not_do_is_refused_by_name(tmp_path, name, change, sentence):
    model_type, own = FAMILIES[name]
    config = SHAPE | {"model_type": model_type} | own
    network = random_network(config)
    write_network(tmp_path / "x.gguf", network, config | change, TOKENIZER)

    with pytest.raises(ModelError, match=sentence) as caught:
        read_gguf(tmp_path / "x.gguf")
    assert caught.value.where == str(tmp_path / "x.gguf")
    assert caught.value.remedy


def test_a_partial_rotation_is_the_one_that_mlx_lm_rounds_to(tmp_path):
    config = SHAPE | {"model_type": "phi3", "num_attention_heads": 2, "num_key_value_heads": 2, "hidden_size": 88}
    network = random_network(config | {"partial_rotary_factor": 0.69})
    write_network(tmp_path / "x.gguf", network, config | {"partial_rotary_factor": 30 / 44}, TOKENIZER)

    written = write_gguf_folder(tmp_path / "x.gguf", tmp_path)

    assert load_model(tmp_path)[0].layers[0].self_attn.rope.dims == 30
    assert int(44 * written["partial_rotary_factor"]) == 30
