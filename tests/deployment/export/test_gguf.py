"""What is exported as GGUF is what the format's rules make of the network, and comes back as it was."""

import json
from pathlib import Path

import gguf
import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.utils import load_model
from reference.awkward import TEXTS
from reference.gguf_files import interleaved, write_network
from reference.gguf_models import FAMILIES, ROWS, SHAPE, TOKENIZER, random_network
from tiny import tiny_llama, tiny_model_folder

from mlxtune.adapters.attach import LoraShape, adapter_parameters, attach_lora, load_adapter_parameters
from mlxtune.adapters.format import save_adapter
from mlxtune.deployment.export.gguf import export_gguf, model_name
from mlxtune.deployment.export.lora_gguf import export_lora
from mlxtune.deployment.tuned import Tuned
from mlxtune.errors import AdapterError, DeviceError, ModelError, OutputExistsError, UsageError
from mlxtune.files import check_disk_space
from mlxtune.models.gguf.header import read_header
from mlxtune.models.gguf.read import write_gguf_folder
from mlxtune.models.source import ModelFolder
from mlxtune.models.tokenizer import open_tokenizer
from mlxtune.runs.prompting import Prompting

ONE_OF_EACH = ["llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3"]


def family_folder(folder, name, **own):
    """A family's network as an MLX folder, and the GGUF file that the format's rules make of it."""
    model_type, settings = FAMILIES[name]
    config = SHAPE | {"model_type": model_type} | settings | own
    write_network(folder / "reference.gguf", random_network(config), config, TOKENIZER)
    (folder / "model").mkdir()
    write_gguf_folder(folder / "reference.gguf", folder / "model")
    return folder / "model"


def put_adapter(folder, model, *, seed=1, **shape):
    """An adapter on the network in ``model`` whose every factor is random; returns its folder and the network."""
    network, _ = load_model(model)
    lora = LoraShape(**{"rank": 4, "alpha": 12.0} | shape)
    attach_lora(network, lora, seed=0)
    parameters = adapter_parameters(network)
    keys = mx.random.split(mx.random.key(seed), len(parameters))
    drawn = [0.1 * mx.random.normal(one.shape, key=key) for one, key in zip(parameters.values(), keys, strict=True)]
    load_adapter_parameters(network, dict(zip(parameters, drawn, strict=True)))
    (folder / "adapter").mkdir()
    save_adapter(network, folder / "adapter", base_model="base")
    return folder / "adapter", network


def tensors(path):
    """By name: float32 values, with rows first."""
    return {
        one.name: gguf.quants.dequantize(one.data, one.tensor_type).reshape(one.shape[::-1])
        for one in gguf.GGUFReader(path).tensors
    }


def logits(network):
    ids = np.random.default_rng(1).integers(0, ROWS, (2, 24))
    return np.array(network(mx.array(ids)))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_written_by_the_formats_rules_and_comes_back(tmp_path, name):
    model = family_folder(tmp_path, name)

    report = export_gguf(model, tmp_path / "x.gguf", type="f32")

    expected, written = tensors(tmp_path / "reference.gguf"), tensors(tmp_path / "x.gguf")
    if name == "phi3, long":  # mlx_lm has the long factors at every length, so that is what was trained
        expected["rope_factors_short.weight"] = expected["rope_factors_long.weight"]
    assert written.keys() == expected.keys()
    for tensor, values in expected.items():
        # Gemma's norms went through a sum and a difference with one
        np.testing.assert_allclose(written[tensor], values, rtol=1e-6, atol=1e-6, err_msg=tensor)
    metadata = read_header(tmp_path / "x.gguf").metadata
    for key, value in read_header(tmp_path / "reference.gguf").metadata.items():
        assert metadata[key] == (pytest.approx(value) if isinstance(value, float) else padded(key, value)), key
    (tmp_path / "again").mkdir()
    again = write_gguf_folder(tmp_path / "x.gguf", tmp_path / "again")
    before = json.loads((model / "config.json").read_text())
    if name == "phi3, long":
        before["rope_scaling"]["short_factor"] = before["rope_scaling"]["long_factor"]
    assert {key: again[key] for key in before} == before
    given = logits(load_model(model)[0])
    np.testing.assert_allclose(logits(load_model(tmp_path / "again")[0]), given, atol=1e-5 * np.abs(given).max())
    assert (report.type, report.tensors, report.notes) == ("f32", len(written), [])
    assert report.bytes == (tmp_path / "x.gguf").stat().st_size


