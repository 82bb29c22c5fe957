"""`mlxtune plan` and `train --auto`, from the command line."""

import json

import pytest
from click.testing import CliRunner, Result
from families import family_folder

from mlxtune.cli import main, plan
from mlxtune.device import memory
from mlxtune.device.memory import MemoryLimit


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments), "--device", "cpu"])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (200, "3 min 20 s"), (3600, "1 h 0 min"), (7500, "2 h 5 min")],
)
def test_seconds_are_written_for_people(seconds, text):
    assert plan.readable_seconds(seconds) == text


def test_it_tells_memory_time_and_counts_and_leaves_nothing(tiny_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = tiny_run.parent / "recipe.yaml"
    result = run("plan", recipe, "training.epochs=1", "--json", "--quiet")
    assert (result.exit_code, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert found["steps"] == 3
    assert found["fits"] is True
    assert min(found["peak_memory_bytes"], found["seconds"], found["trainable_parameters"], found["longest_row"]) > 0
    for told in ("memory", "time", "fits", "3 steps (1.0 epochs)"):
        assert told in run("plan", recipe, "training.epochs=1").stdout
    assert not list(tmp_path.iterdir())


def test_another_machine_is_estimated_and_said_to_be(tiny_run):
    recipe = tiny_run.parent / "recipe.yaml"
    found = json.loads(run("plan", recipe, "training.epochs=1", "--machine", "m2-16gb", "--json", "--quiet").stdout)
    assert (found["machine"], found["steps"], found["label"]) == ("m2-16gb", 3, "estimate, unverified")
    text = run("plan", recipe, "--machine", "m2-16gb").stdout
    assert "no Mac has shown these figures" in text
    assert "m2-16gb" in text
    other = run("plan", recipe, "--machine", "m2-17gb")
    assert other.exit_code == 2
    assert "did you mean m2-16gb?" in str(other.stderr)


def test_a_family_that_is_read_on_full_logits_is_told_to_be_slower(tiny_run, tmp_path):
    recipe = tiny_run.parent / "recipe.yaml"
    known = run("plan", recipe, "training.max_steps=1")
    other = run("plan", recipe, "training.max_steps=1", f"model.source={family_folder(tmp_path / 'm', 'gpt_neox')}")
    assert (known.exit_code, other.exit_code) == (0, 0)
    assert "slower" not in known.stdout
    assert "slower    this family is read on full logits" in other.stdout


def test_what_does_not_fit_is_shown_and_refused_with_what_would(tiny_run, monkeypatch):
    monkeypatch.setattr(memory, "memory_limit", lambda: MemoryLimit(1000, "a test's"))
    result = run("plan", tiny_run.parent / "recipe.yaml", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["fits"] is False
    error = json.loads(result.stderr.splitlines()[-1])["error"]
    assert "a test's" in error["message"]
    assert "method.layers" in error["remedy"]


def test_auto_tells_the_plan_before_it_trains(tiny_run, tmp_path):
    result = run(
        "train",
        tiny_run.parent / "recipe.yaml",
        "training.max_steps=1",
        "--auto",
        "--no-score",
        "--run-dir",
        tmp_path / "run",
    )
    assert result.exit_code == 0
    assert "plan     " in result.stderr
    assert "of memory" in result.stderr


def test_auto_is_for_a_new_run(tiny_run):
    result = run("train", "--resume", tiny_run, "--auto")
    assert result.exit_code == 2
    assert "--auto" in result.stderr


def test_an_unknown_key_is_refused_as_in_training(tiny_run):
    result = run("plan", tiny_run.parent / "recipe.yaml", "training.epoch=1")
    assert result.exit_code != 0
    assert "training.epochs" in result.stderr
