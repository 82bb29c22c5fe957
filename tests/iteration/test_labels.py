"""The labels of a choice are those of the training rows, never of others, and stay a run's from its start."""

import json

import pytest
from tiny import tiny_recipe

from mlxtune.errors import DataError
from mlxtune.iteration.labels import with_labels_of
from mlxtune.iteration.opening import open_recipe, tasks_of
from mlxtune.iteration.run import resume_run, run_recipe
from mlxtune.iteration.scoring.rows import rows_of_recipe
from mlxtune.recipe.load import load_recipe

CHOICE = "evaluation.tasks=[{name: tone, scorer: choice}]"
SPLITS = {"train": ("glad", "sad", "glad", "cross"), "valid": ("sad", "glad"), "test": ("sad", "cross", "glad")}


def write_rows(path, labels):
    rows = [{"text": f"{path.stem} {number}", "label": label} for number, label in enumerate(labels)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def recipe(tmp_path):
    path = tiny_recipe(tmp_path)
    for split, labels in SPLITS.items():
        write_rows(tmp_path / f"{split}.jsonl", labels)
    return path


def labels_of(recipe, *overrides):
    opened = open_recipe(load_recipe(recipe, [CHOICE, *overrides]).recipe, device="cpu")
    return tasks_of(opened.recipe.evaluation)[0].labels


def test_they_are_the_different_answers_of_the_training_rows(recipe):
    assert labels_of(recipe) == ("cross", "glad", "sad")


def test_held_out_rows_and_replay_add_none(recipe, tmp_path):
    write_rows(tmp_path / "test.jsonl", ["glad"] * 10 + ["amazed"])
    write_rows(tmp_path / "general.jsonl", ["anything"] * 8)
    replay = f"data.replay={{file: {tmp_path / 'general.jsonl'}, share: 0.5}}"
    assert labels_of(recipe, replay) == ("cross", "glad", "sad")


def test_a_model_is_scored_with_the_labels_that_its_recipe_would_train(recipe):
    assert rows_of_recipe(load_recipe(recipe, [CHOICE])).tasks[0].labels == ("cross", "glad", "sad")


def test_labels_that_the_recipe_names_have_to_have_every_training_rows_answer(recipe):
    named = "evaluation.tasks.0.labels=[sad, glad, cross, calm]"
    assert labels_of(recipe, named) == ("sad", "glad", "cross", "calm")
    with pytest.raises(DataError) as caught:
        labels_of(recipe, "evaluation.tasks.0.labels=[sad, cross]")
    assert caught.value.message.count("'glad' is none of its 2 labels") == 2


@pytest.mark.parametrize(
    ("answers", "message"), [(["glad"] * 4, "1 answer"), ([str(i) for i in range(1001)], "more than 1000")]
)
def test_rows_without_classes_are_no_choice(recipe, tmp_path, answers, message):
    write_rows(tmp_path / "train.jsonl", answers)
    with pytest.raises(DataError, match=message):
        labels_of(recipe)


def test_a_run_keeps_its_labels_and_goes_on_with_the_owners_recipe(recipe, tmp_path):
    loaded = load_recipe(recipe, [CHOICE, "training.epochs=1"])
    result = run_recipe(loaded, device="cpu", run_dir=tmp_path / "run")
    resolved = json.loads((result.run_dir / "recipe.resolved.json").read_text())
    assert resolved["evaluation"]["tasks"][0]["labels"] == ["cross", "glad", "sad"]
    assert {"tone.accuracy", "tone.macro_f1"} <= set(result.scores["tuned"])
    assert result.scores["headline"] == "tone.accuracy"
    (tmp_path / "run/scores.json").unlink()
    again = resume_run(result.run_dir, loaded, device="cpu")
    assert again.scores["tuned"] == result.scores["tuned"]


def test_labels_that_an_owner_named_are_not_changed_for_a_runs(recipe):
    named = load_recipe(recipe, [CHOICE, "evaluation.tasks.0.labels=[sad, glad]"]).recipe.evaluation
    settled = load_recipe(recipe, [CHOICE, "evaluation.tasks.0.labels=[sad, glad, cross]"]).recipe.evaluation
    assert with_labels_of(named, settled) == named
    assert with_labels_of(load_recipe(recipe, [CHOICE]).recipe.evaluation, settled) == settled