def padded(key, value):
    """The reference leaves rows of the vocabulary without a token; llama.cpp wants one for each."""
    gaps = {"tokenizer.ggml.tokens": [f"[PAD{i}]" for i in range(260, ROWS)], "tokenizer.ggml.token_type": [5] * 4}
    return value + gaps[key] if key in gaps else value


@pytest.mark.parametrize("name", ["llama", "gemma2", "phi3"])
def test_the_tokenizer_that_comes_back_gives_the_same_ids(tmp_path, name):
    model = family_folder(tmp_path, name)
    export_gguf(model, tmp_path / "x.gguf")
    (tmp_path / "again").mkdir()
    write_gguf_folder(tmp_path / "x.gguf", tmp_path / "again")

    before, after = open_tokenizer(model), open_tokenizer(tmp_path / "again")

    assert [after.encode(text) for text in TEXTS] == [before.encode(text) for text in TEXTS]
    assert after.eos_token_ids == before.eos_token_ids
    assert after.chat_template == before.chat_template


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_merged_adapter_answers_as_base_plus_adapter(tmp_path, name):
    model = family_folder(tmp_path, name)
    adapter, tuned = put_adapter(tmp_path, model)

    report = export_gguf(model, tmp_path / "x.gguf", adapter=adapter, type="f32")

    (tmp_path / "again").mkdir()
    write_gguf_folder(tmp_path / "x.gguf", tmp_path / "again")
    expected = logits(tuned)
    np.testing.assert_allclose(logits(load_model(tmp_path / "again")[0]), expected, atol=1e-4 * np.abs(expected).max())
    assert np.abs(expected - logits(load_model(model)[0])).max() > 0.1 * np.abs(expected).max()
    assert report.adapted_layers == len(adapter_parameters(tuned)) / 2


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_lora_file_is_what_the_merged_file_has_more_than_its_base(tmp_path, name):
    """By llama.cpp's rule: W + alpha / R * B A, with B's rows where GGUF has those of W."""
    model = family_folder(tmp_path, name)
    adapter, _ = put_adapter(tmp_path, model)

    export_gguf(model, tmp_path / "merged.gguf", adapter=adapter, type="f32")
    report = export_lora(model, tmp_path / "lora.gguf", adapter=adapter)

    base, merged, lora = (tensors(tmp_path / f"{one}.gguf") for one in ("reference", "merged", "lora"))
    metadata = read_header(tmp_path / "lora.gguf").metadata
    assert (metadata["general.type"], metadata["adapter.type"]) == ("adapter", "lora")
    assert metadata["general.architecture"] == read_header(tmp_path / "merged.gguf").metadata["general.architecture"]
    adapted = {tensor.removesuffix(".lora_a") for tensor in lora if tensor.endswith(".lora_a")}
    assert report.adapted_layers == len(adapted) == len(lora) / 2 > 0
    for tensor, values in merged.items():
        update = 0
        if tensor in adapted:
            a, b = lora[f"{tensor}.lora_a"], lora[f"{tensor}.lora_b"]
            update = metadata["adapter.lora.alpha"] / b.shape[1] * b @ a
        np.testing.assert_allclose(values, base[tensor] + update, rtol=1e-5, atol=1e-5, err_msg=tensor)


def test_what_a_layers_scale_has_beyond_alpha_over_rank_is_in_its_b(tmp_path):
    model = family_folder(tmp_path, "llama")
    adapter, tuned = put_adapter(tmp_path, model, target_modules=("q_proj", "up_proj"))
    config = json.loads((adapter / "adapter_config.json").read_text())
    own = {"alpha_pattern": {"up_proj": 3.0}}
    theirs = {
        key: value for key, value in config.items() if key not in {"fine_tune_type", "lora_parameters", "mlxtune"}
    }
    (adapter / "adapter_config.json").write_text(json.dumps(theirs | own))
    (adapter / "adapters.safetensors").unlink()

    export_lora(model, tmp_path / "x.gguf", adapter=adapter)

    lora, metadata = tensors(tmp_path / "x.gguf"), read_header(tmp_path / "x.gguf").metadata
    for stem, module, alpha in (("attn_q", "self_attn.q_proj", 12), ("ffn_up", "mlp.up_proj", 3)):
        b, a = (lora[f"blk.1.{stem}.weight.lora_{one}"] for one in "ba")
        layer = tuned.layers[1].self_attn.q_proj if stem == "attn_q" else tuned.layers[1].mlp.up_proj
        expected = alpha / 4 * (np.array(layer.lora_a) @ np.array(layer.lora_b)).T
        if stem == "attn_q":
            expected = interleaved(expected, SHAPE["num_attention_heads"])
        given = metadata["adapter.lora.alpha"] / 4 * b @ a
        np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-6, err_msg=module)


