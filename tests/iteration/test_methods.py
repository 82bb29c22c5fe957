"""A run of every method: learned, resumed to the same bits, opened by the verbs, gone on with; and what is refused."""

import json

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.tuner.utils import load_adapters
from mlx_lm.utils import load_model
from own_process import in_own_process, run_and_plan_each
from safetensors.numpy import load_file
from tiny import tiny_model_folder, tiny_recipe

from mlxtune.adapters.open import attach_adapter
from mlxtune.deployment.export.lora_gguf import export_lora
from mlxtune.deployment.export.peft import export_peft
from mlxtune.deployment.fuse_run import fuse_run
from mlxtune.deployment.served import open_served
from mlxtune.device.precision import CPU_FLOAT32
from mlxtune.errors import AdapterError, MlxtuneError, RunError
from mlxtune.iteration.opening import open_recipe
from mlxtune.iteration.ready import make_ready
from mlxtune.iteration.run import resume_run, run_recipe
from mlxtune.iteration.watch import Watch
from mlxtune.models.load import open_model
from mlxtune.recipe.load import load_recipe

METHODS = {
    "rslora": "{rank: 2, use_rslora: true, dropout: 0.1}",
    "patterns": "{rank: 4, rank_pattern: {v_proj: 2, 'layers.1.*q_proj': 3}, alpha_pattern: {mlp.up_proj: 4}}",
    "saved": "{rank: 2, modules_to_save: [embed_tokens, norm]}",
    "ends": "{rank: 2, target_modules: [q_proj, embed_tokens]}",
    "dora": "{type: dora, rank: 2, dropout: 0.1}",
    "full": "{type: full}",
    "top": "{type: full, layers: {top: 1}}",
    "everything": "{type: full, train_embeddings: true}",
}
FULL = ("full", "top", "everything")
SHORT = ("training.max_steps=4", "training.epochs=null", "checkpoint.every_steps=2")
TOKENS = mx.array([[5, 6, 7, 8, 200, 31]])
each_method = pytest.mark.parametrize("name", METHODS)


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """A recipe that says nothing of its method, a run of each method beside it, and the runs' forecasts by folder."""
    folder = tmp_path_factory.mktemp("methods")
    recipe = tiny_recipe(folder)
    recipe.write_text(recipe.read_text().replace("method: {rank: 2, dropout: 0.1}\n", ""))
    runs = {folder / name: (f"method={method}", *SHORT) for name, method in METHODS.items()}
    return in_own_process(run_and_plan_each, recipe, runs, {folder / "saved", folder / "top"})


@pytest.fixture(scope="module")
def folder(planned):
    """Where the recipe and its runs are."""
    return next(iter(planned)).parent


def train(folder, run_dir, *overrides, score=False, **options):
    return run_recipe(folder / "recipe.yaml", overrides, device="cpu", run_dir=run_dir, score=score, **options)


def weights_in(run):
    return {file.name: load_file(file) for file in sorted((run / "adapter").glob("*.safetensors"))}


def logits(network):
    return np.array(network(TOKENS))


def tuned(folder, name):
    network = open_model(folder / "model", CPU_FLOAT32).network
    attach_adapter(network, folder / name / "adapter")
    return network


@each_method
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(folder, tmp_path, name):
    steps = []
    stop = Watch(measured=steps.append, should_stop=lambda: any(line["step"] == 3 for line in steps))
    train(folder, tmp_path / "run", f"method={METHODS[name]}", *SHORT, watch=stop)
    assert not (tmp_path / "run" / "adapter").exists()
    same = load_recipe(folder / "recipe.yaml", [f"method={METHODS[name]}", *SHORT])
    resume_run(tmp_path / "run", same, device="cpu", score=False)
    expected, found = weights_in(folder / name), weights_in(tmp_path / "run")
    assert found.keys() == expected.keys()
    for file, tensors in expected.items():
        assert found[file].keys() == tensors.keys()
        assert all(np.array_equal(found[file][key], array) for key, array in tensors.items())


@each_method
def test_the_plan_counts_what_trains_and_foretells_its_memory(planned, folder, name):
    found = planned[folder / name]
    run = json.loads((folder / name / "run.json").read_text())["finished"]
    assert found.trainable_parameters == run["trainable_parameters"]
    assert found.peak_memory_bytes == pytest.approx(run["peak_memory_bytes"], rel=0.2)


@each_method
def test_the_fused_folder_and_the_server_answer_as_base_and_adapter_do(folder, tmp_path, name):
    expected = logits(tuned(folder, name))
    fuse_run(folder / name, tmp_path / "fused", device="cpu")
    np.testing.assert_allclose(logits(open_model(tmp_path / "fused", CPU_FLOAT32).network), expected, rtol=0, atol=1e-4)
    served = open_served([folder / name], device="cpu")
    (adapter,) = {one.adapter for one in served.models.values()} - {"base"}
    for _ in range(2):
        served.bank.select(adapter)
        np.testing.assert_allclose(logits(served.network), expected, rtol=0, atol=1e-5)
        served.bank.select("base")
        base = logits(open_model(folder / "model", CPU_FLOAT32).network)
        assert np.array_equal(logits(served.network), base)
    assert np.abs(base - expected).max() > 0.01


