"""The error tree: exit codes, what is printed, and travel between processes."""

import pickle

import pytest

from mlxtune import errors
from mlxtune.errors import DataError, MlxtuneError, UsageError


def family(kind: type[MlxtuneError]) -> list[type[MlxtuneError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in family(child))]


KINDS = family(MlxtuneError)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_survives_pickling_whole(kind):
    error = pickle.loads(pickle.dumps(kind("no answer", where="train.jsonl:3", remedy="write one")))
    assert type(error) is kind
    assert (error.message, error.where, error.remedy) == ("no answer", "train.jsonl:3", "write one")
    assert str(error) == "train.jsonl:3: no answer"


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_usage_ends_with_2_and_every_other_failure_with_1(kind):
    assert kind("x").exit_code == (2 if issubclass(kind, UsageError) else 1)


def test_the_drawing_at_the_top_of_the_file_shows_every_error():
    drawing = errors.__doc__ or ""
    assert [kind.__name__ for kind in KINDS if kind.__name__ not in drawing] == []


def test_without_a_place_only_the_sentence_is_printed():
    assert str(DataError("no answer")) == "no answer"