STEPS = {"q8_0": 254, "q5_1": 31, "q5_0": 31, "q4_1": 15, "q4_0": 15}  # between the ends of what a block can say


@pytest.mark.parametrize("kind", STEPS)
def test_each_type_of_blocks_is_as_near_as_its_grid_and_our_import_reads_it_so(tmp_path, kind):
    model = family_folder(tmp_path, "llama with a head of its own")

    report = export_gguf(model, tmp_path / "x.gguf", type=kind)

    exact, written = tensors(tmp_path / "reference.gguf"), tensors(tmp_path / "x.gguf")
    types = {one.name: one.tensor_type.name.lower() for one in gguf.GGUFReader(tmp_path / "x.gguf").tensors}
    for name, values in exact.items():
        stored = "f32" if values.ndim == 1 else "q8_0" if name == "output.weight" else kind
        assert types[name] == stored, name
        if stored == "f32":
            np.testing.assert_array_equal(written[name], values)
            continue
        blocks = values.reshape(-1, 32)
        # from zero both ways in the symmetric types, of which one end is not reached by one step
        width = np.ptp(blocks, axis=1) if kind.endswith("_1") and stored == kind else 2 * np.abs(blocks).max(axis=1)
        error = np.abs(written[name].reshape(-1, 32) - blocks).max(axis=1)
        assert (error <= 1.05 * width / STEPS[stored] + 1e-3).all(), name
    (tmp_path / "again").mkdir()
    write_gguf_folder(tmp_path / "x.gguf", tmp_path / "again")
    network, _ = load_model(tmp_path / "again")
    mx.eval(network.parameters())
    assert report.type == kind
    row = written["token_embd.weight"][5]
    np.testing.assert_allclose(
        np.array(network.model.embed_tokens(mx.array([5]))[0]), row, atol=2e-3 * np.abs(row).max()
    )


@pytest.mark.parametrize(("kind", "digits"), [("f16", 11), ("bf16", 8)])
def test_sixteen_bits_round_to_the_nearest_and_norms_stay_as_they_are(tmp_path, kind, digits):
    model = family_folder(tmp_path, "llama")

    export_gguf(model, tmp_path / "x.gguf", type=kind)

    for name, values in tensors(tmp_path / "reference.gguf").items():
        written = tensors(tmp_path / "x.gguf")[name]
        if values.ndim == 1:
            np.testing.assert_array_equal(written, values)
        else:
            np.testing.assert_allclose(written, values, rtol=2.0**-digits, atol=1e-7)


def test_rows_that_are_no_whole_blocks_stay_float16(tmp_path):
    model = family_folder(tmp_path, "llama", intermediate_size=72)

    export_gguf(model, tmp_path / "x.gguf", type="q4_0")

    types = {one.name: one.tensor_type.name for one in gguf.GGUFReader(tmp_path / "x.gguf").tensors}
    assert types["blk.0.ffn_down.weight"] == "F16"
    assert (types["blk.0.ffn_up.weight"], types["token_embd.weight"]) == ("Q4_0", "Q8_0")


def test_a_quantized_base_is_said_to_be_quantized_anew(tmp_path):
    model = tiny_model_folder(tmp_path / "model", quantized=True)

    assert export_gguf(model, tmp_path / "x.gguf").notes == []
    assert "quantized anew" in export_gguf(model, tmp_path / "y.gguf", type="q4_0").notes[0]
    (tmp_path / "again").mkdir()
    write_gguf_folder(tmp_path / "x.gguf", tmp_path / "again")
    expected = np.array(tiny_llama(quantized=True)(mx.array([[5, 6, 7]])))
    network, _ = load_model(tmp_path / "again")
    network.set_dtype(mx.float32)
    given = np.array(network(mx.array([[5, 6, 7]])))
    np.testing.assert_allclose(given, expected, atol=5e-3 * np.abs(expected).max())


