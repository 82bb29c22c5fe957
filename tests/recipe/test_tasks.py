"""The sections of tasks: what each may say, and how a mistake in one is told."""

import pytest

from mlxtune.errors import RecipeError
from mlxtune.recipe.load import load_recipe
from mlxtune.recipe.schema import json_schema
from mlxtune.recipe.tasks import settings_of

RECIPE = """
name: a
model: {{source: x}}
data: {{train: t.jsonl}}
evaluation: {{tasks: [{task}]}}
"""


@pytest.fixture
def load(tmp_path):
    def load_task(task):
        path = tmp_path / "recipe.yaml"
        path.write_text(RECIPE.format(task=task))
        return load_recipe(path).recipe.evaluation.tasks[0]

    return load_task


@pytest.mark.parametrize(
    ("task", "settings"),
    [
        ("{name: a, scorer: exact_match}", {}),
        ("{name: a, scorer: choice}", {}),
        (
            r"{name: a, scorer: numeric, pattern: '####\s*(.+)'}",
            {"pattern": r"####\s*(.+)", "tolerance": 0.0, "relative_tolerance": 0.0, "decimal_mark": "."},
        ),
        ("{name: a, scorer: bleu}", {"tokenize": "13a", "lowercase": False}),
        ("{name: a, scorer: sql, setup: [schema]}", {"setup": ("schema",), "row_order": "auto"}),
        ("{name: a, scorer: python, function: own.score}", {"function": "own.score", "columns": None}),
    ],
)
def test_a_section_has_the_settings_of_its_scorer(load, task, settings):
    assert settings_of(load(task)) == settings


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("{name: a, scorer: regex}", "evaluation.tasks.0.pattern is missing"),
        ("{name: a, scorer: sql}", "evaluation.tasks.0.setup is missing"),
        ("{name: a, scorer: regex, pattern: '(a'}", "evaluation.tasks.0.pattern must be a regular expression"),
        ("{name: a, scorer: numeric, tolerance: -1}", "tasks.0.tolerance must be greater than or equal to 0"),
        ("{name: a, scorer: choice, labels: [yes]}", "evaluation.tasks.0.labels must be two labels or more"),
        ("{name: a, scorer: choice, labels: [yes, 'yes ']}", "evaluation.tasks.0.labels must be two labels or more"),
        ("{name: a, scorer: choice, max_tokens: 3}", "evaluation.tasks.0.max_tokens is not a key of choice"),
        ("{name: a, scorer: python, function: score}", "tasks.0.function must be module.function, not score"),
        ("{name: a, scorer: python, function: a.b()}", "evaluation.tasks.0.function must be module.function"),
        ("{name: a, scorer: exact_match, fields: [a]}", "evaluation.tasks.0.fields is not a key of exact_match"),
        ("{name: a, scorer: exact}", "evaluation.tasks.0.scorer must be one of"),
        ("{name: a, scorer: bleu, tokenize: 13}", "evaluation.tasks.0.tokenize must be one of 13a, intl"),
    ],
)
def test_a_mistake_in_a_task_is_told_in_its_own_words(load, task, message):
    with pytest.raises(RecipeError) as caught:
        load(task)
    assert message in caught.value.message


def test_an_editor_learns_each_scorers_keys():
    sections = json_schema()["$defs"]
    assert set(sections["NumericTask"]["properties"]) >= {"scorer", "pattern", "tolerance"}
    assert sections["NumericTask"]["properties"]["scorer"]["const"] == "numeric"
