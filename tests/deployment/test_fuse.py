"""A fused folder answers as base plus adapter did, and is an ordinary model folder."""

import json

import mlx.core as mx
import numpy as np
import pytest
import safetensors.numpy
from mlx.utils import tree_flatten
from mlx_lm.utils import dequantize_model, load, load_model
from tiny import tiny_config, tiny_llama, tiny_model_folder

from mlxtune.adapters.attach import LoraShape, adapter_parameters, attach_lora, load_adapter_parameters
from mlxtune.adapters.format import save_adapter
from mlxtune.deployment.fuse import _finite, _open_fused, choose_dtype, fuse
from mlxtune.deployment.fused_weights import Form
from mlxtune.device.precision import CPU_FLOAT32, GPU_BFLOAT16, apply_precision
from mlxtune.errors import AdapterError, ModelError, OutputExistsError, UsageError
from mlxtune.models.write import plain_config, write_weights
from mlxtune.progress import silent

TOKENS = mx.array([[5, 6, 7, 8]])


def tuned_network(*, change=0.05, **shape):
    """A tiny network in float32 with an adapter that changes its answer."""
    network = tiny_llama(**shape)
    apply_precision(network, CPU_FLOAT32)
    attach_lora(network, LoraShape(rank=2, alpha=4.0), seed=0)
    parameters = adapter_parameters(network)
    load_adapter_parameters(network, {name: array + change for name, array in parameters.items()})
    return network


def base_and_adapter(folder, *, change=0.05, **shape):
    base = tiny_model_folder(folder / "base", **shape)
    (folder / "adapter").mkdir()
    network = tuned_network(change=change, **shape)
    save_adapter(network, folder / "adapter", base_model="base")
    return base, folder / "adapter", network


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("quantized", [True, False])
def test_the_fused_model_opens_in_mlx_lm_and_answers_as_base_plus_adapter(tmp_path, quantized, tied):
    base, adapter, network = base_and_adapter(tmp_path, quantized=quantized, tied=tied)
    report = fuse(base, adapter, tmp_path / "out", precision=CPU_FLOAT32)
    fused, tokenizer = load(str(tmp_path / "out"))
    np.testing.assert_allclose(np.array(fused(TOKENS)), np.array(network(TOKENS)), rtol=0, atol=1e-5)
    assert tokenizer.chat_template is not None
    assert (report.dtype, report.adapted_layers) == ("float32", 14)


def test_weights_without_an_adapter_are_untouched(tmp_path):
    base, adapter, _ = base_and_adapter(tmp_path)
    fuse(base, adapter, tmp_path / "out", precision=CPU_FLOAT32)
    before, after = (safetensors.numpy.load_file(folder / "model.safetensors") for folder in (base, tmp_path / "out"))
    assert before.keys() == after.keys()
    assert {name for name in before if np.array_equal(before[name], after[name])} == {
        name for name in before if "_proj" not in name
    }


def test_a_quantized_embedding_is_unpacked_with_float32_scales(tmp_path):
    base, adapter, _ = base_and_adapter(tmp_path, quantized=True)
    stored = mx.load(str(base / "model.safetensors"))
    mx.save_safetensors(
        str(base / "model.safetensors"),
        {name: array.astype(mx.float16) if array.dtype == mx.float32 else array for name, array in stored.items()},
    )
    network, _ = load_model(base)
    network.set_dtype(mx.float32)
    dequantize_model(network)
    fuse(base, adapter, tmp_path / "out", precision=CPU_FLOAT32)
    fused = mx.load(str(tmp_path / "out" / "model.safetensors"))
    assert mx.array_equal(fused["model.embed_tokens.weight"], network.model.embed_tokens.weight)


