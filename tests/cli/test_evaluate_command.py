"""`mlxtune evaluate`, from the command line."""

import io
import json

from click.testing import CliRunner, Result
from rich.console import Console

from mlxtune.cli import main
from mlxtune.cli.evaluate import table


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments), "--device", "cpu"])


def test_a_run_is_shown_beside_its_base_from_its_current_scores(tiny_run):
    result = run("evaluate", tiny_run, "--json", "--quiet")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.count("\n") == 1
    assert json.loads(result.stdout) == json.loads((tiny_run / "scores.json").read_text())
    table = run("evaluate", tiny_run).stdout
    assert "before and after, on 6 test rows" in table
    assert "order.field:said" in table


def test_force_scores_again(own_run):
    run("evaluate", own_run)
    before = (own_run / "scores.json").stat().st_ino
    run("evaluate", own_run)
    assert (own_run / "scores.json").stat().st_ino == before
    assert run("evaluate", own_run, "--force").exit_code == 0
    assert (own_run / "scores.json").stat().st_ino != before


def test_a_model_is_scored_on_a_recipes_rows_or_a_files(tiny_run):
    folder = tiny_run.parent
    by_recipe = json.loads(run("evaluate", folder / "model", "--recipe", folder / "recipe.yaml", "--json").stdout)
    assert by_recipe["metrics"] == json.loads((tiny_run / "scores.json").read_text())["base"]
    by_file = run("evaluate", folder / "model", "--data", folder / "valid.jsonl")
    assert "model, on 4 rows of valid.jsonl" in by_file.stdout
    assert "bits_per_byte" in by_file.stdout


def test_the_names_of_a_users_fields_are_shown_as_they_are_and_do_nothing_to_the_terminal():
    interval = {"mean": 0.5, "low": 0.4, "high": 0.6, "count": 8, "confidence": 0.95}
    scores = {"rows": 8, "data": "rows.jsonl", "metrics": {"task.field:[bold]x\x1b[2J": interval}}
    file = io.StringIO()
    Console(file=file, width=100).print(table(scores, "models/mine"))
    assert "task.field:[bold]x\\x1b[2J" in file.getvalue()
    assert "50.0 % [40.0, 60.0]" in file.getvalue()
    assert "95 % bootstrap interval" in " ".join(file.getvalue().split())


def test_what_is_wrong_is_told_with_its_place_and_the_way_out(tiny_run, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "a"}\n{"text": ""}\n')
    for arguments, code, told in (
        ([tiny_run.parent / "model"], 2, "give --recipe RECIPE or --data FILE"),
        ([tiny_run, "--data", bad], 2, "leave out --recipe and --data"),
        ([tiny_run.parent / "model", "--data", bad], 1, f"{bad}:2"),
        ([tiny_run.parent / "model", "--data", tmp_path / "absent.jsonl"], 1, "name rows that are there"),
        ([tiny_run.parent / "model", "--recipe", "no-such-recipe"], 2, "no such recipe"),
        (["org/name", "--data", tiny_run.parent / "test.jsonl"], 1, "is not on this machine"),
    ):
        result = run("evaluate", *arguments)
        assert (result.exit_code, result.stdout) == (code, "")
        assert told in result.stderr
        assert "  hint: " in result.stderr
        assert "internal error" not in result.stderr
