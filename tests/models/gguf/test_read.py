"""A llama in GGUF as an MLX folder: blocks to the last bit, rows in MLX's order, everything else refused by name."""

import json

import gguf
import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
from mlx.utils import tree_flatten
from reference.gguf import rotate_halves, rotate_pairs

from mlxtune.errors import ModelError
from mlxtune.models.gguf.read import read_gguf, read_weights, unpermuted_rows, write_gguf_folder

Q4_1, Q8_0, F16 = (gguf.GGMLQuantizationType[name] for name in ("Q4_1", "Q8_0", "F16"))


def test_rows_are_put_back_so_that_rotating_halves_does_what_rotating_pairs_did():
    heads, head_dim, width = 3, 8, 5
    rng = np.random.default_rng(2)
    stored, x = rng.normal(size=(heads * head_dim, width)), rng.normal(size=width)
    order = unpermuted_rows(heads * head_dim, heads)

    as_gguf = np.concatenate([rotate_pairs(head, 7, 100.0) for head in (stored @ x).reshape(heads, head_dim)])
    as_mlx = np.concatenate([rotate_halves(head, 7, 100.0) for head in (stored[order] @ x).reshape(heads, head_dim)])

    np.testing.assert_allclose(as_mlx, as_gguf[order], rtol=1e-12)


@pytest.mark.parametrize("tied", [True, False])
def test_mlx_lm_opens_the_folder_and_finds_the_values_of_the_file(tmp_path, write_gguf, tied):
    originals = write_gguf(tmp_path / "x.gguf", tied=tied)
    write_gguf_folder(tmp_path / "x.gguf", tmp_path)

    network, tokenizer = mlx_lm.load(str(tmp_path))

    assert tokenizer.eos_token_ids == {2}
    network.set_dtype(mx.float32)
    mlx_lm.utils.dequantize_model(network)
    ours = {name: np.array(weight) for name, weight in tree_flatten(network.parameters())}
    assert ours.keys() == originals.keys()
    kinds = {"q_proj": Q4_1, "k_proj": Q4_1, "o_proj": Q4_1, "down_proj": Q4_1, "gate_proj": F16}
    kinds |= {"v_proj": Q8_0, "embed_tokens": Q8_0, "lm_head": Q8_0}
    for name, original in originals.items():
        kind = kinds.get(name.split(".")[-2])
        # quantizing and moving whole rows commute, so the file's values are those of the quantized original
        expected = original if kind is None else gguf.quants.dequantize(gguf.quants.quantize(original, kind), kind)
        np.testing.assert_array_equal(ours[name], expected, err_msg=name)


def test_floats_keep_their_type_and_config_names_what_is_quantized_how(tmp_path, tiny_gguf):
    write_gguf_folder(tiny_gguf, tmp_path)

    weights = mx.load(str(tmp_path / "model.safetensors"))
    quantization = json.loads((tmp_path / "config.json").read_text())["quantization"]

    assert weights["model.layers.0.mlp.gate_proj.weight"].dtype == mx.float16
    assert weights["model.layers.0.mlp.up_proj.weight"].dtype == weights["model.norm.weight"].dtype == mx.float32
    assert weights["model.layers.0.self_attn.q_proj.scales"].dtype == mx.float16
    assert (quantization["bits"], quantization["group_size"]) == (4, 32)
    assert quantization["model.layers.1.self_attn.v_proj"]["bits"] == quantization["model.embed_tokens"]["bits"] == 8
    assert "model.layers.0.self_attn.q_proj" not in quantization