def test_layers_quantized_each_in_its_own_way_are_unpacked_in_its_way(tmp_path):
    base = tiny_model_folder(tmp_path / "base")
    network, config = load_model(base)
    from mlx_lm.utils import quantize_model

    kinds = {"embed_tokens": {"bits": 8, "group_size": 32}, "down_proj": False}
    network, config = quantize_model(
        network, config, 32, 4, quant_predicate=lambda path, _: kinds.get(path.rpartition(".")[2], True)
    )
    mx.save_safetensors(str(base / "model.safetensors"), dict(tree_flatten(network.parameters())))
    (base / "config.json").write_text(json.dumps(config))
    adapter = base_and_adapter(tmp_path / "other")[1]
    fuse(base, adapter, tmp_path / "out", precision=CPU_FLOAT32)
    expected, _ = load(str(base), adapter_path=str(adapter))
    fused, _ = load(str(tmp_path / "out"))
    np.testing.assert_allclose(np.array(fused(TOKENS)), np.array(expected(TOKENS)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_every_weight_is_in_the_dtype_asked_for(tmp_path, dtype):
    base, adapter, _ = base_and_adapter(tmp_path, quantized=True)
    report = fuse(base, adapter, tmp_path / "out", precision=CPU_FLOAT32, dtype=dtype)
    written = mx.load(str(tmp_path / "out" / "model.safetensors"))
    assert {array.dtype for array in written.values()} == {getattr(mx, dtype)}
    assert (report.dtype, report.reason) == (dtype, "asked for")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == dtype


def test_float16_keeps_a_small_update_that_bfloat16_rounds_away(tmp_path):
    base, adapter, network = base_and_adapter(tmp_path, change=0.0)
    parameters = adapter_parameters(network)
    small = {name: mx.full(array.shape, 0.003) for name, array in parameters.items()}  # 4 of 100,000 in a weight
    load_adapter_parameters(network, small)
    save_adapter(network, adapter, base_model="base")
    before = mx.load(str(base / "model.safetensors"))["model.layers.0.mlp.up_proj.weight"]
    kept = {}
    for dtype in ("float16", "bfloat16"):
        fuse(base, adapter, tmp_path / dtype, precision=GPU_BFLOAT16, dtype=dtype)
        after = mx.load(str(tmp_path / dtype / "model.safetensors"))["model.layers.0.mlp.up_proj.weight"]
        rounded = before.astype(getattr(mx, dtype))
        kept[dtype] = mx.mean(after != rounded).item()
    assert kept["float16"] > 0.7
    assert kept["bfloat16"] < 0.3


@pytest.mark.parametrize(
    ("config", "precision", "dtype"),
    [
        ({"model_type": "llama"}, GPU_BFLOAT16, "float16"),
        ({"model_type": "gemma3_text"}, GPU_BFLOAT16, "bfloat16"),
        ({"model_type": "gemma2"}, CPU_FLOAT32, "float32"),
        ({}, GPU_BFLOAT16, "float16"),
    ],
)
def test_the_dtype_follows_family_and_device(config, precision, dtype):
    assert choose_dtype(config, precision)[0] == dtype


def test_a_weight_beyond_float16_makes_it_bfloat16_and_the_reason_is_told(tmp_path):
    base, adapter, _ = base_and_adapter(tmp_path)
    weights = mx.load(str(base / "model.safetensors"))
    weights["model.norm.weight"] = weights["model.norm.weight"] * 1e5
    mx.save_safetensors(str(base / "model.safetensors"), weights)
    report = fuse(base, adapter, tmp_path / "out", precision=GPU_BFLOAT16)
    assert (report.dtype, report.reason) == ("bfloat16", "model.norm.weight exceeds float16's range")
    assert mx.load(str(tmp_path / "out" / "model.safetensors"))["model.norm.weight"].dtype == mx.bfloat16
    with pytest.raises(ModelError, match=r"model\.norm\.weight has values that are not finite in float16") as caught:
        fuse(base, adapter, tmp_path / "asked", precision=GPU_BFLOAT16, dtype="float16")
    assert "bfloat16" in caught.value.remedy
    assert not (tmp_path / "asked").exists()


def test_the_config_says_nothing_of_quantization_any_more():
    config = {"model_type": "x", "quantization": {"bits": 4}, "quantization_config": {"bits": 4}, "dtype": "bfloat16"}
    config["text_config"] = {"hidden_size": 8, "quantization_config": {}}
    assert plain_config(config, "float16") == {
        "model_type": "x",
        "torch_dtype": "float16",
        "dtype": "float16",
        "text_config": {"hidden_size": 8, "torch_dtype": "float16"},
    }


def test_tokenizer_template_and_generation_settings_come_along_and_nothing_else(tmp_path):
    base, adapter, _ = base_and_adapter(tmp_path)
    (base / "generation_config.json").write_text('{"temperature": 0.2}')
    (base / "blob").write_text("{{ messages }}")
    (base / "chat_template.jinja").symlink_to(base / "blob")
    (base / "modeling_x.py").write_text("raise SystemExit")
    fuse(base, adapter, tmp_path / "out", precision=CPU_FLOAT32, extra_files={"README.md": "what this is\n"})
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert not (tmp_path / "out" / "chat_template.jinja").is_symlink()
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "{{ messages }}"


def test_memory_is_about_one_weight_beyond_the_shard(tmp_path):
    base, adapter, _ = base_and_adapter(tmp_path, hidden=256, layers=6)
    total = (base / "model.safetensors").stat().st_size
    fused = _open_fused(base, adapter, Form("float32"))
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    write_weights(tmp_path, _finite(fused, silent), count=len(fused), shard_bytes=total // 16)
    assert mx.get_peak_memory() - before < total / 4


def test_progress_counts_the_weights(tmp_path):
    base, adapter, _ = base_and_adapter(tmp_path)
    told = []
    report = fuse(base, adapter, tmp_path / "out", precision=CPU_FLOAT32, progress=lambda *args: told.append(args))
    assert told == [("fuse: weights", i + 1, report.weights) for i in range(report.weights)]


def test_an_existing_folder_is_not_overwritten_unless_forced(tmp_path):
    base, adapter, _ = base_and_adapter(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(OutputExistsError):
        fuse(base, adapter, tmp_path / "out", precision=CPU_FLOAT32)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine"]
    fuse(base, adapter, tmp_path / "out", precision=CPU_FLOAT32, force=True)
    assert not (tmp_path / "out" / "mine").exists()


def test_a_failure_leaves_nothing_behind(tmp_path):
    base, _, _ = base_and_adapter(tmp_path)
    other = base_and_adapter(tmp_path / "other", hidden=32)[1]
    before = {file.name for file in tmp_path.iterdir()}
    with pytest.raises(AdapterError, match="does not fit the network"):
        fuse(base, other, tmp_path / "out", precision=CPU_FLOAT32)
    assert {file.name for file in tmp_path.iterdir()} == before


def test_an_unknown_dtype_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="'int4'"):
        fuse(tmp_path, tmp_path, tmp_path / "out", precision=CPU_FLOAT32, dtype="int4")


def test_a_base_quantized_by_another_program_is_refused(tmp_path):
    base, adapter, _ = base_and_adapter(tmp_path)
    config = tiny_config() | {"quantization_config": {"quant_method": "bitnet"}}
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="bitnet"):
        fuse(base, adapter, tmp_path / "out", precision=CPU_FLOAT32)
    assert not (tmp_path / "out").exists()


def test_a_base_that_is_not_finite_is_refused_in_every_dtype(tmp_path):
    base, adapter, _ = base_and_adapter(tmp_path)
    weights = mx.load(str(base / "model.safetensors"))
    weights["model.norm.weight"] = weights["model.norm.weight"] * float("nan")
    mx.save_safetensors(str(base / "model.safetensors"), weights)
    with pytest.raises(ModelError, match=r"model\.norm\.weight has values that are not finite in bfloat16"):
        fuse(base, adapter, tmp_path / "out", precision=GPU_BFLOAT16)
    assert {file.name for file in tmp_path.iterdir()} == {"base", "adapter"}
