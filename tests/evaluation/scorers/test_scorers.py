"""The table of scorers, against the names that a recipe may use."""

import inspect

import pytest
from pydantic import TypeAdapter

from mlxtune.evaluation.scorers import SCORERS, Scorer
from mlxtune.recipe.schema import Task


def test_a_recipe_may_name_every_scorer_and_no_other():
    schema = TypeAdapter(Task).json_schema()
    assert set(schema["discriminator"]["mapping"]) == set(SCORERS)


@pytest.mark.parametrize("scorer", SCORERS.values(), ids=SCORERS)
def test_every_scorer_has_the_one_signature(scorer):
    expected = list(inspect.signature(Scorer.__call__).parameters.values())[1:]
    assert list(inspect.signature(scorer).parameters.values()) == expected


@pytest.mark.parametrize("name", SCORERS)
def test_a_scorer_lives_in_the_file_of_its_name(name):
    assert SCORERS[name].__module__ == f"mlxtune.evaluation.scorers.{name}"
