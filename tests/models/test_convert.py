"""Converting: what is kept is kept to the last bit, the rest is what was asked for, and mlx_lm opens all of it."""

import json
from functools import partial
from pathlib import Path

import gguf
import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
from families import family_folder
from mlx.utils import tree_flatten
from reference.gguf import values_of_affine
from tiny import tiny_model_folder

from mlxtune.device.choose import CPU_CACHE_BYTES
from mlxtune.device.precision import CPU_FLOAT32
from mlxtune.errors import ModelError, UsageError
from mlxtune.models.convert import convert as convert_on
from mlxtune.models.gguf.read import imported_bytes, read_gguf
from mlxtune.models.load import open_model

convert = partial(convert_on, device="cpu")


def weights_of(folder: Path) -> dict[str, mx.array]:
    return dict(mx.load(str(folder / "model.safetensors")))


def config_of(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())


def bits_of(array: mx.array) -> bytes:
    return bytes(memoryview(array.view(mx.uint8)))


@pytest.fixture
def floats(tmp_path: Path) -> Path:
    return tiny_model_folder(tmp_path / "floats")


@pytest.fixture
def quantized(tmp_path: Path) -> Path:
    return tiny_model_folder(tmp_path / "quantized", quantized=True)


def test_the_work_is_done_as_the_device_has_it(tmp_path, floats):
    mx.set_cache_limit(1)

    convert(str(floats), tmp_path / "out")

    assert mx.set_cache_limit(CPU_CACHE_BYTES) == CPU_CACHE_BYTES  # MLX answers with the limit before


@pytest.mark.parametrize("kind", ["floats", "quantized"])
def test_without_options_every_weight_is_the_same_to_the_last_bit(tmp_path, request, kind):
    source = request.getfixturevalue(kind)

    report = convert(str(source), tmp_path / "out")

    before, after = weights_of(source), weights_of(tmp_path / "out")
    assert before.keys() == after.keys()
    assert all(
        bits_of(before[name]) == bits_of(after[name]) and before[name].dtype == after[name].dtype for name in before
    )
    assert config_of(tmp_path / "out").get("quantization") == config_of(source).get("quantization")
    assert report["quantization"] == config_of(source).get("quantization")
    assert report["bytes"] == sum(array.nbytes for array in before.values())


def test_tokenizer_and_generation_settings_come_along(tmp_path, floats):
    (floats / "generation_config.json").write_text('{"eos_token_id": [0, 2]}')
    (floats / "pytorch_model.bin").write_bytes(b"pickled")

    convert(str(floats), tmp_path / "out")

    names = {path.name for path in (tmp_path / "out").iterdir()}
    expected = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json"}
    assert names == expected
    assert mlx_lm.load(str(tmp_path / "out"))[1].eos_token_ids == {0, 2}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_dtype_alone_expands_what_is_quantized(tmp_path, quantized, dtype):
    packed = weights_of(quantized)

    convert(str(quantized), tmp_path / "out", dtype=dtype)

    weights = weights_of(tmp_path / "out")
    assert {array.dtype for array in weights.values()} == {getattr(mx, dtype)}
    assert "quantization" not in config_of(tmp_path / "out")
    assert config_of(tmp_path / "out")["torch_dtype"] == dtype
    layer = "model.layers.0.self_attn.q_proj"
    parts = [np.array(packed[f"{layer}.{part}"].astype(mx.float32)) for part in ("scales", "biases")]
    exact = values_of_affine(np.array(packed[f"{layer}.weight"]), *parts, 4)
    expected = mx.array(exact).astype(getattr(mx, dtype))
    np.testing.assert_array_equal(weights[f"{layer}.weight"].astype(mx.float32), expected.astype(mx.float32))
    mlx_lm.load(str(tmp_path / "out"))


@pytest.mark.parametrize(("bits", "group_size"), [(2, 32), (3, 32), (4, 64), (5, 32), (6, 64), (8, 32)])
def test_quantized_values_lie_within_half_a_step_of_the_floats(tmp_path, floats, bits, group_size):
    convert(str(floats), tmp_path / "out", bits=bits, group_size=group_size)

    network, _ = mlx_lm.load(str(tmp_path / "out"))
    assert config_of(tmp_path / "out")["quantization"] == {"bits": bits, "group_size": group_size, "mode": "affine"}
    layer = network.layers[1].mlp.down_proj
    assert (layer.bits, layer.group_size) == (bits, group_size)
    values = mx.dequantize(layer.weight, layer.scales, layer.biases, group_size, bits)
    error = mx.abs(values - weights_of(floats)["model.layers.1.mlp.down_proj.weight"]).reshape(64, -1, group_size)
    # MLX moves the grid so that zero lies on it, which at the far end of a group costs up to half a step more
    assert mx.all(error <= 1.01 * mx.abs(layer.scales)[..., None]).item()
    assert mx.mean(error / mx.abs(layer.scales)[..., None]).item() < 0.3


