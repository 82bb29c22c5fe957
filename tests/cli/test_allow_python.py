"""``--allow-python``: without it a recipe's code is not run; with it, what runs is told."""

import sys

import pytest
from click.testing import CliRunner
from tiny import tiny_recipe

from mlxtune.cli import main

TASK = "evaluation.tasks=[{name: mine, scorer: python, function: measure_of_mine.score, max_tokens: 2}]"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    tiny_recipe(tmp_path)
    (tmp_path / "measure_of_mine.py").write_text("def score(output, reference):\n    return 0.25\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("measure_of_mine", None)


def train(*options):
    command = ["train", "recipe.yaml", "training.max_steps=1", TASK, "--run-dir", "run", "--device", "cpu", *options]
    return CliRunner().invoke(main, command)


def test_without_it_nothing_is_run_and_nothing_is_made(folder):
    result = train()
    assert result.exit_code == 2
    assert "--allow-python" in result.stderr
    assert not (folder / "run").exists()
    assert "measure_of_mine" not in sys.modules


@pytest.mark.parametrize("by", ["option", "variable"])
def test_with_it_the_scores_are_those_of_the_code_and_it_is_told_what_ran(folder, monkeypatch, by):
    if by == "variable":
        monkeypatch.setenv("MLXTUNE_ALLOW_PYTHON", "1")
    result = train(*(["--allow-python"] if by == "option" else []))
    assert result.exit_code == 0, result.output
    assert "runs measure_of_mine.score of" in result.stderr
    assert "25.0 %" in result.stdout
