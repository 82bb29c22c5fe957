"""A run that starts from an adapter: what it trains, what its recipe says then, and what is refused."""

import json
import shutil
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny import tiny_recipe

from mlxtune.adapters.format import CONFIG_FILE
from mlxtune.adapters.lora import lora_layers
from mlxtune.errors import AdapterError, RecipeError, RunError
from mlxtune.iteration.opening import open_recipe
from mlxtune.iteration.ready import make_ready
from mlxtune.iteration.run import resume_run, run_recipe
from mlxtune.iteration.start import base_name
from mlxtune.iteration.watch import Watch
from mlxtune.recipe.load import load_recipe
from mlxtune.recipe.schema import Recipe


def train(recipe, run_dir, *overrides, **options):
    return run_recipe(recipe, overrides, device="cpu", run_dir=run_dir, **({"score": False} | options))


def ready_of(recipe, *overrides):
    return make_ready(open_recipe(load_recipe(recipe, overrides).recipe, device="cpu"))


def adapter_in(folder):
    return load_file(folder / "adapter" / "adapters.safetensors")


@pytest.fixture
def plain(tmp_path):
    """A recipe that says nothing of its method."""
    recipe = tiny_recipe(tmp_path)
    recipe.write_text(recipe.read_text().replace("method: {rank: 2, dropout: 0.1}\n", ""))
    return recipe


@pytest.fixture
def first(plain):
    """A run to start from: rank 3 on the queries of the top block."""
    train(plain, plain.parent / "first", *METHOD, "training.max_steps=2", "training.epochs=null")
    return plain.parent / "first"


METHOD = ("method.rank=3", "method.alpha=6.5", "method.target_modules=[q_proj]", "method.layers={top: 1}")
PATH = "model.layers.1.self_attn.q_proj"


@pytest.mark.parametrize("of", ["run", "folder"])
def test_training_starts_from_the_numbers_of_the_adapter(plain, first, of):
    place = first if of == "run" else first / "adapter"
    ready = ready_of(plain, f"model.adapter={place}", "seed=99")
    trained = dict(ready.state.network.named_modules())[PATH]
    before = adapter_in(first)
    assert np.abs(before[f"{PATH}.lora_b"]).max() > 0
    np.testing.assert_array_equal(np.array(trained.lora_a), before[f"{PATH}.lora_a"])
    np.testing.assert_array_equal(np.array(trained.lora_b), before[f"{PATH}.lora_b"])
    assert len(before) == 2
    assert ready.trainable_parameters == sum(array.size for array in before.values())


def test_what_the_recipe_leaves_out_is_the_adapter_s_and_the_resolved_recipe_says_it(plain, first):
    second = plain.parent / "second"
    train(plain, second, f"model.adapter={first}", "method.dropout=0.25")
    resolved = json.loads((second / "recipe.resolved.json").read_text())
    assert resolved["method"] == {
        "type": "lora",
        "rank": 3,
        "alpha": 6.5,
        "use_rslora": False,
        "dropout": 0.25,
        "target_modules": ["q_proj"],
        "layers": {"top": 1},
        "rank_pattern": {},
        "alpha_pattern": {},
        "modules_to_save": [],
    }
    assert resolved["model"]["adapter"] == str(first)
    config = json.loads((second / "adapter" / CONFIG_FILE).read_text())
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (3, 6.5, 0.25)
    assert not np.array_equal(adapter_in(second)[f"{PATH}.lora_b"], adapter_in(first)[f"{PATH}.lora_b"])
    again = plain.parent / "again"
    train(second / "recipe.resolved.json", again)
    np.testing.assert_array_equal(adapter_in(again)[f"{PATH}.lora_b"], adapter_in(second)[f"{PATH}.lora_b"])


def test_a_dropout_that_the_recipe_leaves_out_is_the_adapter_s(plain):
    start = peft_start(plain.parent / "theirs", lora_dropout=0.25)
    ready = ready_of(plain, f"model.adapter={start}")
    assert ready.opened.recipe.method.dropout == 0.25
    assert {layer.dropout for _, layer in lora_layers(ready.state.network)} == {0.25}


def test_an_adapter_that_is_gone_when_training_ends_has_said_its_base(plain):
    start = peft_start(plain.parent / "theirs", base_model_name_or_path="org/name")
    gone = Watch(measured=lambda _: shutil.rmtree(start, ignore_errors=True))
    train(plain, plain.parent / "run", f"model.adapter={start}", "training.max_steps=1", watch=gone)
    assert not start.exists()
    config = json.loads((plain.parent / "run" / "adapter" / CONFIG_FILE).read_text())
    assert config["base_model_name_or_path"] == "org/name"