@pytest.mark.parametrize("mode", ["mxfp4", "mxfp8", "nvfp4"])
def test_mlx_lm_opens_every_mode_and_computes_what_we_do(tmp_path, floats, mode):
    report = convert(str(floats), tmp_path / "out", mode=mode)

    theirs, _ = mlx_lm.load(str(tmp_path / "out"))
    assert theirs.layers[0].mlp.up_proj.mode == mode
    tokens = mx.array([[5, 6, 7, 8, 9]])
    ours = open_model(tmp_path / "out", CPU_FLOAT32).network(tokens)
    assert mx.allclose(ours, theirs(tokens).astype(mx.float32), rtol=1e-3, atol=1e-3).item()
    source = open_model(floats, CPU_FLOAT32).network(tokens)
    assert 0.9 < mx.sum(ours * source).item() / mx.sum(source * source).item() < 1.1
    (form,) = report["forms"]
    assert (form["mode"], form["layers"]) == (mode, 15)


@pytest.mark.parametrize("mode", ["affine", "mxfp4", "mxfp8", "nvfp4"])
def test_the_grid_is_mlx_lms_own(tmp_path, floats, mode):
    bits = 4 if mode == "affine" else None
    convert(str(floats), tmp_path / "out", mode=mode, bits=bits, group_size=64 if bits else None)

    network, config = mlx_lm.utils.load_model(floats)
    network, _ = mlx_lm.utils.quantize_model(network, config, group_size=None, bits=None, mode=mode)
    theirs, ours = dict(tree_flatten(network.parameters())), weights_of(tmp_path / "out")
    assert ours.keys() == theirs.keys()
    assert all(bits_of(ours[name]) == bits_of(theirs[name]) for name in theirs)


@pytest.mark.parametrize("mode", ["mxfp4", "mxfp8", "nvfp4"])
def test_what_is_in_a_mode_already_passes_through(tmp_path, floats, mode):
    convert(str(floats), tmp_path / "first", mode=mode)

    report = convert(str(tmp_path / "first"), tmp_path / "second", mode=mode)

    assert report["exact"]
    before, after = weights_of(tmp_path / "first"), weights_of(tmp_path / "second")
    assert all(bits_of(before[name]) == bits_of(after[name]) for name in before)


def test_a_mix_is_what_mlx_lm_makes_of_it(tmp_path, floats):
    report = convert(str(floats), tmp_path / "ours", mix="mixed_3_6", group_size=32)
    mlx_lm.convert(str(floats), str(tmp_path / "theirs"), quantize=True, q_group_size=32, quant_predicate="mixed_3_6")

    ours, theirs = weights_of(tmp_path / "ours"), weights_of(tmp_path / "theirs")
    assert ours.keys() == theirs.keys()
    assert all(bits_of(ours[name]) == bits_of(theirs[name]) for name in theirs)
    mlx_lm.load(str(tmp_path / "ours"))
    assert {form["bits"]: form["layers"] for form in report["forms"]} == {3: 13, 6: 2}


def test_what_is_quantized_otherwise_loses_for_the_second_time_and_that_is_said(tmp_path, quantized):
    report = convert(str(quantized), tmp_path / "out", bits=3)

    (note,) = report["notes"]
    assert note == "15 layers were quantized before in another way: what that lost is lost too"
    packed, values = weights_of(quantized), weights_of(tmp_path / "out")
    name = "model.layers.0.mlp.down_proj"
    stored, again = (
        mx.dequantize(*(weights[f"{name}.{part}"] for part in ("weight", "scales", "biases")), group_size=32, bits=bits)
        for weights, bits in ((packed, 4), (values, 3))
    )
    steps = mx.abs(stored - again).reshape(64, -1, 32) / mx.abs(values[f"{name}.scales"])[..., None]
    assert 0 < mx.max(steps).item() < 1.1