def test_a_type_that_rounds_the_update_away_is_refused_with_the_smallest_that_keeps_it(tmp_path):
    model = tiny_model_folder(tmp_path / "model", quantized=True)  # on a grid of 4 bits, which q4_1 finds again
    adapter, network = put_adapter(tmp_path, model)
    small = {name: array * (1 if name.endswith("a") else 0.1) for name, array in adapter_parameters(network).items()}
    load_adapter_parameters(network, small)
    save_adapter(network, tmp_path / "adapter", base_model="base")

    with pytest.raises(ModelError, match=r"as q4_1 the file would hold -?[\d.]+% of what was learned") as caught:
        export_gguf(model, tmp_path / "x.gguf", adapter=adapter, type="q4_1")
    assert not (tmp_path / "x.gguf").exists()
    named = caught.value.remedy.split()[1]
    assert abs(export_gguf(model, tmp_path / "x.gguf", adapter=adapter, type=named).update_kept - 1) <= 0.1
    lost = export_gguf(model, tmp_path / "y.gguf", adapter=adapter, type="q4_1", accept_loss=True)

    export_gguf(model, tmp_path / "base.gguf", type="f32")
    export_gguf(model, tmp_path / "exact.gguf", adapter=adapter, type="f32")
    base, exact, written = (tensors(tmp_path / f"{one}.gguf") for one in ("base", "exact", "y"))
    sides = np.zeros(2)
    for name in (name for name in exact if np.any(exact[name] != base[name])):
        update = (exact[name] - base[name]).astype(np.float64)
        sides += np.sum((written[name] - base[name]) * update), np.sum(update * update)
    assert lost.update_kept == pytest.approx(sides[0] / sides[1], abs=1e-3)


def test_a_head_that_an_adapter_brings_along_is_the_files_head(tmp_path):
    model = family_folder(tmp_path, "llama with a head of its own")
    (tmp_path / "adapter").mkdir()
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q_proj"]}
    config |= {"modules_to_save": ["lm_head"], "layers_to_transform": [0], "layers_pattern": "layers"}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    head = np.random.default_rng(2).normal(size=(ROWS, 64)).astype(np.float32)
    prefix = "base_model.model."
    factors = f"{prefix}model.layers.0.self_attn.q_proj.lora_"
    arrays = {f"{prefix}lm_head.weight": mx.array(head)}
    arrays |= {f"{factors}A.weight": mx.ones((1, 64)), f"{factors}B.weight": mx.ones((64, 1))}
    mx.save_safetensors(str(tmp_path / "adapter" / "adapter_model.safetensors"), arrays)

    export_gguf(model, tmp_path / "x.gguf", adapter=tmp_path / "adapter", type="f32")

    np.testing.assert_array_equal(tensors(tmp_path / "x.gguf")["output.weight"], head)
    with pytest.raises(AdapterError, match="lm_head has a whole module of its own"):
        export_lora(model, tmp_path / "lora.gguf", adapter=tmp_path / "adapter")


@pytest.mark.parametrize(
    ("base", "adapter", "name"),
    [
        (ModelFolder(Path("/cache/snapshots/0a1b"), "org/Small-1B@main", "", True, "0a1b"), None, "Small-1B"),
        (ModelFolder(Path("/cache/x-12"), "models/x.gguf", "", True), None, "x"),
        (ModelFolder(Path("/here"), "a@b", "", True), None, "a@b"),
        (ModelFolder(Path("/here"), "here", "", True), Path("runs/first"), "first"),
    ],
)
def test_a_model_is_named_after_what_the_user_calls_it(base, adapter, name):
    assert model_name(Tuned(base, adapter, None, Prompting())) == name


def test_a_full_disk_is_met_before_anything_is_written(tmp_path, monkeypatch):
    model = family_folder(tmp_path, "llama")
    monkeypatch.setattr("mlxtune.deployment.export.gguf.check_disk_space", refuse_more_than(100_000))

    with pytest.raises(DeviceError, match=r"GB are needed") as caught:
        export_gguf(model, tmp_path / "out" / "x.gguf")
    assert caught.value.remedy
    assert not (tmp_path / "out").exists()


def refuse_more_than(free):
    return lambda folder, needed: check_disk_space(folder, needed, free_bytes=lambda _: free)


