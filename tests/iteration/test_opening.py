"""All that a recipe names is opened and checked before anything is written."""

import hashlib
import json

import numpy as np
import pytest
from tiny import CHATML, tiny_recipe, tiny_row

from mlxtune.adapters.attach import LoraShape
from mlxtune.cache import entries
from mlxtune.data.order import BatchSize
from mlxtune.data.render import Rendered
from mlxtune.data.store.token_cache import LEAST_ROWS
from mlxtune.errors import DataError, ModelError, RunError
from mlxtune.iteration.opening import (
    find_base,
    held_out,
    lora_shape,
    make_order,
    make_plan,
    open_recipe,
    tasks_of,
)
from mlxtune.models.source import hash_of_folder
from mlxtune.recipe.load import load_recipe
from mlxtune.runs.folder import RunFolder
from mlxtune.runs.prompting import Prompting


def opened(path, *overrides):
    return open_recipe(load_recipe(path, overrides).recipe, device="cpu")


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return tiny_recipe(tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="module")
def plain_recipe(tmp_path_factory):
    """The same with a model that has no chat template."""
    return tiny_recipe(tmp_path_factory.mktemp("plain"), chat_template=None)


def test_what_a_result_depends_on_is_hashed(recipe):
    folder = recipe.parent
    splits = ("train", "valid", "test")
    assert opened(recipe).inputs() == {
        "model": {"source": str(folder / "model"), "revision": None, "sha256": hash_of_folder(folder / "model")},
        "data": {split: hashlib.sha256((folder / f"{split}.jsonl").read_bytes()).hexdigest() for split in splits},
        "chat_template": hashlib.sha256(CHATML.encode()).hexdigest(),
        "train_on": "completions",
        "precision": "cpu-float32",
    }


def test_splits_that_a_recipe_does_not_have_are_not_opened(recipe):
    found = opened(recipe, "data.valid=null", "data.test=null")
    assert list(found.datasets) == ["train"]
    assert list(found.inputs()["data"]) == ["train"]


def test_test_is_held_out_and_without_it_valid(recipe):
    for overrides, expected in (
        ([], "test"),
        (["data.test=null"], "valid"),
        (["data.test=null", "data.valid=null"], None),
    ):
        assert held_out(load_recipe(recipe, overrides).recipe) == expected


def test_held_out_answers_that_no_scorer_can_read_are_found_before_training_all_of_them(recipe, tmp_path):
    rows = [tiny_row("a"), tiny_row("b"), tiny_row("c")]
    for row in rows[1:]:
        row["messages"][-1]["content"] = "not JSON"
    write_rows(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DataError, match="2 problems") as caught:
        opened(recipe, f"data.test={tmp_path / 'rows.jsonl'}")
    assert f"{tmp_path / 'rows.jsonl'}:3: task order: the reference answer is not a JSON object" in str(caught.value)
    opened(recipe, f"data.test={tmp_path / 'rows.jsonl'}", "evaluation.tasks=[{name: x, scorer: exact_match}]")


def test_rows_that_are_dropped_need_no_answer_that_a_scorer_can_read(recipe, tmp_path):
    long = tiny_row("a" * 200)
    long["messages"][-1]["content"] = "not JSON"
    write_rows(tmp_path / "rows.jsonl", [tiny_row("a"), long])
    settings = ["data.overflow=drop", "data.max_seq_length=200"]
    assert len(opened(recipe, f"data.test={tmp_path / 'rows.jsonl'}", *settings).datasets["test"].rows) == 1


def test_held_out_rows_are_grouped_by_a_column_that_some_have(recipe, tmp_path):
    rows = [tiny_row("a"), tiny_row("b") | {"meta": {"tongue": "nl"}}, tiny_row("c") | {"meta": {"tongue": None}}]
    write_rows(tmp_path / "rows.jsonl", rows)
    found = opened(recipe, f"data.test={tmp_path / 'rows.jsonl'}", "evaluation.group_by=meta.tongue")
    kept = [example.kept for example in found.datasets["test"].examples()]
    assert kept == [{}, {"meta.tongue": "nl"}, {"meta.tongue": None}]