@pytest.mark.parametrize(
    ("kind", "options", "exact"),
    [
        ("floats", {}, True),
        ("quantized", {}, True),
        ("quantized", {"dtype": "float32"}, True),
        ("quantized", {"bits": 4}, True),
        ("quantized", {"bits": 4, "dtype": "bfloat16"}, False),
        ("quantized", {"dtype": "float16"}, False),
        ("quantized", {"bits": 8}, False),
        ("floats", {"bits": 8}, False),
        ("floats", {"dtype": "bfloat16"}, False),
    ],
)
def test_what_is_exact_is_known_and_only_the_rest_is_measured(tmp_path, request, kind, options, exact):
    asked = []

    def measure(folder):
        asked.append(folder)
        return lambda part: sorted(path.name for path in part.glob("*.safetensors"))

    source = request.getfixturevalue(kind)
    report = convert(str(source), tmp_path / "out", **options, measure=measure)

    assert report["exact"] is exact
    assert asked == ([] if exact else [source])
    assert report["fidelity"] == (None if exact else ["model.safetensors"])


def test_the_size_of_a_gguf_is_known_before_it_is_imported(tmp_path, tiny_gguf):
    report = convert(str(tiny_gguf), tmp_path / "out")
    assert imported_bytes(read_gguf(tiny_gguf)) == report["bytes"]
    assert report["bytes"] == sum(array.nbytes for array in weights_of(tmp_path / "out").values())


def test_a_gguf_that_has_to_be_expanded_is_not_called_exact(tmp_path, write_gguf):
    q5_0 = gguf.GGMLQuantizationType.Q5_0
    write_gguf(tmp_path / "x.gguf", types={"blk.0.ffn_down.weight": q5_0})

    report = convert(str(tmp_path / "x.gguf"), tmp_path / "out")

    assert not report["exact"]
    (note,) = report["notes"]
    assert "Q5_0 became 16-bit floats, which rounds a value by at most 1/2048 of it or 3e-8" in note
    assert "beyond float16's range, by at most 1/256" in note


def test_layers_that_are_stored_as_asked_pass_through_and_the_others_do_not(tmp_path, write_gguf):
    write_gguf(tmp_path / "x.gguf")
    convert(str(tmp_path / "x.gguf"), tmp_path / "stored")

    report = convert(str(tmp_path / "x.gguf"), tmp_path / "out", bits=4, group_size=32)

    before, after = weights_of(tmp_path / "stored"), weights_of(tmp_path / "out")
    assert report["kept_layers"] == 8  # q, k, o and down of two blocks
    for name in ("self_attn.q_proj", "mlp.down_proj"):
        for part in ("weight", "scales", "biases"):
            key = f"model.layers.1.{name}.{part}"
            assert bits_of(before[key]) == bits_of(after[key])
    assert set(config_of(tmp_path / "out")["quantization"]) == {"bits", "group_size", "mode"}
    assert after["model.embed_tokens.scales"].shape == (264, 2)
    assert after["model.embed_tokens.scales"].dtype == mx.float16  # as the file's own
    network, _ = mlx_lm.load(str(tmp_path / "out"))
    assert network.layers[0].self_attn.v_proj.bits == 4


def test_a_layer_whose_scales_are_bytes_becomes_affine_with_floats_for_scales(tmp_path, floats):
    network, config = mlx_lm.utils.load_model(floats)
    _, config = mlx_lm.utils.quantize_model(network, config, group_size=32, bits=4, mode="mxfp4")
    mlx_lm.utils.save(tmp_path / "bytes", floats, network, mlx_lm.load(str(floats))[1], config)

    convert(str(tmp_path / "bytes"), tmp_path / "out", bits=8)

    weights = weights_of(tmp_path / "out")
    name = "model.layers.0.mlp.down_proj"
    assert weights[f"{name}.scales"].dtype == mx.bfloat16
    parts = [weights[f"{name}.{part}"] for part in ("weight", "scales", "biases")]
    values = mx.dequantize(*parts, group_size=32, bits=8)
    packed = weights_of(tmp_path / "bytes")
    stored = mx.dequantize(packed[f"{name}.weight"], packed[f"{name}.scales"], group_size=32, bits=4, mode="mxfp4")
    assert mx.abs(values - stored).max().item() < 0.02 * mx.abs(stored).max().item()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_bits_and_dtype_together_set_both(tmp_path, floats, dtype):
    convert(str(floats), tmp_path / "out", bits=4, dtype=dtype)

    dtypes = {array.dtype for array in weights_of(tmp_path / "out").values()}
    assert dtypes == {mx.uint32, getattr(mx, dtype)}