@pytest.mark.parametrize("name", ["rslora", "ends", "dora", *FULL])
def test_the_adapter_opens_in_mlx_lm_with_the_same_answers(folder, name):
    network, _ = load_model(folder / "model")
    theirs = load_adapters(network, str(folder / name / "adapter"))
    theirs.eval()
    np.testing.assert_allclose(logits(theirs), logits(tuned(folder, name)), rtol=0, atol=1e-5)


@each_method
def test_training_goes_on_from_the_run_and_the_recipe_says_its_method(folder, tmp_path, name):
    result = train(folder, tmp_path / "next", f"model.adapter={folder / name}", "training.max_steps=1")
    before = json.loads((folder / name / "recipe.resolved.json").read_text())["method"]
    after = json.loads((tmp_path / "next" / "recipe.resolved.json").read_text())["method"]
    assert after["type"] == before["type"]
    assert after.get("rank") == before.get("rank")
    run = json.loads((folder / name / "run.json").read_text())["finished"]
    assert result.trainable_parameters == run["trainable_parameters"]
    again = load_recipe(tmp_path / "next" / "recipe.resolved.json")
    assert make_ready(open_recipe(again.recipe)).opened.recipe.method == again.recipe.method


@pytest.mark.parametrize("name", ["saved", "top"])
def test_base_and_tuned_are_scored_and_told_by_their_method(folder, name):
    scores = json.loads((folder / name / "scores.json").read_text())
    assert scores["tuned"]["loss"] != scores["base"]["loss"]
    words = {"saved": "LoRA rank 2, embed_tokens and norm in full", "top": "the top block in full"}[name]
    assert words in (folder / name / "README.md").read_text().splitlines()[0]
    assert words in (folder / name / "report.html").read_text()


def test_the_size_of_what_changed_is_told_of_whole_weights_too(folder):
    found = json.loads((folder / "top" / "run.json").read_text())["update"]
    assert found["layers"] == 9
    assert 0 < found["relative_norm"] < 1


def test_whole_weights_are_no_adapter_for_peft_and_llama_cpp(folder, tmp_path):
    with pytest.raises(AdapterError, match="all that PEFT's form holds") as caught:
        export_peft(folder / "top", tmp_path / "peft")
    assert "mlxtune fuse" in caught.value.remedy
    assert "mlxtune export hub --what fused" in caught.value.remedy
    with pytest.raises(MlxtuneError, match="own weights, trained in full"):
        export_lora(folder / "top", tmp_path / "lora.gguf", device="cpu")
    assert not list(tmp_path.iterdir())


def test_what_a_program_has_no_words_for_is_said(folder, tmp_path):
    report = export_peft(folder / "patterns", tmp_path / "peft")
    assert report.cannot_open == {"mlx-lm": "ranks differ by layer"}
    assert "lora_parameters" not in json.loads((tmp_path / "peft" / "adapter_config.json").read_text())


def test_a_quantized_base_is_refused_whether_or_not_the_device_dequantizes_it(folder, tmp_path):
    tiny_model_folder(tmp_path / "q4", quantized=True, hidden=32, heads=2, kv_heads=1)
    for overrides, way_out in (
        ([f"model.source={tmp_path / 'q4'}"], "mlxtune convert SOURCE OUT --dtype float16"),
        (["model.quantize={bits: 4, group_size: 32}"], "leave out model.quantize"),
    ):
        with pytest.raises(AdapterError, match=r"is quantized, and method\.type full changes float weights") as caught:
            train(folder, tmp_path / "run", "method={type: full}", *overrides)
        assert way_out in caught.value.remedy
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("start", "said", "told"),
    [
        ("top", "method={type: lora}", "method.type is lora, and the adapter in .* is of type full"),
        ("dora", "method={type: lora}", "method.type is lora, and the adapter in .* is of type dora"),
        ("rslora", "method={type: full}", "method.type is full, and the adapter in .* is of type lora"),
        ("top", "method={type: full, layers: all}", r"method.layers is all, and the weights in .* are of \{top: 1\}"),
        ("top", "method={type: full, train_embeddings: true}", "method.train_embeddings is true"),
        ("rslora", "method.use_rslora=false", "method.use_rslora is false, and that of the adapter in .* is true"),
        ("patterns", "method.rank_pattern={v_proj: 3}", "method's patterns give .* rank"),
        ("saved", "method.modules_to_save=[norm]", "method.modules_to_save mean 15 layers, .* is on 16"),
    ],
)
def test_a_method_that_contradicts_the_start_is_refused_with_both(folder, tmp_path, start, said, told):
    with pytest.raises(AdapterError, match=told) as caught:
        train(folder, tmp_path / "run", f"model.adapter={folder / start}", said)
    assert "leave" in caught.value.remedy
    assert not (tmp_path / "run").exists()


def test_a_run_of_one_method_is_not_resumed_as_another(folder):
    other = load_recipe(folder / "recipe.yaml", ["method={type: full, layers: {top: 1}}", *SHORT])
    with pytest.raises(RunError, match=r"method\.type was lora, is full"):
        resume_run(folder / "rslora", other, device="cpu")
