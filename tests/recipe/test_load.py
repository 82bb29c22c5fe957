"""A file and overrides into a recipe; what is wrong is told with its key, its place and the nearest right one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlxtune.errors import RecipeError
from mlxtune.recipe.catalogue import packaged_recipes
from mlxtune.recipe.load import load_recipe

LEAST = "name: a\nmodel: {source: x}\ndata: {train: t.jsonl}\n"


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str, name: str = "recipe.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def failure(path: Path | str, *overrides: str) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    return caught.value


def paths(files) -> list[str]:
    return [file.path for file in files]


# --- the way from text to recipe


def test_a_recipe_keeps_its_file_and_its_text(write):
    path = write(LEAST)
    loaded = load_recipe(path, ["seed=3"])
    assert (loaded.path, loaded.text, loaded.recipe.seed) == (path, LEAST, 3)


def test_relative_paths_start_at_the_recipes_folder(write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "deep").mkdir()
    path = write(LEAST.replace("t.jsonl", "../rows/t.jsonl, test: /data/test.jsonl"), "deep/recipe.yaml")
    monkeypatch.chdir("/")
    data = load_recipe(path).recipe.data
    assert (paths(data.train), paths(data.test)) == ([f"{tmp_path}/rows/t.jsonl"], ["/data/test.jsonl"])


def test_relative_paths_of_overrides_start_at_the_current_folder(
    write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "here").mkdir()
    path = write(LEAST)
    monkeypatch.chdir(tmp_path / "here")
    data = load_recipe(path, ["data.valid=v.jsonl", "model.source=./net"]).recipe
    assert paths(data.data.valid) == [f"{tmp_path}/here/v.jsonl"]
    assert paths(data.data.train) == [f"{tmp_path}/t.jsonl"]
    assert data.model.source == str(tmp_path / "here" / "net")


@pytest.mark.parametrize("source", ["smollm2-135m-instruct", "org/name", "org/name@main"])
def test_a_source_that_is_a_name_stays_a_name(write, tmp_path: Path, source: str):
    (tmp_path / "smollm2-135m-instruct").mkdir()  # of that name, but no model
    assert load_recipe(write(LEAST.replace("source: x", f"source: {source}"))).recipe.model.source == source


@pytest.mark.parametrize("source", ["./net", "../net", "net.GGUF", "nets/one", "bare"])
def test_a_source_that_is_a_path_becomes_absolute(write, tmp_path: Path, source: str):
    (tmp_path / "nets" / "one").mkdir(parents=True)
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text("{}")
    found = load_recipe(write(LEAST.replace("source: x", f"source: {source}"))).recipe.model.source
    assert found == str((tmp_path / source).resolve())


def test_every_packaged_recipe_loads_and_its_files_are_there():
    recipes = packaged_recipes()
    assert "support-triage" in [recipe.name for recipe in recipes]
    for recipe in recipes:
        loaded = load_recipe(recipe.name)
        loaded.check_files()
        assert loaded.recipe.name == recipe.name
        assert recipe.description


def test_a_file_goes_before_a_packaged_recipe_of_its_name(write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(LEAST, "support-triage")
    monkeypatch.chdir(tmp_path)
    assert load_recipe("support-triage").recipe.name == "a"


# --- overrides


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("training.epochs=1", "training.epochs", 1),
        ("training.learning_rate=1e-3", "training.learning_rate", 0.001),
        ("training.max_grad_norm=null", "training.max_grad_norm", None),
        ("model.quantize.bits=8", "model.quantize", {"bits": 8, "group_size": 32}),
        ("model.quantize={bits: 4, group_size: 64}", "model.quantize", {"bits": 4, "group_size": 64}),
        ("method.target_modules=[q_proj, v_proj]", "method.target_modules", ["q_proj", "v_proj"]),
        ("method.layers.top=3", "method.layers", {"top": 3}),
        ("evaluation.tasks.0.max_tokens=9", "evaluation.tasks.0.max_tokens", 9),
        ("name=b=c", None, None),
    ],
)
def test_an_override_sets_its_key(write, override: str, key: str | None, value):
    path = write(LEAST + "method: {layers: all}\nevaluation: {tasks: [{name: t, scorer: exact_match}]}\n")
    if key is None:
        assert failure(path, override).where == f"override {override}"
        return
    found = load_recipe(path, [override]).recipe.model_dump(mode="json")
    for part in key.split("."):
        found = found[int(part)] if part.isdigit() else found[part]
    assert found == value


def test_the_last_override_of_a_key_wins(write):
    assert load_recipe(write(LEAST), ["training={epochs: 9}", "training.epochs=1"]).recipe.training.epochs == 1


@pytest.mark.parametrize(
    ("override", "said", "remedy"),
    [
        ("training.epoch=1", "training.epoch is not a key", "did you mean training.epochs?"),
        ("epochs=1", "epochs is not a key", "did you mean training.epochs?"),
        ("training.epochs=many", "training.epochs must be a whole number, not many", None),
        ("training.epochs", "KEY=VALUE", "as in training.epochs=1"),
        ("=1", "KEY=VALUE", None),
        ("training..epochs=1", "KEY=VALUE", None),
        ("name.first=1", "name has no keys of its own", None),
        ("evaluation.tasks.1.name=b", "is a list of 1", None),
        ("evaluation.tasks.first.name=b", "is a list of 1", None),
        ("name=3", "name must be text, not 3", 'put it in quotes: "3"'),
    ],
)
def test_a_wrong_override_is_told_as_the_place(write, override: str, said: str, remedy: str | None):
    path = write(LEAST + "evaluation: {tasks: [{name: t, scorer: exact_match}]}\n")
    error = failure(path, override)
    assert error.where == f"override {override}"
    assert said in error.message
    assert remedy is None or error.remedy == remedy


# --- mistakes


@pytest.mark.parametrize(
    ("line", "where", "said", "remedy"),
    [
        ("sead: 3", "4:1", "sead is not a key of a recipe", "did you mean seed?"),
        ("learning_rate: 1.0", "4:1", "not a key", "did you mean training.learning_rate?"),
        ("training: {epochs: 1, batchsize: 4}", "4:23", "training.batchsize is not a key", "training.batch_size?"),
        ("checkpoint: {zzz: 1}", "4:14", "checkpoint.zzz is not a key", "keys: every_steps, keep"),
        ("seed: no", "4:1", "seed must be a whole number, not no", None),
        ("checkpoint:", "4:1", "must be a mapping of keys to values, not null", "leave it out"),
        ("training: {lr_schedule: cosin}", "4:12", "one of cosine, linear, constant, not cosin", "mean cosine?"),
        (
            "method: {type: prefix, rank: 1}",
            "4:10",
            "method.type must be one of lora, dora, full, not prefix",
            None,
        ),
        ("method: {type: full, rank: 8}", "4:22", "method.rank is not a key of full", "leave it out"),
        ("method: {train_embeddings: true}", "4:10", "method.train_embeddings is not a key of lora", "leave it out"),
        ("report_to: [wandbb]", "4:13", "report_to.0 must be one of tensorboard, wandb, not wandbb", "mean wandb?"),
        ("report_to: [wandb, wandb]", "4:1", "a tracker is named twice", None),
        ("training: {max_steps: many}", "4:12", "training.max_steps must be a whole number, not many", None),
        ("method: {layers: top}", "4:10", "method.layers must be all, or {top: N}", None),
        ("method: {type: Dora}", "4:10", "method.type must be one of lora, dora, full, not Dora", "mean dora?"),
        ("method: {type: null}", "4:10", "method.type must be one of lora, dora, full, not null", None),
        ("method: dora", "4:1", "method must be a mapping of keys to values, not dora", "method: {type: dora}"),
        ("method:", "4:1", "method must be a mapping of keys to values, not null", "leave it out"),
        ("objective: dpo", "4:1", "objective must be a mapping of keys to values, not dpo", "objective: {type: dpo}"),
        ("objective: {type: null}", "4:13", "objective.type must be one of sft, dpo, orpo, kto", None),
        ("method: {rank_pattern: [v_proj]}", "4:10", "rank_pattern must be a mapping of names to values", None),
        ("method: {rank_pattern: {'': 2}}", "4:10", "method.rank_pattern: a name in it must not be empty", None),
        ("method: {alpha_pattern: {'(': 2}}", "4:10", "a name in it must be a regular expression (missing )", None),
        ("training: {epochs: null}", "4:12", "nothing says when to end", None),
        ("evaluation: {early_stopping_patience: 2}", "4:14", "data.valid, and there is none", None),
        ("evaluation: {tasks: [{name: t}]}", "4:22", "evaluation.tasks.0.scorer is missing", None),
        ("evaluation: {tasks: [{scorer: exact_match}]}", "4:22", "evaluation.tasks.0.name is missing", None),
        (
            "evaluation: {tasks: [{name: t, scorer: exact}]}",
            "4:32",
            "one of bleu, choice, chrf, contains, exact_match, json_fields",
            "mean exact_match?",
        ),
        (
            "evaluation: {tasks: [{name: t, scorer: exact_match, fields: [a]}]}",
            "4:53",
            "not a key of exact_match",
            None,
        ),
        ("evaluation: {tasks: [{name: t, scorer: json_fields, fields: []}]}", "4:53", "must not be empty", None),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_is_near(write, line: str, where: str, said: str, remedy: str | None):
    path = write(LEAST + line + "\n")
    error = failure(path)
    assert error.where == f"{path}:{where}"
    assert said in error.message
    assert remedy is None or remedy in (error.remedy or "")


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(write):
    path = write("nam: a\nmodel: {source: 3}\ndata:\n  overflow: shorten\nseed: -1\n")
    lines = failure(path).message.splitlines()
    assert lines[0] == "6 mistakes in the recipe:"
    places = [f"{path}:", f"{path}:1:1:", f"{path}:2:9:", f"{path}:3:1:", f"{path}:4:3:", f"{path}:5:1:"]
    assert [line.split()[0] for line in lines[1:]] == places
    assert [line.split()[1] for line in lines[1:]] == [
        "name", "nam", "model.source", "data.train", "data.overflow", "seed",
    ]  # fmt: skip


def test_a_recipe_that_is_not_there_is_told_with_the_nearest_name():
    error = failure("suport-triage")
    assert (error.where, error.remedy) == ("suport-triage", "did you mean support-triage?")


def test_a_folder_is_no_recipe_and_the_file_in_it_is_named(write, tmp_path: Path):
    write(LEAST)
    assert str(tmp_path / "recipe.yaml") in (failure(tmp_path).remedy or "")


def test_data_files_that_are_not_there_are_told_all_at_once(write, tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    loaded = load_recipe(write(LEAST.replace("t.jsonl}", "t.jsonl, valid: pipe, test: [., hf://datasets/a/b, gone]}")))
    with pytest.raises(RecipeError) as caught:
        loaded.check_files()
    assert f"recipe.yaml:3:8: data.train is not there: {tmp_path / 't.jsonl'}" in caught.value.message
    assert f"recipe.yaml:3:24: data.valid is neither a file nor a folder: {tmp_path}/pipe" in caught.value.message
    assert f"data.test.2 is not there: {tmp_path}/gone" in caught.value.message
    assert "3 mistakes" in caught.value.message


# --- the places of a split


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("a.jsonl", [("a.jsonl", 1.0)]),
        ("[a.jsonl, b.csv]", [("a.jsonl", 1.0), ("b.csv", 1.0)]),
        ("[a.jsonl, {path: b.csv, weight: 0.5}]", [("a.jsonl", 1.0), ("b.csv", 0.5)]),
        ("{path: a.jsonl, weight: 2}", [("a.jsonl", 2.0)]),
    ],
)
def test_a_split_is_one_place_or_several_with_weights(write, tmp_path: Path, written: str, read: list):
    files = load_recipe(write(LEAST.replace("t.jsonl", written))).recipe.data.train
    assert [(file.path, file.weight) for file in files] == [(f"{tmp_path}/{name}", weight) for name, weight in read]


def test_a_place_on_the_hub_stays_as_it_is(write):
    place = "hf://datasets/org/name@v1.0/data"
    recipe = load_recipe(write(LEAST.replace("t.jsonl", f"[{place}]")), [f"data.valid={place}"]).recipe
    assert paths(recipe.data.train) == paths(recipe.data.valid) == [place]


def test_a_place_of_several_can_be_overridden_alone(write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(LEAST.replace("t.jsonl", "[a.jsonl, {path: b.jsonl, weight: 2}]"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    data = load_recipe(path, ["data.train.1.path=c.jsonl", "data.train.1.weight=3"]).recipe.data
    assert paths(data.train) == [f"{tmp_path}/a.jsonl", f"{tmp_path}/here/c.jsonl"]
    assert data.train[1].weight == 3


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("3", "data.train must be a file, a folder or hf://datasets/org/name"),
        ("[a.jsonl, 3]", "data.train must be a file, a folder or hf://datasets/org/name"),
        ("[]", "data.train must not be empty"),
        ("null", "data.train must be a file"),
        ("[{path: a.jsonl, weight: 0}]", "data.train.0.weight must be greater than 0"),
        ("[{path: a.jsonl, weigth: 2}]", "data.train.0.weigth is not a key of a recipe"),
        ("[{weight: 2}]", "data.train.0.path is missing"),
    ],
)
def test_a_place_that_is_none_is_refused(write, written: str, said: str):
    assert said in failure(write(LEAST.replace("t.jsonl", written))).message


def test_a_resolved_recipe_names_its_places_as_they_were_written(write, tmp_path: Path):
    text = LEAST.replace("t.jsonl", "t.jsonl, valid: [v.jsonl, {path: w.jsonl, weight: 2}]")
    data = load_recipe(write(text)).recipe.model_dump(mode="json")["data"]
    several = [f"{tmp_path}/v.jsonl", {"path": f"{tmp_path}/w.jsonl", "weight": 2.0}]
    assert (data["train"], data["valid"], data["test"]) == (f"{tmp_path}/t.jsonl", several, None)


# --- properties


TEXT = st.text(min_size=1, max_size=12)
NAME = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,9}", fullmatch=True)
COUNT = st.integers(1, 10**6)
POSITIVE = st.floats(min_value=1e-9, max_value=1e9)


def mapping(required: dict | None = None, **optional) -> st.SearchStrategy:
    return st.fixed_dictionaries(required or {}, optional=optional)


TASKS = st.lists(
    mapping({"name": TEXT, "scorer": st.just("exact_match")}, max_tokens=COUNT, answer_after=TEXT | st.none())
    | mapping(
        {"name": TEXT, "scorer": st.just("json_fields")}, fields=st.none() | st.lists(TEXT, min_size=1, max_size=3)
    ),
    max_size=3,
    unique_by=lambda task: task["name"],
)
RECIPES = mapping(
    {
        "name": NAME,
        "model": mapping({"source": TEXT}, quantize=mapping(bits=st.sampled_from([2, 4, 8])) | st.none()),
        "data": mapping(
            {"train": TEXT, "valid": TEXT},
            test=TEXT | st.none(),
            format=st.sampled_from(["auto", "text"]),
            overflow=st.sampled_from(["error", "drop", "truncate_left"]),
        ),
    },
    seed=st.integers(0, 2**32 - 1),
    method=mapping(
        rank=COUNT,
        alpha=POSITIVE | COUNT,
        dropout=st.floats(0, 1, exclude_max=True),
        layers=st.just("all") | mapping({"top": COUNT}),
        target_modules=st.just("all-linear") | st.lists(TEXT, min_size=1, max_size=3),
    ),
    training=mapping(
        epochs=COUNT,
        max_steps=COUNT | st.none(),
        learning_rate=POSITIVE,
        grad_checkpoint=st.just("off") | st.just({"every": 2}),
    ),
    evaluation=mapping(tasks=TASKS, early_stopping_patience=COUNT | st.none()),
)


@given(values=RECIPES)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_resolved_recipe_loads_again_as_it_was(values: dict, write):
    first = load_recipe(write(json.dumps(values), "first.json")).recipe
    resolved = json.dumps(first.model_dump(mode="json"), indent=2, ensure_ascii=False)
    assert load_recipe(write(resolved, "recipe.resolved.json")).recipe == first


# --- the floor


def test_reading_a_recipe_loads_no_mlx():
    code = (
        "import sys, mlxtune\n"
        "from mlxtune.recipe.load import load_recipe\n"
        "from mlxtune.recipe.schema import json_schema\n"
        "load_recipe('support-triage', ['seed=1']); json_schema()\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'mlx', 'mlx_lm', 'transformers', 'numpy'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
