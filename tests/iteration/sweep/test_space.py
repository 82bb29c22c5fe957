"""What a sweep tries, as a command line names it: values, ranges, and what is refused before anything is trained."""

import json

import pytest
from tiny import tiny_recipe

from mlxtune.errors import RecipeError
from mlxtune.iteration.sweep.space import (
    Choices,
    Range,
    all_points,
    count_points,
    from_json,
    overrides_of,
    read_space,
    to_json,
)
from mlxtune.recipe.load import load_recipe


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return tiny_recipe(tmp_path_factory.mktemp("recipe"))


def dimensions(recipe, *settings):
    return read_space(recipe, settings).dimensions


def test_a_list_is_one_value_a_trial_and_a_single_value_is_for_all_trials(recipe):
    space = read_space(recipe, ["method.rank=4,8,16", "training.epochs=1"])
    assert space.dimensions == (Choices("method.rank", (4, 8, 16)),)
    assert space.base.recipe.training.epochs == 1


def test_the_values_of_a_list_are_yaml_and_come_as_the_recipe_has_them(recipe):
    told = dimensions(recipe, "method.target_modules=all-linear,[q_proj, v_proj]", "method.layers=all,{top: 1}")
    assert told[0].values == ("all-linear", ["q_proj", "v_proj"])
    assert told[1].values == ("all", {"top": 1})


def test_paths_are_absolute_whatever_folder_a_sweep_is_resumed_from(recipe, tmp_path, monkeypatch):
    rows = (recipe.parent / "train.jsonl").read_text()
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text(rows)
    monkeypatch.chdir(tmp_path)
    (told,) = dimensions(recipe, "data.train=a.jsonl,b.jsonl")
    assert told.values == (str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl"))


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("training.learning_rate=1e-4..1e-3", Range("training.learning_rate", 1e-4, 1e-3, log=True, whole=False)),
        ("training.learning_rate=1e-4..9e-4", Range("training.learning_rate", 1e-4, 9e-4, log=False, whole=False)),
        ("training.learning_rate=1..2", Range("training.learning_rate", 1.0, 2.0, log=False, whole=False)),
        ("training.warmup_ratio=0..0.5", Range("training.warmup_ratio", 0.0, 0.5, log=False, whole=False)),
        ("method.rank=2..16", Range("method.rank", 2, 16, log=False, whole=True)),
        ("method.rank=4..64", Range("method.rank", 4, 64, log=True, whole=True)),
    ],
)
def test_a_range_is_logarithmic_from_a_factor_of_ten_on_and_whole_where_the_key_is(recipe, setting, expected):
    assert dimensions(recipe, setting) == (expected,)


@pytest.mark.parametrize(
    ("setting", "message", "remedy"),
    [
        ("method.rnk=4,8", "method.rnk is not a key of a recipe", "did you mean method.rank?"),
        ("training.lerning_rate=1e-4..1e-3", "not a key of a recipe", "did you mean training.learning_rate?"),
        ("method.rank=4,eight", "method.rank must be a whole number, not eight", None),
        ("method.rank=4.5..8", "method.rank must be a whole number", None),
        ("training.optimizer=1..3", "training.optimizer must be one of", None),
        ("training.optimizer=adamw,lyon", "training.optimizer must be one of", "did you mean lion?"),
        (
            "training.learning_rate=1e-3..1e-4",
            "the range 0.001..0.0001 of training.learning_rate is empty",
            "lower end",
        ),
        ("training.learning_rate=0..1", "training.learning_rate must be greater than 0", None),
        ("method.rank=4,4", "method.rank has the value 4 twice", "once"),
        ("method.rank=4,8,", None, None),
        ("method.rank", "not of the form KEY=VALUE", None),
        ("model.source=a,b", "changes the tokens that the validation loss is counted in", "--against"),
        ("data.max_seq_length=128,256", "changes the rows that the validation loss is measured on", None),
        ("data.valid=train.jsonl,valid.jsonl", "changes the rows that the validation loss is measured on", None),
        ("evaluation.every_steps=1,2", "changes how the validation loss is measured", None),
        ("data={train: a.jsonl},{train: b.jsonl}", "changes the rows", None),
    ],
)
def test_what_cannot_be_tried_is_refused_in_a_sentence(recipe, setting, message, remedy):
    if message is None:  # a comma at the end is YAML's to allow
        assert dimensions(recipe, setting)[0].values == (4, 8)
        return
    with pytest.raises(RecipeError) as refused:
        read_space(recipe, [setting])
    assert message in str(refused.value)
    assert remedy is None or remedy in (refused.value.remedy or "")


@pytest.mark.parametrize("settings", [("method.rank=1,2", "method.rank=4"), ("method={rank: 2}", "method.rank=1,2")])
def test_a_key_that_is_named_twice_is_refused(recipe, settings):
    with pytest.raises(RecipeError, match="set twice"):
        read_space(recipe, settings)


def test_the_recipes_own_values_are_known_where_they_are_among_those_tried(recipe):
    assert read_space(recipe, ["method.rank=1,2", "training.learning_rate=1e-3..1e-1"]).own == {
        "method.rank": 2,
        "training.learning_rate": 1e-2,
    }
    assert read_space(recipe, ["method.rank=4,8"]).own is None


def test_points_are_counted_and_listed():
    space = (Choices("a", (1, 2)), Range("b", 3, 5, log=False, whole=True))
    assert count_points(space) == 6
    assert list(all_points(space))[:4] == [{"a": 1, "b": 3}, {"a": 1, "b": 4}, {"a": 1, "b": 5}, {"a": 2, "b": 3}]
    assert count_points([Range("c", 0.0, 1.0, log=False, whole=False)]) == float("inf")


def test_dimensions_come_back_from_json_as_they_were():
    space = (Choices("a", ("x", [1], {"top": 2}, None)), Range("b", 1e-4, 1e-3, log=True, whole=False))
    assert from_json(json.loads(json.dumps(to_json(space)))) == space


def test_a_point_is_overrides_that_the_recipe_takes_to_the_last_digit(recipe):
    point = {"training.learning_rate": 1.23e-05, "method.target_modules": ["q_proj"], "training.max_grad_norm": None}
    loaded = load_recipe(recipe, overrides_of(point)).recipe
    assert loaded.training.learning_rate == 1.23e-05
    assert loaded.method.target_modules == ("q_proj",)
    assert loaded.training.max_grad_norm is None


def test_where_answers_are_drawn_how_they_are_learned_may_differ_and_what_is_rewarded_may_not(recipe):
    drawn = "objective.type=grpo"
    (told,) = dimensions(recipe, drawn, "objective.beta=0,0.04")
    assert told.values == (0.0, 0.04)
    for key in ("objective.max_tokens=8,16", "objective.type=grpo,sft"):
        settings = [key] if key.startswith("objective.type") else [drawn, key]
        with pytest.raises(RecipeError, match="changes what the validation loss is"):
            read_space(recipe, settings)
    with pytest.raises(RecipeError, match="changes what the validation loss is"):
        read_space(recipe, ["objective.type=dpo", "objective.beta=0.1,0.2"])