def test_a_gguf_without_options_is_what_the_cache_would_hold(tmp_path, tiny_gguf, cache):
    from mlxtune.models.source import find_model

    convert(str(tiny_gguf), tmp_path / "out")

    ours, cached = weights_of(tmp_path / "out"), weights_of(find_model(str(tiny_gguf)).path)
    assert {name: bits_of(a) for name, a in ours.items()} == {name: bits_of(a) for name, a in cached.items()}
    assert config_of(tmp_path / "out") == config_of(find_model(str(tiny_gguf)).path)


def test_a_group_that_does_not_divide_a_layer_is_refused_with_its_name(tmp_path):
    source = tiny_model_folder(tmp_path / "narrow", hidden=96)

    with pytest.raises(ModelError, match=r"layer model\.\S+ is 96 wide.*group size 64") as caught:
        convert(str(source), tmp_path / "out", bits=4, group_size=64)

    assert "smaller group size" in str(caught.value.remedy)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["narrow"]


def test_values_beyond_float16_are_refused(tmp_path, floats):
    weights = weights_of(floats)
    weights["model.norm.weight"] = weights["model.norm.weight"] * 1e6
    mx.save_safetensors(str(floats / "model.safetensors"), weights)

    with pytest.raises(ModelError, match=r"model\.norm\.weight has values beyond the range of float16"):
        convert(str(floats), tmp_path / "out", dtype="float16")

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"bits": 7}, "7 bits in groups of 32"),
        ({"bits": 4, "group_size": 16}, "4 bits in groups of 16"),
        ({"group_size": 32}, "a group size alone"),
        ({"dtype": "float8"}, "no dtype float8"),
        ({"device": "tpu"}, "no device 'tpu'"),
        ({"mode": "mxfp4", "bits": 8}, "mxfp4 has 4 bits in groups of 32"),
        ({"mix": "mixed_3_6", "bits": 3}, "mixed_3_6 says how many bits"),
        ({"mix": "sensitive", "bits": 3}, "measured on rows"),
    ],
)
def test_options_that_mean_nothing_are_refused(tmp_path, floats, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        convert(str(floats), tmp_path / "out", **options)

    assert not (tmp_path / "out").exists()


def test_a_link_that_leads_nowhere_is_passed_over(tmp_path, floats):
    (floats / "LICENSE").symlink_to(tmp_path / "gone")
    convert(str(floats), tmp_path / "out", bits=4)
    assert not (tmp_path / "out" / "LICENSE").is_symlink()


def test_a_dtype_is_said_wherever_the_config_names_it(tmp_path):
    source = family_folder(tmp_path / "source", "gemma4")
    config = config_of(source)
    config |= {"dtype": "float32", "text_config": config["text_config"] | {"dtype": "float32"}}
    (source / "config.json").write_text(json.dumps(config))

    convert(str(source), tmp_path / "out", dtype="float16")

    found = config_of(tmp_path / "out")
    said = [part.get(key) for part in (found, found["text_config"]) for key in ("dtype", "torch_dtype")]
    assert said == ["float16"] * 4
    convert(str(source), tmp_path / "quantized", bits=4)
    assert config_of(tmp_path / "quantized")["text_config"]["dtype"] == "float32"


def test_a_familys_own_exceptions_are_respected(tmp_path):
    """granite's mlx_lm class wants its o_proj, down_proj and head at 8 bits in groups of 64, whatever is asked for."""
    from mlx_lm.models import granite

    source = tiny_model_folder(tmp_path / "granite")
    config = config_of(source) | {
        "model_type": "granite",
        "logits_scaling": 8.0,
        "attention_multiplier": 0.3,
        "embedding_multiplier": 12.0,
        "residual_multiplier": 0.2,
        "attention_bias": False,
        "mlp_bias": False,
    }
    network = granite.Model(granite.ModelArgs.from_dict(config))
    (source / "config.json").write_text(json.dumps(config))
    mx.save_safetensors(str(source / "model.safetensors"), dict(tree_flatten(network.parameters())))

    convert(str(source), tmp_path / "out", bits=4, group_size=32)

    quantization = config_of(tmp_path / "out")["quantization"]
    assert quantization["model.layers.0.self_attn.o_proj"] == {"bits": 8, "group_size": 64, "mode": "affine"}
    assert "model.layers.0.self_attn.q_proj" not in quantization
    mlx_lm.load(str(tmp_path / "out"))