def test_the_message_that_training_began_with_is_told(tmp_path):
    model = tiny_model_folder(tmp_path / "model")
    (model / "mlxtune.json").write_text(Prompting(raw=False, system="Be brief.").to_json())

    assert export_gguf(model, tmp_path / "x.gguf").system == "Be brief."


def test_nothing_is_overwritten_and_nothing_half_written_is_left(tmp_path):
    model = family_folder(tmp_path, "llama")
    weights = mx.load(str(model / "model.safetensors"))
    weights["model.layers.1.mlp.down_proj.weight"][0, 0] = 1e5
    mx.save_safetensors(str(model / "model.safetensors"), weights)
    (tmp_path / "taken.gguf").write_text("mine")

    with pytest.raises(OutputExistsError):
        export_gguf(model, tmp_path / "taken.gguf", type="f32")
    for kind in ("f16", "q4_0"):
        with pytest.raises(ModelError, match=r"blk\.1\.ffn_down\.weight has values that \w+ cannot hold") as caught:
            export_gguf(model, tmp_path / "out" / "x.gguf", type=kind)
        assert caught.value.where == str(model)
        assert "bf16" in caught.value.remedy
    assert list((tmp_path / "out").iterdir()) == []
    assert (tmp_path / "taken.gguf").read_text() == "mine"
    export_gguf(model, tmp_path / "taken.gguf", type="bf16", force=True)
    assert tensors(tmp_path / "taken.gguf")["blk.1.ffn_down.weight"][0, 0] == pytest.approx(1e5, rel=4e-3)


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("llama", {"model_type": "cohere"}, "models of the type cohere cannot be written as GGUF; llama, qwen2"),
        ("llama", {"rope_traditional": True}, "rope_traditional"),
        ("llama", {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}, "look back a window"),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "of llama are scaled by the rule dynamic"),
        ("llama, yarn", {"rope_scaling": {"type": "yarn", "factor": 4.0, "mscale": 2}}, "YaRN has an mscale"),
        ("llama with other factors", {"max_position_embeddings": 1024}, "a list of factors and by their context"),
        ("gemma3", {"rope_scaling": {"type": "yarn", "factor": 2.0}}, "of gemma3 are scaled by the rule yarn"),
        ("gemma2", {"query_pre_attn_scalar": 24}, "queries are scaled by 24"),
        ("llama", {"max_position_embeddings": None}, "no max_position_embeddings"),
    ],
)
def test_what_gguf_has_no_place_for_is_refused_by_name(tmp_path, name, change, sentence):
    model = family_folder(tmp_path, name)
    config = json.loads((model / "config.json").read_text()) | change
    (model / "config.json").write_text(json.dumps(config))

    with pytest.raises(ModelError, match=sentence) as caught:
        export_gguf(model, tmp_path / "x.gguf")
    assert caught.value.where == str(model)
    assert caught.value.remedy
    assert not (tmp_path / "x.gguf").exists()


def test_an_adapter_that_is_more_than_lora_is_refused_alone(tmp_path):
    model = family_folder(tmp_path, "llama")
    adapter, _ = put_adapter(tmp_path, model)
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["fine_tune_type"] = "dora"
    (adapter / "adapter_config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "peft_type"}))
    arrays = mx.load(str(adapter / "adapters.safetensors"))
    factors = [name for name in arrays if name.endswith("lora_b")]
    arrays |= {name.replace("lora_b", "m"): mx.ones(arrays[name].shape[1]) for name in factors}
    mx.save_safetensors(str(adapter / "adapters.safetensors"), arrays)

    with pytest.raises(AdapterError, match="has DoRA of its own, and a LoRA GGUF holds LoRA") as caught:
        export_lora(model, tmp_path / "x.gguf", adapter=adapter)
    assert caught.value.remedy == "leave out --adapter-only: the merged model has it all"


def test_a_wrong_type_or_no_adapter_is_refused_before_anything_is_read(tmp_path):
    model = family_folder(tmp_path, "llama")

    with pytest.raises(UsageError, match="there is no type 'q4_k'"):
        export_gguf(model, tmp_path / "x.gguf", type="q4_k")
    with pytest.raises(UsageError, match="an adapter is not written as 'q8_0'"):
        export_lora(model, tmp_path / "x.gguf", type="q8_0")
    with pytest.raises(UsageError, match="there is no adapter"):
        export_lora(model, tmp_path / "x.gguf")
