"""``mlxtune recipes``."""

import json
from pathlib import Path

from click.testing import CliRunner, Result

from mlxtune.cli import main
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