def test_the_adapter_is_hashed_with_the_inputs_and_the_base_stays_the_base(plain, first):
    second = plain.parent / "second"
    scores = train(plain, second, f"model.adapter={first}", "training.max_steps=1", score=True).scores
    plain_scores = train(plain, plain.parent / "third", "training.max_steps=1", score=True).scores
    assert scores["base"] == plain_scores["base"]
    inputs = json.loads((second / "run.json").read_text())["inputs"]
    assert inputs["adapter"]["source"] == str(first)
    assert len(inputs["adapter"]["sha256"]) == 64
    assert "adapter" not in json.loads((plain.parent / "third" / "run.json").read_text())["inputs"]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("method.rank=4", "method.rank is 4, and that of the adapter in .* is 3"),
        ("method.alpha=8", r"method.alpha is 8.0, and that of the adapter in .* is 6.5"),
        ("method.layers=all", r"mean 2 layers, and the adapter in .* is on 1; .* model.layers.0.self_attn.q_proj"),
        ("method.target_modules=[q_proj, v_proj]", "mean 2 layers"),
        ("method.target_modules=all-linear", "mean 7 layers"),
    ],
)
def test_a_method_that_contradicts_the_adapter_is_refused_with_both_values(plain, first, said, told):
    with pytest.raises(AdapterError, match=told) as caught:
        train(plain, plain.parent / "second", f"model.adapter={first}", said)
    assert "leave" in caught.value.remedy
    assert not (plain.parent / "second").exists()


def test_a_method_that_says_what_the_adapter_is_is_accepted(plain, first):
    for said in (METHOD, (f"method.target_modules=[{PATH}]", "method.layers=all")):
        network = ready_of(plain, f"model.adapter={first}", *said).state.network
        assert [path for path, _ in lora_layers(network)] == [PATH]


def test_a_run_goes_on_after_a_stop_and_refuses_another_adapter(plain, first):
    overrides = (f"model.adapter={first}", "checkpoint.every_steps=1", "training.epochs=1")
    steps = []
    stop = Watch(measured=steps.append, should_stop=lambda: any(line["step"] == 2 for line in steps))
    train(plain, plain.parent / "whole", *overrides)
    train(plain, plain.parent / "stopped", *overrides, watch=stop)
    resume_run(plain.parent / "stopped", load_recipe(plain, overrides), device="cpu", score=False)
    whole, stopped = adapter_in(plain.parent / "whole"), adapter_in(plain.parent / "stopped")
    assert all(np.array_equal(whole[name], stopped[name]) for name in whole)

    steps.clear()
    train(plain, plain.parent / "other", *overrides, watch=stop)
    file = first / "adapter" / "adapters.safetensors"
    save_file({name: array + 1 for name, array in load_file(file).items()}, file)
    with pytest.raises(RunError, match=r"adapter\.sha256 was sha256 \w+, is sha256"):
        resume_run(plain.parent / "other", device="cpu", score=False)


