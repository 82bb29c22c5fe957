"""The table of scorers, against the names and keys that a recipe may use."""

import inspect
from typing import get_args

import numpy as np
import pytest
from pydantic import TypeAdapter

from mlxtune.evaluation.figures import FIGURES
from mlxtune.evaluation.scorers import SCORERS
from mlxtune.recipe.tasks import AnswerTask, Task, settings_of

SECTIONS = {section.model_fields["scorer"].annotation.__args__[0]: section for section in get_args(get_args(Task)[0])}
LEAST = {
    "python": {"function": "module.function"},
    "regex": {"pattern": "x"},
    "sql": {"setup": ["tables"]},
}
"""The keys that a section has to have."""


def test_a_recipe_may_name_every_scorer_and_no_other():
    schema = TypeAdapter(Task).json_schema()
    assert set(schema["discriminator"]["mapping"]) == set(SCORERS) == set(SECTIONS)


@pytest.mark.parametrize("name", SCORERS)
def test_a_scorer_takes_the_keys_of_its_section_and_a_row_where_it_reads_columns(name):
    keys = set(SECTIONS[name].model_fields) - set(AnswerTask.model_fields) - {"scorer", "labels"}
    parameters = inspect.signature(SCORERS[name].score).parameters
    assert list(parameters)[:2] == ["output", "reference"]
    row = {"row"} if hasattr(SCORERS[name], "reads") else set()
    assert set(parameters) - {"output", "reference"} == keys | row | {"where"}
    assert all(parameters[key].kind is inspect.Parameter.KEYWORD_ONLY for key in keys)


@pytest.mark.parametrize("name", SCORERS)
def test_the_settings_of_a_section_are_those_keys(name):
    section = SECTIONS[name].model_validate({"name": "a", "scorer": name, **LEAST.get(name, {})})
    parameters = inspect.signature(SCORERS[name].score).parameters
    assert set(settings_of(section)) == set(parameters) - {"output", "reference", "row", "where"}


@pytest.mark.parametrize("name", SCORERS)
def test_a_scorer_lives_in_the_file_of_its_name(name):
    assert SCORERS[name].__name__ == f"mlxtune.evaluation.scorers.{name}"


@pytest.mark.parametrize("name", sorted(set(SCORERS) - {"python", "sql"}))  # which need code and tables
def test_a_right_answer_has_the_primary_metric_in_full_and_an_empty_one_has_none_of_it(name):
    section = SECTIONS[name].model_validate({"name": "a", "scorer": name, **LEAST.get(name, {})})
    reference = {"json_fields": '{"a": 1}', "json_valid": "[1]", "numeric": "so 42", "regex": "x"}.get(
        name, "the cat sat on the mat"
    )
    scorer, settings = SCORERS[name], settings_of(section)
    assert scorer.score(reference, reference, **settings)[scorer.PRIMARY] == pytest.approx(1.0)
    assert scorer.score("", reference, **settings)[scorer.PRIMARY] == 0.0


@pytest.mark.parametrize("name", [name for name in SCORERS if hasattr(SCORERS[name], "adds")])
def test_what_a_row_adds_makes_the_figure_of_the_primary_metric(name):
    section = SECTIONS[name].model_validate({"name": "a", "scorer": name})
    scorer = SCORERS[name]
    added = np.array(scorer.adds("the cat sat on a mat", "the cat sat on the mat", **settings_of(section)))
    assert 0 < float(FIGURES[scorer.PRIMARY](added)) < 1
