"""`mlxtune evaluate`, from the command line."""

import io
import json
import sys

from click.testing import CliRunner, Result
from rich.console import Console
from tiny import tiny_model_folder

from mlxtune.cli import main
from mlxtune.cli.evaluate import table
from mlxtune.cli.lm_eval_view import view
from mlxtune.evaluation.cost import Cost


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


def test_other_models_are_set_beside_a_run_and_stay_in_its_table(own_run, tmp_path):
    tiny_model_folder(tmp_path / "large", seed=3, hidden=32, heads=2, kv_heads=1)
    result = run("evaluate", own_run, "--against", tmp_path / "large", "--shots", 0, "--shots", 1)
    assert result.exit_code == 0, result.output
    text = " ".join(run("evaluate", own_run).stdout.split())
    for words in ("before and after, on 6 test rows", "beside other models", "tuned is", "parameters on disk memory"):
        assert words in text
    assert text.count("large, 1-shot") == 3  # its task, its bits per byte, its cost
    told = json.loads(run("evaluate", own_run, "--json").stdout)
    assert [entry["label"] for entry in told["against"]] == ["base, 1-shot", "large", "large, 1-shot"]


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
    metrics = {"task.field:[bold]x\x1b[2J": interval}
    own = {"model": "models/mine", "rows": 8, "data": "rows.jsonl", "metrics": metrics, "tasks": []}
    scores = own | {"against": [], "cost": Cost().to_json()}
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
        ([tiny_run, "--against", "./nowhere"], 1, "there is no such file or folder"),
        ([tiny_run, "--against", "org/name"], 1, "is not on this machine"),
        ([tiny_run, "--against", tiny_run], 2, "mlxtune runs compare"),
        ([tiny_run, "--shots", "99"], 1, "ask for 12 or fewer (--shots)"),
    ):
        result = run("evaluate", *arguments)
        assert (result.exit_code, result.stdout) == (code, "")
        assert told in result.stderr
        assert "  hint: " in result.stderr
        assert "internal error" not in result.stderr


def test_options_of_the_harness_and_of_held_out_rows_do_not_mix(tiny_run):
    for arguments in (
        ["--lm-eval", "any", "--data", "rows.jsonl"],
        ["--lm-eval", "any", "--shots", "1", "--shots", "2"],
        ["--lm-eval-limit", "3"],
        ["--apply-chat-template"],
    ):
        result = run("evaluate", tiny_run, *arguments)
        assert result.exit_code == 2
        assert "--lm-eval" in result.stderr


def test_without_the_harness_its_extra_is_named(tiny_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)  # as if it were not installed
    result = run("evaluate", tiny_run.parent / "model", "--lm-eval", "any")
    assert result.exit_code == 1
    assert "pip install 'mlxtune[lm-eval]'" in result.stderr


def test_what_the_harness_says_is_shown_with_intervals_where_there_are_some():
    interval = {"mean": 0.5, "low": 0.4, "high": 0.6, "count": 8, "confidence": 0.95}
    accuracy = {"value": 0.5, "stderr": 0.1, "higher_is_better": True, "interval": interval}
    score = {"value": 12.0, "stderr": 0.5, "higher_is_better": True, "interval": None}
    task = {"version": "1.0", "shots": 2, "rows": 8, "metrics": {"acc": accuracy, "bleu": score}}
    found = {"limit": 8, "shots": 2, "chat_template": False, "confidence": 0.95, "versions": {"lm-eval": "0.4.13"}}
    verdicts = {"mine": {"acc": {"verdict": "not distinguishable"}}}
    for content in (
        {**found, "figures": {"mine": task}},
        {**found, "base": {"mine": task}, "tuned": {"mine": task}, "differences": verdicts},
    ):
        file = io.StringIO()
        Console(file=file, width=140).print(view(content, "a model"))
        told = " ".join(file.getvalue().split())
        assert "0.500 [0.400, 0.600]" in told
        assert "12.000 ± 0.500" in told
        assert ("not distinguishable" in told) == ("not compared" in told) == ("tuned" in content)
        assert "The first 8 rows of each task, 2 examples before each question, asked as plain text." in told