def peft_start(folder, **settings):
    """An adapter as PEFT writes it, on the queries of the tiny recipe's model (hidden 32)."""
    folder.mkdir()
    tensors = {}
    for i in range(2):
        name = f"base_model.model.model.layers.{i}.self_attn.q_proj"
        tensors[f"{name}.lora_A.weight"] = np.full((2, 32), 0.1, np.float32)
        tensors[f"{name}.lora_B.weight"] = np.full((32, 2), 0.1, np.float32)
        if settings.get("use_dora"):
            tensors[f"{name}.lora_magnitude_vector"] = np.ones(32, np.float32)
        if i == 1 and "rank_pattern" in settings:
            tensors[f"{name}.lora_A.weight"] = np.full((3, 32), 0.1, np.float32)
            tensors[f"{name}.lora_B.weight"] = np.full((32, 3), 0.1, np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    (folder / CONFIG_FILE).write_text(json.dumps(config | settings))
    return folder


def test_peft_s_adapters_are_gone_on_with_and_keep_their_base_s_name(plain):
    start = peft_start(plain.parent / "theirs", base_model_name_or_path="org/name", use_rslora=True)
    train(plain, plain.parent / "run", f"model.adapter={start}", "training.max_steps=1")
    config = json.loads((plain.parent / "run" / "adapter" / CONFIG_FILE).read_text())
    assert config["base_model_name_or_path"] == "org/name"
    assert (config["use_rslora"], config["lora_alpha"], config["r"]) == (True, 4, 2)


@pytest.mark.parametrize(
    ("settings", "method"),
    [
        ({"use_dora": True}, {"type": "dora"}),
        (
            {"rank_pattern": {"layers.1.self_attn.q_proj": 3}},
            {"rank_pattern": {r"model\.layers\.1\.self_attn\.q_proj": 3}},
        ),
        (
            {"alpha_pattern": {"layers.1.self_attn.q_proj": 3}},
            {"alpha_pattern": {r"model\.layers\.1\.self_attn\.q_proj": 3.0}},
        ),
    ],
)
def test_what_peft_s_adapter_says_of_its_method_is_what_the_recipe_says_then(plain, settings, method):
    start = peft_start(plain.parent / "theirs", **settings)
    train(plain, plain.parent / "run", f"model.adapter={start}", "training.max_steps=1")
    resolved = json.loads((plain.parent / "run" / "recipe.resolved.json").read_text())["method"]
    assert {key: resolved[key] for key in method} == method
    assert (resolved["rank"], resolved["alpha"]) == (2, 4.0)


def test_an_adapter_that_a_recipe_cannot_say_is_refused(plain):
    """Whole modules and no update beside them, which is what method.type full would be."""
    start = plain.parent / "theirs"
    start.mkdir()
    save_file({"base_model.model.model.norm.weight": np.ones(32, np.float32)}, start / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": [], "modules_to_save": ["norm"]}
    (start / CONFIG_FILE).write_text(json.dumps(config))
    with pytest.raises(AdapterError, match="the adapter has whole modules alone; training cannot go on") as caught:
        train(plain, plain.parent / "run", f"model.adapter={start}")
    assert caught.value.where == str(start)


def test_an_adapter_of_another_base_is_refused(plain, first):
    config = plain.parent / "model" / "config.json"
    config.write_text(config.read_text().replace("10000.0", "20000.0"))
    with pytest.raises(AdapterError, match="trained on another base"):
        train(plain, plain.parent / "second", f"model.adapter={first}")


def test_a_place_without_an_adapter_is_refused(plain):
    with pytest.raises(RecipeError, match=r"model\.adapter is not there"):
        train(plain, plain.parent / "run", "model.adapter=absent")
    with pytest.raises(RecipeError, match=r"model\.adapter is a file"):
        train(plain, plain.parent / "run", f"model.adapter={plain}")
    with pytest.raises(AdapterError, match=r"no adapter_config\.json") as caught:
        train(plain, plain.parent / "run", f"model.adapter={plain.parent / 'model'}")
    assert caught.value.where == str(plain.parent / "model")


def test_a_relative_path_starts_at_the_recipe_s_folder(plain, first, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path.parent)
    plain.write_text(plain.read_text().replace("source: ./model", "source: ./model, adapter: first"))
    assert load_recipe(plain).recipe.model.adapter == first


def test_the_base_s_name_is_one_that_peft_can_load_where_there_is_one(plain):
    opened = open_recipe(load_recipe(plain).recipe, device="cpu")
    assert base_name(opened) == str(plain.parent / "model")

    def named(source):
        model = opened.recipe.model.model_copy(update={"source": source})
        recipe = opened.recipe.model_copy(update={"model": model})
        return base_name(replace(opened, recipe=recipe))

    assert named("smollm2-135m-instruct") == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert named("org/name@v1") == "org/name"


def test_the_optimizer_starts_anew(plain, first):
    state = ready_of(plain, f"model.adapter={first}").state
    assert state.step == 0
    assert all(
        not mx.any(array)
        for array in state.optimizer.state["model"]["layers"][1]["self_attn"]["q_proj"]["lora_a"].values()
    )


def test_what_another_rank_is_told_leaves_out_what_the_recipe_leaves_out(plain, first):
    recipe = load_recipe(plain, [f"model.adapter={first}"]).recipe
    told = Recipe.model_validate(json.loads(json.dumps(recipe.model_dump(mode="json", exclude_unset=True))))
    assert told == recipe
    opened = open_recipe(told, device="cpu")
    assert make_ready(opened).opened.recipe.method.rank == 3
