"""docs/tasks.md has a section for each scorer, and the lines of a recipe in it can be loaded."""

import re
import sys
import textwrap
from pathlib import Path

import pytest

from mlxtune.evaluation.own_code import python_allowed
from mlxtune.evaluation.scorers import SCORERS
from mlxtune.iteration.opening import tasks_of
from mlxtune.recipe.load import load_recipe

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
RECIPE = "name: a\nmodel: {source: x}\ndata: {train: t.jsonl}\n"


def task_of(scorer, folder):
    (lines,) = re.findall(r"<!-- task -->\n```yaml\n(.*?)```", SECTIONS[scorer], re.DOTALL)
    path = folder / "recipe.yaml"
    path.write_text(RECIPE + "evaluation:\n  tasks:\n" + textwrap.indent(lines, "    "))
    (task,) = load_recipe(path).recipe.evaluation.tasks
    return task


def test_every_scorer_has_a_section_and_a_line_in_the_table():
    assert set(SECTIONS) == set(SCORERS)
    assert {name for name in SCORERS if f"`{name}`" in PAGE.partition("## choice")[0]} == set(SCORERS)


@pytest.mark.parametrize("scorer", SCORERS)
def test_the_lines_of_a_section_are_a_task_of_its_scorer(scorer, tmp_path):
    task = task_of(scorer, tmp_path)
    assert task.scorer == scorer
    assert f"**{SCORERS[scorer].PRIMARY}**" in SECTIONS[scorer]


@pytest.mark.parametrize("scorer", SCORERS)
def test_a_section_names_every_key_of_its_scorer(scorer, tmp_path):
    task = task_of(scorer, tmp_path)
    own = set(type(task).model_fields) - {"name", "scorer", "answer_after", "max_tokens"}
    assert {key for key in own if f"{key}:" not in SECTIONS[scorer]} == set()


def test_the_function_of_the_page_scores(tmp_path, monkeypatch):
    (code,) = re.findall(r"<!-- file: my_measure.py -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "my_measure.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "recipe.yaml"
    task_of("python", tmp_path)
    (task,) = tasks_of(load_recipe(path).recipe.evaluation)
    with python_allowed():
        found = SCORERS["python"].score("Please go.", "Please go.", **task.settings, row={"customer": "C-1"})
    sys.modules.pop("my_measure")
    assert found == {"score": 1.0, "polite": 1.0}
