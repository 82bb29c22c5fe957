"""The example of docs/trackers.md runs, and docs/lm-eval.md names options that there are."""

import re
from pathlib import Path

from tiny import tiny_recipe

from mlxtune.cli.evaluate import command
from mlxtune.recipe.load import load_recipe
from mlxtune.recipe.schema import Recipe

DOCS = Path(__file__).resolve().parents[2] / "docs"
TRACKERS = (DOCS / "trackers.md").read_text(encoding="utf-8")
LM_EVAL = (DOCS / "lm-eval.md").read_text(encoding="utf-8")


def test_the_line_of_the_recipe_is_one(tmp_path):
    (line,) = re.findall(r"```yaml\n(.*?)```", TRACKERS, re.DOTALL)
    path = tiny_recipe(tmp_path)
    path.write_text(path.read_text() + line)
    loaded = load_recipe(path).recipe
    assert isinstance(loaded, Recipe)
    assert loaded.report_to == ("tensorboard", "wandb")


def test_the_callback_is_told_of_each_step(tmp_path, monkeypatch, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", TRACKERS, re.DOTALL)
    path = tiny_recipe(tmp_path)
    path.write_text(path.read_text().replace("epochs: 2", "max_steps: 2").replace(", test: test.jsonl", ""))
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "docs/trackers.md", "exec"), {})  # noqa: S102 - our own page
    told = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in told] == ["1", "2", "2"]
    assert told[2][1] == "valid"


def test_the_options_that_the_page_of_the_harness_names_are_there():
    named = {
        option
        for block in re.findall(r"```\n(.*?)```", LM_EVAL, re.DOTALL)
        for option in re.findall(r"--[a-z-]+", block)
    }
    named |= set(re.findall(r"^- `(--[a-z-]+)", LM_EVAL, re.MULTILINE))
    there = {option for parameter in command.params for option in parameter.opts}
    assert named >= {"--lm-eval", "--lm-eval-limit", "--shots", "--apply-chat-template", "--include-path"}
    assert named <= there