def test_config_says_what_the_metadata_says(tiny_gguf):
    config = read_gguf(tiny_gguf).config

    expected = {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0,
        "max_position_embeddings": 128,
        "vocab_size": 264,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    assert expected.items() <= config.items()
    assert "rope_scaling" not in config


def test_linear_scaling_and_an_end_of_turn_token_reach_the_config(tmp_path, write_gguf):
    scaling = {"llama__rope__scaling__type": "linear", "llama__rope__scaling__factor": 4.0}
    write_gguf(tmp_path / "x.gguf", **scaling, tokenizer__ggml__eot_token_id=0)

    config = read_gguf(tmp_path / "x.gguf").config

    assert config["rope_scaling"] == {"rope_type": "linear", "factor": 4.0}
    assert config["eos_token_id"] == [2, 0]


@pytest.mark.parametrize("end", ["<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>"])
def test_an_end_of_turn_that_the_file_does_not_name_is_an_end_too(tmp_path, write_gguf, end):
    """As llama.cpp finds it, by its text: Gemma's and Phi 3's older files name the end of text alone."""
    tokens = ["a", "</s>", "<|user|>", end]
    write_gguf(tmp_path / "x.gguf", tokenizer__ggml__tokens=tokens, tokenizer__ggml__eos_token_id=1)

    assert read_gguf(tmp_path / "x.gguf").config["eos_token_id"] == [1, 3]


def test_biases_of_attention_are_taken_over_and_permuted(tmp_path, write_gguf):
    names = {"attn_q": 64, "attn_k": 32, "attn_v": 32, "attn_output": 64}
    biases = {f"blk.{i}.{n}.bias": np.arange(size, dtype=np.float32) for i in range(2) for n, size in names.items()}
    write_gguf(tmp_path / "x.gguf", extra=biases)
    model = read_gguf(tmp_path / "x.gguf")

    weights = dict(read_weights(model))

    assert model.config["attention_bias"] is True
    first_head = weights["model.layers.0.self_attn.k_proj.bias"][:16]
    np.testing.assert_array_equal(first_head, [*range(0, 16, 2), *range(1, 16, 2)])
    np.testing.assert_array_equal(weights["model.layers.0.self_attn.v_proj.bias"], np.arange(32))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"architecture": "bloom"}, "architecture 'bloom' is not supported"),
        ({"types": {"output_norm.weight": Q8_0}}, "output_norm.weight is stored as Q8_0"),
        ({"drop": "blk.1.ffn_up.weight"}, "missing, such as blk.1.ffn_up.weight"),
        ({"drop": "token_embd.weight"}, "token_embd.weight is missing"),
        ({"extra": {"blk.0.ffn_gate_inp.weight": np.ones((2, 64), np.float32)}}, "no tensor blk.0.ffn_gate_inp.weight"),
        ({"extra": {"rope_freqs.weight": np.ones(9, np.float32)}}, "rope_freqs.weight has the shape .9,."),
        (
            {"extra": {"rope_freqs.weight": np.zeros(8, np.float32)}},
            "rope_freqs.weight has a factor that is no positive",
        ),
        ({"extra": {"rope_factors_long.weight": np.ones(8, np.float32)}}, "by the tensors rope_factors_long.weight"),
        ({"llama__logit_scale": 2.0}, "llama.logit_scale is 2.0"),
        ({"llama__final_logit_softcapping": 30.0}, "final_logit_softcapping is 30.0"),
        ({"llama__expert_count": 8}, "mixture of experts"),
        ({"general__type": "adapter"}, "holds no model but is of the type 'adapter'"),
        ({"split__count": 2}, "split over several files"),
        (
            {"llama__rope__scaling__type": "longrope"},
            "rotary scaling of the type 'longrope' is not supported for llama",
        ),
        ({"llama__rope__scaling__type": "spiral"}, "rotary scaling of the type 'spiral'"),
        ({"llama__rope__scaling__type": "yarn"}, "rope.scaling.factor is None"),
        (
            {
                "llama__rope__scaling__type": "yarn",
                "llama__rope__scaling__factor": 4.0,
                "llama__rope__scaling__attn_factor": 0.5,
            },
            "attn_factor is 0.5; only 1",
        ),
        ({"llama__rope__dimension_count": 8}, "8 of 16 rotated dimensions"),
        ({"llama__attention__value_length": 8}, "different widths"),
        ({"llama__attention__head_count_kv": 3}, "3 key heads"),
        ({"llama__feed_forward_length": 100}, "has the shape .128, 64., not .100, 64."),
        ({"llama__block_count": 3}, "missing, such as blk.2"),
        ({"llama__block_count": 2**31 - 1}, "only 20 tensors"),
        ({"llama__embedding_length": None}, "llama.embedding_length is missing"),
        ({"llama__embedding_length": "wide"}, "llama.embedding_length is 'wide'"),
        ({"llama__rope__freq_base": float("nan")}, "freq_base is nan"),
        ({"llama__attention__layer_norm_rms_epsilon": None}, "epsilon is None"),
        ({"tokenizer__ggml__eos_token_id": 264}, "eos_token_id is 264"),
    ],
)
def test_what_is_not_a_plain_llama_is_refused_by_name(tmp_path, write_gguf, settings, sentence):
    write_gguf(tmp_path / "x.gguf", **settings)

    with pytest.raises(ModelError, match=sentence) as caught:
        read_gguf(tmp_path / "x.gguf")

    assert caught.value.where == str(tmp_path / "x.gguf")
    assert caught.value.remedy


def test_a_large_model_comes_in_shards_that_mlx_lm_opens_as_one(tmp_path, write_gguf, monkeypatch):
    write_gguf(tmp_path / "x.gguf")
    (tmp_path / "one").mkdir()
    (tmp_path / "many").mkdir()
    write_gguf_folder(tmp_path / "x.gguf", tmp_path / "one")
    monkeypatch.setattr("mlxtune.models.gguf.read.SHARD_BYTES", 20000)

    write_gguf_folder(tmp_path / "x.gguf", tmp_path / "many")

    assert len(list((tmp_path / "many").glob("model-*.safetensors"))) > 2
    whole, parts = (dict(tree_flatten(mlx_lm.load(str(tmp_path / one))[0].parameters())) for one in ("one", "many"))
    assert whole.keys() == parts.keys()
    assert all(mx.array_equal(whole[name], parts[name]).item() for name in whole)


def test_a_scale_whose_bias_leaves_float16_is_refused(tmp_path, write_gguf):
    write_gguf(tmp_path / "x.gguf")
    model = read_gguf(tmp_path / "x.gguf")
    content = bytearray((tmp_path / "x.gguf").read_bytes())
    begin = model.header.tensors["token_embd.weight"].begin
    content[begin : begin + 2] = np.float16(600).tobytes()  # 600 * 128 > 65,504
    (tmp_path / "x.gguf").write_bytes(content)

    with pytest.raises(ModelError, match="scales beyond float16"):
        list(read_weights(model))


def test_damage_anywhere_in_the_header_is_a_model_error_or_harmless(tmp_path, tiny_gguf):
    whole = tiny_gguf.read_bytes()
    end = min(t.begin for t in read_gguf(tiny_gguf).header.tensors.values())
    rng = np.random.default_rng(5)
    refused = 0
    for i in range(100):
        content = bytearray(whole)
        place = int(rng.integers(4, end))
        if i % 3:
            content[place] ^= 1 << int(rng.integers(8))
        else:
            content[place : place + 8] = rng.bytes(8)
        path = tmp_path / "bad.gguf"
        path.write_bytes(content)
        folder = tmp_path / f"out{i}"
        folder.mkdir()
        try:
            write_gguf_folder(path, folder)
        except ModelError:
            refused += 1

    assert refused > 10