def test_a_column_to_group_by_that_no_held_out_row_has_is_told_before_a_model_is_looked_for(recipe, tmp_path):
    write_rows(tmp_path / "rows.jsonl", [tiny_row("a") | {"tongue": None}, tiny_row("b") | {"tone": "dry"}])
    overrides = [f"data.test={tmp_path / 'rows.jsonl'}", "model.source=no-such-model"]
    with pytest.raises(DataError, match=r"no held-out row has a value in 'tongue' \(evaluation.group_by\)") as caught:
        opened(recipe, *overrides, "evaluation.group_by=tongue")
    assert caught.value.where == str(tmp_path / "rows.jsonl")
    assert caught.value.remedy.endswith("messages, tongue, tone")


def test_rows_that_were_rendered_for_one_run_are_not_rendered_for_the_next(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("MLXTUNE_CACHE", str(tmp_path / "cache"))
    write_rows(tmp_path / "rows.jsonl", [tiny_row(str(number)) for number in range(LEAST_ROWS)])
    first = opened(recipe, f"data.train={tmp_path / 'rows.jsonl'}").datasets["train"]
    (kept,) = entries("tokens")
    again = opened(recipe, f"data.train={tmp_path / 'rows.jsonl'}", "seed=8").datasets["train"]
    assert [entry.path for entry in entries("tokens")] == [kept.path]
    assert not again.rows[0].token_ids.flags.writeable  # as rows are that come from the cache
    assert again.report == first.report
    assert all((a.token_ids == b.token_ids).all() for a, b in zip(first.rows, again.rows, strict=True))


@pytest.mark.parametrize(
    ("rows", "with_template", "without_template"),
    [
        ([{"text": "once"}], Prompting(raw=True), Prompting(raw=True)),
        ([{"prompt": "a", "completion": "b"}], Prompting(raw=False), Prompting(raw=True)),
        ([tiny_row("a"), tiny_row("b")], Prompting(raw=False, system="Secretly."), None),
        ([tiny_row("a"), {"messages": tiny_row("b")["messages"][1:]}], Prompting(raw=False), None),
    ],
    ids=["text", "prompt_completion", "chat", "chat with and without system message"],
)
def test_a_tuned_model_wants_its_prompts_as_the_training_rows_have_them(
    recipe, plain_recipe, tmp_path, rows, with_template, without_template
):
    write_rows(tmp_path / "rows.jsonl", rows)
    overrides = [f"data.train={tmp_path / 'rows.jsonl'}", "data.valid=null", "data.test=null"]
    assert opened(recipe, *overrides).prompting() == with_template
    if without_template is not None:
        assert opened(plain_recipe, *overrides).prompting() == without_template


def test_the_base_of_a_run_is_found_while_it_is_what_it_was(own_run):
    folder = own_run.parent / "model"
    assert find_base(RunFolder(own_run)).path == folder
    config = folder / "config.json"
    config.write_text(config.read_text().replace("10000.0", "20000.0"))
    with pytest.raises(RunError, match="not the one that this run was trained on"):
        find_base(RunFolder(own_run))
    folder.rename(folder.with_name("moved"))
    with pytest.raises(ModelError, match="no such file or folder"):
        find_base(RunFolder(own_run))


def test_the_method_in_the_adapters_terms(recipe):
    overrides = ["method.layers={top: 1}", "method.target_modules=[q_proj, v_proj]", "method.alpha=4"]
    assert lora_shape(load_recipe(recipe, overrides).recipe.method) == LoraShape(
        rank=2, alpha=4.0, dropout=0.1, target_modules=("q_proj", "v_proj"), layers=1
    )
    assert lora_shape(load_recipe(recipe).recipe.method) == LoraShape(rank=2, alpha=16.0, dropout=0.1)


def test_the_plan_has_the_recipes_numbers(recipe):
    settings = load_recipe(recipe, ["training.gradient_accumulation_steps=2"]).recipe
    rows = [Rendered(np.array([1, 2]), np.array([False, True]), "rows.jsonl:1")] * 12
    order = make_order(settings, rows, share_prefix=True)
    assert order.size == BatchSize(rows=4)
    plan = make_plan(settings, order, validates=False)
    assert (plan.epochs, plan.total_steps, plan.learning_rate, plan.save_every) == (2, 4, 0.01, 4)
    assert plan.validate_every is None


def test_a_task_that_names_no_fields_has_none(recipe):
    task = tasks_of(load_recipe(recipe).recipe.evaluation)[0]
    assert (task.name, task.scorer, task.max_tokens, task.settings) == ("order", "json_fields", 8, {"fields": None})
    fields = load_recipe(recipe, ["evaluation.tasks.0.fields=[said]"]).recipe
    assert tasks_of(fields.evaluation)[0].settings == {"fields": ("said",)}
