"""Every packaged recipe trains: copied, as its README says, and run for two steps on a tiny model."""

import math
from pathlib import Path

import pytest
from families import family_folder
from tiny import tiny_model_folder

from mlxtune.device.memory import MemoryLimit
from mlxtune.errors import RecipeError
from mlxtune.iteration.forecast import forecast
from mlxtune.iteration.opening import open_recipe
from mlxtune.iteration.ready import make_ready
from mlxtune.iteration.run import run_recipe
from mlxtune.recipe.catalogue import copy_recipe, packaged_recipes
from mlxtune.recipe.load import load_recipe
from mlxtune.recipe.method import TopLayers
from mlxtune.runs.metrics import read_metrics

FILES = [(recipe.name, path.name) for recipe in packaged_recipes() for path in recipe.paths]
FAMILIES = {"mistral-7b-lora": "mistral", "qwen3-4b-lora": "qwen3"}
PLENTY = MemoryLimit(1 << 40, "plenty")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    tiny = tiny_model_folder(folder / "tiny", layers=2, hidden=32, heads=2, kv_heads=1)
    return {"llama": tiny, **{name: family_folder(folder / name, name) for name in FAMILIES.values()}}


def shortened(path: Path, model: Path) -> list[str]:
    """What makes the recipe fit a tiny model whose tokens are bytes: about eight rows of each file, and longer ones."""
    recipe = load_recipe(path).recipe
    places = []
    splits = ("train", "valid", "test") if recipe.objective.type == "sft" else ()  # pairs have no weights, and are few
    for split in splits:
        file = Path(getattr(recipe.data, split)[0].path)
        share = min(1.0, 8 / len(file.read_bytes().splitlines()))
        places.append(f"data.{split}=[{{path: {file}, weight: {share}}}]")
    layers = [] if recipe.model.adapter else ["method.layers={top: 1}"]
    sizes = ["data.max_seq_length=4096", "training.batch_size=1", "training.max_steps=2"]
    sizes.append("training.gradient_accumulation_steps=1")
    return [*places, *layers, *sizes, f"model.source={model}"]


@pytest.fixture
def copied(tmp_path: Path, request: pytest.FixtureRequest, models: dict[str, Path]):
    """The copy of a recipe's file, after the stage that it goes on from, and the tiny model's overrides."""
    name, file = request.param
    copy_recipe(name, tmp_path / "mine")
    model = models[FAMILIES.get(name, "llama")]
    path = tmp_path / "mine" / file
    if (adapter := load_recipe(path).recipe.model.adapter) is not None:
        first = tmp_path / "mine/recipe.yaml"
        run_recipe(first, shortened(first, model), device="cpu", run_dir=Path(adapter), score=False)
    return path, shortened(path, model)


@pytest.mark.parametrize("copied", FILES, indirect=True, ids="/".join)
def test_a_copy_trains_for_two_steps(copied, tmp_path: Path):
    path, overrides = copied
    result = run_recipe(path, overrides, device="cpu", run_dir=tmp_path / "run", score=False)
    losses = [line["loss"] for line in read_metrics(result.run_dir / "metrics.jsonl") if "loss" in line]
    assert len(losses) == 2
    assert all(math.isfinite(loss) for loss in losses)


@pytest.mark.parametrize("copied", [file for file in FILES if file[0] in FAMILIES], indirect=True, ids="/".join)
def test_a_recipe_for_a_large_model_is_planned_on_a_tiny_one_of_its_family(copied):
    path, overrides = copied
    found = forecast(make_ready(open_recipe(load_recipe(path, overrides).recipe, device="cpu")), PLENTY)
    assert found.targets_alone
    assert found.steps == 2
    assert found.fits


@pytest.mark.parametrize(("name", "file"), FILES)
def test_a_file_of_a_recipe_reads_nothing_that_is_not_in_its_copy(name: str, file: str, tmp_path: Path):
    copy_recipe(name, tmp_path / "mine")
    loaded = load_recipe(tmp_path / "mine" / file)
    for split in ("train", "valid", "test"):
        for place in getattr(loaded.recipe.data, split):
            assert Path(place.path).is_relative_to(tmp_path / "mine")
            assert Path(place.path).is_file()
    assert (tmp_path / "mine" / "README.md").is_file()
    assert loaded.text.startswith("# yaml-language-server: ")


@pytest.mark.parametrize(("name", "run"), [("writing-style", "runs/texts"), ("json-reward", "runs/form")])
def test_a_second_stage_before_the_first_names_the_run_that_is_missing(name: str, run: str, tmp_path: Path):
    copy_recipe(name, tmp_path / "mine")
    with pytest.raises(RecipeError, match=rf"model\.adapter is not there: .*{run}"):
        load_recipe(tmp_path / "mine/recipe-2.yaml").check_files()


def test_the_recipes_for_16_gb_train_the_upper_blocks_only():
    for recipe in packaged_recipes():
        if recipe.name in FAMILIES:
            assert isinstance(load_recipe(recipe.path).recipe.method.layers, TopLayers)


@pytest.mark.parametrize("recipe", packaged_recipes(), ids=lambda recipe: recipe.name)
def test_what_a_recipe_needs_is_told_of_each_of_its_files(recipe):
    needs = recipe.needs()
    assert needs.keys() == {path.name for path in recipe.paths}
    assert all(1e8 < count < 64e9 for count in needs.values())
