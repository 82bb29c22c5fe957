"""``mlxtune recipes``."""

import json
from pathlib import Path

from click.testing import CliRunner, Result

from mlxtune.cli import main
from mlxtune.device.memory import MemoryLimit
from mlxtune.recipe.catalogue import packaged_recipes
from mlxtune.recipe.load import load_recipe
from mlxtune.recipe.schema import json_schema


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["recipes", *map(str, arguments)])


def test_list_names_the_packaged_recipes():
    assert "support-triage" in run("list").stdout
    (recipe,) = [one for one in json.loads(run("list", "--json").stdout)["recipes"] if one["name"] == "support-triage"]
    assert Path(recipe["path"]).is_file()
    assert "JSON" in recipe["description"]


def test_show_prints_the_recipe_as_written_and_in_json_as_resolved():
    loaded = load_recipe("support-triage")
    assert run("show", "support-triage").stdout == loaded.text
    assert json.loads(run("show", "support-triage", "--json").stdout) == loaded.recipe.model_dump(mode="json")


def test_a_copy_is_a_recipe_of_ones_own_with_the_schema_for_the_editor(tmp_path: Path):
    copy = tmp_path / "mine"
    result = run("copy", "support-triage", copy)
    assert result.exit_code == 0
    assert str(copy) in result.stdout
    first_line, rest = (copy / "recipe.yaml").read_text().split("\n", 1)
    assert first_line == "# yaml-language-server: $schema=./recipe.schema.json"
    assert rest == load_recipe("support-triage").text
    assert json.loads((copy / "recipe.schema.json").read_text()) == json_schema()
    assert run("validate", copy / "recipe.yaml").exit_code == 0
    (train,) = load_recipe(copy / "recipe.yaml").recipe.data.train
    assert train.path == str(copy / "data" / "train.jsonl")


def test_a_copy_replaces_nothing_without_force(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    refused = run("copy", "support-triage", tmp_path)
    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]
    assert run("copy", "support-triage", tmp_path, "--force").exit_code == 0


def test_copying_what_is_not_there_names_the_nearest(tmp_path: Path):
    result = run("copy", "support-triag", tmp_path / "x")
    assert result.exit_code == 2
    assert "did you mean support-triage?" in result.stderr
    assert not (tmp_path / "x").exists()


def test_validate_takes_overrides_and_tells_what_is_wrong():
    assert json.loads(run("validate", "support-triage", "training.epochs=1", "--json").stdout)["valid"] is True
    wrong = run("validate", "support-triage", "training.epoch=1")
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert wrong.stderr == (
        "error: training.epoch is not a key of a recipe\n"
        "  at: override training.epoch=1\n"
        "  hint: did you mean training.epochs?\n"
    )


def test_validate_misses_data_files_that_are_not_there(tmp_path: Path):
    result = run("validate", "support-triage", f"data.test={tmp_path}/gone.jsonl")
    assert result.exit_code == 2
    assert f"data.test is not there: {tmp_path}/gone.jsonl" in result.stderr


def test_schema_prints_the_json_schema():
    assert json.loads(run("schema").stdout) == json.loads(run("schema", "--json").stdout) == json_schema()


def test_list_tells_what_each_needs_and_with_fits_leaves_out_what_is_too_large(monkeypatch):
    listed = {one["name"]: one for one in json.loads(run("list", "--json").stdout)["recipes"]}
    needs = {one["file"]: one for one in listed["mistral-7b-lora"]["needs"]}
    assert {Path(file).name for file in needs} == {"recipe.yaml", "recipe-32gb.yaml"}
    assert all(one["fits"] is None for one in needs.values())
    small = max(one["peak_memory_bytes"] for one in listed["sentiment"]["needs"])
    monkeypatch.setattr("mlxtune.device.memory.memory_limit", lambda: MemoryLimit(small, "free now of this test"))
    fitting = run("list", "--fits", "--json")
    assert "free now of this test" in fitting.stderr
    found = {one["name"]: one for one in json.loads(fitting.stdout)["recipes"]}
    assert "sentiment" in found
    assert "mistral-7b-lora" not in found
    assert found["sentiment"]["needs"][0]["fits"] is True


def test_a_recipe_in_stages_takes_what_its_largest_stage_takes_and_one_for_machines_what_the_smallest_has():
    recipes = {recipe.name: recipe for recipe in packaged_recipes()}
    staged, machines = recipes["json-reward"], recipes["mistral-7b-lora"]
    assert staged.memory_bytes == staged.needs()["recipe-2.yaml"] > staged.needs()["recipe.yaml"]
    assert machines.memory_bytes == machines.needs()["recipe.yaml"] < machines.needs()["recipe-32gb.yaml"]


def test_on_a_cpu_no_recipe_fits_whose_needs_are_those_of_a_gpu(monkeypatch):
    monkeypatch.setattr("mlxtune.device.memory.memory_limit", lambda: MemoryLimit(1 << 40, "plenty"))
    fitting = json.loads(run("list", "--fits", "--device", "cpu", "--json").stdout)["recipes"]
    names = {one["name"] for one in fitting}
    assert "text-to-sql" in names
    assert not {"mistral-7b-lora", "qwen3-4b-lora"} & names


def test_a_copy_brings_all_files_of_a_recipe_and_the_data_of_another_that_it_reads(tmp_path: Path):
    assert run("copy", "mistral-7b-lora", tmp_path / "mine").exit_code == 0
    found = {str(file.relative_to(tmp_path / "mine")) for file in (tmp_path / "mine").rglob("*") if file.is_file()}
    data = {f"data/{split}.jsonl" for split in ("train", "valid", "test")}
    assert found == {"recipe.yaml", "recipe-32gb.yaml", "README.md", "needs.json", "recipe.schema.json", *data}
    assert "../" not in (tmp_path / "mine/recipe-32gb.yaml").read_text()
    assert run("validate", tmp_path / "mine/recipe-32gb.yaml").exit_code == 0


def test_import_writes_a_recipe_and_names_what_it_left_out(tmp_path: Path):
    (tmp_path / "lora.yaml").write_text("model: smollm2-135m-instruct\ndata: rows\nval_batches: 3\n")
    shown = run("import", tmp_path / "lora.yaml")
    assert shown.exit_code == 0
    assert shown.stdout.startswith("# From lora.yaml, a configuration of mlx_lm.lora.\nschema_version: 1\n")
    assert "val_batches: left out" in shown.stderr
    out = tmp_path / "recipe.yaml"
    assert run("import", tmp_path / "lora.yaml", "--out", out).exit_code == 0
    assert load_recipe(out).recipe.method.alpha == 160
    assert run("import", tmp_path / "lora.yaml", "--out", out).exit_code == 2
    assert run("import", tmp_path / "lora.yaml", "--out", out, "--force").exit_code == 0
    as_json = run("import", tmp_path / "lora.yaml", "--json")
    assert json.loads(as_json.stdout)["notes"]["val_batches"].startswith("left out")
