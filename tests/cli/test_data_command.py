"""`mlxtune data`: what it prints, and how it fails."""

import json

import pytest
from rich.console import Console
from tiny import tiny_model_folder

from mlxtune.cli.data import draw
from mlxtune.data.inspect import Inspection


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")
    tiny_model_folder(folder / "model")
    rows = [{"prompt": f"Say {word}", "completion": word} for word in ("one", "two")]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "recipe.yaml"
    path.write_text("name: tiny\nmodel: {source: ./model}\ndata: {train: rows.jsonl}\n")
    return path


def test_split_says_where_the_rows_went(run, tmp_path):
    path = tmp_path / "all.jsonl"
    path.write_text("".join(json.dumps({"text": f"row {n % 60}"}) + "\n" for n in range(61)))
    code, out, _ = run("data", "split", path, "--json")
    said = json.loads(out)
    assert code == 0
    assert said["folder"] == str(tmp_path / "all")
    assert sum(said["rows"].values()) == 61
    assert said["duplicates"] == 1
    code, out, err = run("data", "split", path)
    assert (code, out) == (2, "")
    assert "--force" in err
    code, out, _ = run("data", "split", path, "--force")
    assert code == 0
    assert f"{said['rows']['train']} train" in out
    assert "1 row repeats another" in out


def test_split_tells_which_lines_were_moved_to_fill_a_split(run, tmp_path):
    path = tmp_path / "all.jsonl"
    path.write_text("".join(json.dumps({"text": f"row {n}"}) + "\n" for n in range(3)))
    code, out, err = run("data", "split", path, "--out", tmp_path / "out")
    assert code == 0
    assert "1 train, 1 valid, 1 test" in out
    assert "moved so that no split is empty" in err


def test_inspect_shows_the_row_and_what_is_trained_on(run, recipe):
    code, out, _ = run("data", "inspect", recipe, "--row", "2")
    assert code == 0
    assert "train row 2 of 2" in out
    assert "<|im_start|>user\nSay two<|im_end|>\n<|im_start|>assistant\n«two<|im_end|>»\n" in out
    assert "4 of " in out


def test_inspect_gives_tokens_as_json(run, recipe):
    code, out, _ = run("data", "inspect", recipe, "--json")
    said = json.loads(out)
    assert code == 0
    learned = [piece for piece, is_target in zip(said["pieces"], said["is_target"], strict=True) if is_target]
    assert "".join(learned) == "one<|im_end|>"
    assert said["tokens"] == len(said["token_ids"]) == len(said["is_target"])
    assert said["target_tokens"] == 4
    assert said["where"].endswith("rows.jsonl:1")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--row", "3"], "--row goes from 1 to 2"), (["--split", "test"], "the recipe has no data.test")],
)
def test_inspect_refuses_what_the_recipe_does_not_have(run, recipe, arguments, said):
    code, out, err = run("data", "inspect", recipe, *arguments)
    assert (code, out) == (2, "")
    assert said in err


def test_what_is_trained_on_is_green_and_special_tokens_stand_out(capsys):
    inspection = Inspection("f:1", (1, 2, 3), ("<s>", "a", "</s>"), (False, True, True), (True, False, True), "")
    console = Console(force_terminal=True, width=80, color_system="standard", markup=False, highlight=False)
    with console.capture() as drawn:
        console.print(draw(inspection, "train row 1 of 1"))
    reset, dim, green, reverse = "\x1b[0m", "\x1b[2m", "\x1b[1;32m", "\x1b[1;7;32m"
    line = drawn.get().split("\n")[1]
    assert line.startswith(f"\x1b[2;7m<s>{reset}")
    assert f"{green}a{reset}{reverse}</s>{reset}" in line
    assert dim not in line
