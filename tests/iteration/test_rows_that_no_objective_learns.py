"""Rows that can be looked at, and not yet learned from, are refused before a model is fetched."""

import json

import pytest
from tiny import tiny_tokenizer

from mlxtune.data.dataset import render_examples
from mlxtune.data.example import Message
from mlxtune.data.normalize import Shape
from mlxtune.data.source import find_source, read_examples, stream_of
from mlxtune.errors import DataError
from mlxtune.iteration.opening import open_recipe
from mlxtune.recipe.load import load_recipe

ROW = {"prompt": "Hi", "chosen": "Hello", "rejected": "What?"}


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(ROW) + "\n")
    return path


def test_preferences_are_refused_by_an_objective_of_one_answer(rows, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: a\nmodel: {source: no/such-model}\ndata: {train: pairs.jsonl}\n")
    with pytest.raises(DataError, match="the rows are preferences") as caught:
        open_recipe(load_recipe(recipe).recipe, device="cpu")
    assert caught.value.where == f"{rows}:1"
    assert "completion: chosen" in str(caught.value.remedy)


def test_the_better_answers_of_preferences_are_learned_as_completions(rows):
    (example,) = read_examples(find_source([(str(rows), 1.0)], "train", Shape(columns={"completion": "chosen"})))
    assert example.messages == (Message("user", "Hi"), Message("assistant", "Hello"))


def test_no_dataset_is_made_of_preferences_but_to_look_at_them(rows, tmp_path):
    source, tokenizer = find_source([(str(rows), 1.0)], "test"), tiny_tokenizer(tmp_path)
    settings = {"path": rows, "train_on": "completions", "max_seq_length": 99, "overflow": "error"}
    with pytest.raises(DataError, match="the rows are preferences"):
        render_examples(stream_of(source), tokenizer, **settings)
    assert render_examples(stream_of(source), tokenizer, pairs="better", **settings).report.kind == "preference"
