"""The keys of a recipe: defaults, bounds, what is refused by name, and the schema that editors read."""

from typing import get_args

import pytest
from pydantic import ValidationError

from mlxtune.recipe.keys import all_keys, dotted, path_keys
from mlxtune.recipe.method import method_in_words
from mlxtune.recipe.objective import DpoSettings, GrpoSettings, KtoSettings, OrpoSettings, RewardSettings
from mlxtune.recipe.row_shape import ColumnSettings, RoleSettings, TemplateSettings
from mlxtune.recipe.schema import Recipe, json_schema
from mlxtune.recipe.tasks import Task

LEAST = {"name": "a", "model": {"source": "x"}, "data": {"train": "t.jsonl"}}

# Every key and its default, as the reference page of recipes gives them.
ALL_DEFAULTS = {
    "schema_version": 1,
    "name": "a",
    "seed": 7,
    "model": {"source": "x", "quantize": None, "adapter": None},
    "method": {
        "type": "lora",
        "rank": 8,
        "alpha": 16.0,
        "use_rslora": False,
        "dropout": 0.0,
        "target_modules": "all-linear",
        "layers": "all",
        "rank_pattern": {},
        "alpha_pattern": {},
        "modules_to_save": [],
    },
    "objective": {"type": "sft"},
    "data": {
        "train": "t.jsonl",
        "valid": None,
        "test": None,
        "format": "auto",
        "columns": None,
        "template": None,
        "chat_template": None,
        "train_on": "completions",
        "max_seq_length": 512,
        "overflow": "error",
        "replay": None,
    },
    "training": {
        "max_steps": None,
        "max_minutes": None,
        "epochs": 3,
        "batch_tokens": None,
        "batch_size": 8,
        "gradient_accumulation_steps": 1,
        "learning_rate": 2.0e-4,
        "lr_schedule": "cosine",
        "warmup_ratio": 0.05,
        "optimizer": "adamw",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "cache_frozen_prefix": "auto",
        "grad_checkpoint": "auto",
        "throttle": {"battery": "pause", "thermal": "slow", "memory_pressure": "pause", "max_gpu_share": 1.0},
    },
    "evaluation": {
        "every_steps": 50,
        "samples": 2,
        "early_stopping_patience": None,
        "tasks": [],
        "forgetting": True,
        "group_by": None,
    },
    "checkpoint": {"every_steps": 50, "keep": 2},
    "report_to": [],
    "offline": False,
}


def recipe(**sections) -> Recipe:
    return Recipe.model_validate(LEAST | sections)


def refused(**sections) -> set[str]:
    """The dotted keys that pydantic blames."""
    with pytest.raises(ValidationError) as caught:
        recipe(**sections)
    return {dotted(detail["loc"]) for detail in caught.value.errors()}


def test_only_name_source_and_training_data_have_no_default():
    assert recipe().model_dump(mode="json") == ALL_DEFAULTS


def test_a_task_has_its_defaults_too():
    one, two = recipe(
        evaluation={"tasks": [{"name": "a", "scorer": "exact_match"}, {"name": "b", "scorer": "json_fields"}]}
    ).evaluation.tasks
    assert one.model_dump() == {"name": "a", "scorer": "exact_match", "max_tokens": 128, "answer_after": "\nA:"}
    assert two.model_dump() == one.model_dump() | {"name": "b", "scorer": "json_fields", "fields": None}


@pytest.mark.parametrize(
    ("training", "epochs"),
    [({}, 3), ({"max_steps": 5}, None), ({"max_minutes": 0.5}, None), ({"max_steps": 5, "epochs": 2}, 2)],
)
def test_three_epochs_are_the_end_only_where_nothing_else_is(training: dict, epochs: int | None):
    assert recipe(training=training).training.epochs == epochs


def test_a_run_has_to_end():
    assert refused(training={"epochs": None}) == {"training"}


@pytest.mark.parametrize(
    ("section", "value", "key"),
    [
        ("name", "a/b", "name"),
        ("name", ".hidden", "name"),
        ("seed", -1, "seed"),
        ("seed", "7", "seed"),
        ("schema_version", 2, "schema_version"),
        ("model", {"source": ""}, "model.source"),
        ("model", {"source": "x", "quantize": {"bits": 7}}, "model.quantize.bits"),
        ("method", {"rank": 0}, "method.lora.rank"),
        ("method", {"rank": True}, "method.lora.rank"),
        ("method", {"dropout": 1}, "method.lora.dropout"),
        ("method", {"alpha": 0}, "method.lora.alpha"),
        ("method", {"layers": {"top": 0}}, "method.lora.layers"),
        ("method", {"layers": 4}, "method.lora.layers"),
        ("method", {"target_modules": []}, "method.lora.target_modules"),
        ("method", {"target_modules": "q_proj"}, "method.lora.target_modules"),
        ("method", {"type": "dora", "rank_pattern": {"q_proj": 0}}, "method.dora.rank_pattern.q_proj"),
        ("method", {"modules_to_save": "lm_head"}, "method.lora.modules_to_save"),
        ("method", {"type": "full", "rank": 8}, "method.full.rank"),
        ("method", {"type": "full", "layers": {"top": 0}}, "method.full.layers"),
        ("method", {"train_embeddings": True}, "method.lora.train_embeddings"),
        ("data", {"train": "t", "max_seq_length": 1}, "data.max_seq_length"),
        ("data", {"train": "t", "format": "pairs"}, "data.format"),
        ("training", {"epochs": 0}, "training.epochs"),
        ("training", {"epochs": 1.5}, "training.epochs"),
        ("training", {"learning_rate": 0}, "training.learning_rate"),
        ("training", {"learning_rate": float("nan")}, "training.learning_rate"),
        ("training", {"grad_checkpoint": 0}, "training.grad_checkpoint"),
        ("training", {"max_steps": "many", "epochs": 1}, "training.max_steps"),
        ("checkpoint", {"keep": 0}, "checkpoint.keep"),
        ("evaluation", {"early_stopping_patience": 3}, ""),
    ],
)
def test_a_value_out_of_bounds_is_refused(section: str, value, key: str):
    assert refused(**{section: value}) == {key}


def test_two_tasks_with_one_name_are_refused():
    tasks = [{"name": "a", "scorer": "exact_match"}, {"name": "a", "scorer": "json_fields"}]
    assert refused(evaluation={"tasks": tasks}) == {"evaluation"}


def test_early_stopping_with_data_to_look_at_is_well():
    data = {"train": "t.jsonl", "valid": "v.jsonl"}
    assert recipe(data=data, evaluation={"early_stopping_patience": 3}).evaluation.early_stopping_patience == 3


def test_lists_of_modules_and_top_layers_are_kept():
    method = recipe(method={"target_modules": ["q_proj", "v_proj"], "layers": {"top": 4}}).method
    assert (method.target_modules, method.layers.top) == (("q_proj", "v_proj"), 4)


def test_a_recipe_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        recipe().seed = 3


def test_every_key_is_documented_for_editors():
    sections = [json_schema(), *json_schema()["$defs"].values()]
    undocumented = [
        f"{section['title']}.{name}"
        for section in sections
        for name, field in section["properties"].items()
        if not field.get("description") and "$ref" not in field
    ]
    assert undocumented == []
    assert all(section["additionalProperties"] is False for section in sections)


def test_the_tree_of_keys_is_the_recipe_with_all_defaults_filled_in():
    def keys_of(values, below=""):
        for name, value in values.items():
            yield f"{below}{name}"
            if isinstance(value, dict):
                yield from keys_of(value, f"{below}{name}.")

    from_schema = {dotted(key) for key in all_keys()}
    inside_lists_and_unions = {
        *(f"objective.{name}" for kind in (DpoSettings, OrpoSettings, KtoSettings, GrpoSettings)
          for name in kind.model_fields),
        *(f"objective.rewards.{name}" for name in RewardSettings.model_fields),
        "model.quantize.bits", "model.quantize.group_size", "method.layers.top", "training.grad_checkpoint.every",
        "method.train_embeddings",
        *(f"evaluation.tasks.{name}" for section in get_args(get_args(Task)[0]) for name in section.model_fields),
        *(f"data.{split}.{name}" for split in ("train", "valid", "test") for name in ("path", "weight")),
        *(f"data.columns.{name}" for name in ColumnSettings.model_fields),
        *(f"data.replay.{name}" for name in ("file", "share")),
        *(f"data.columns.roles.{name}" for name in RoleSettings.model_fields),
        *(f"data.template.{name}" for name in TemplateSettings.model_fields),
    }  # fmt: skip
    assert from_schema == set(keys_of(ALL_DEFAULTS)) | inside_lists_and_unions


def test_the_paths_of_a_recipe_are_known():
    assert {dotted(key) for key in path_keys()} == {"model.adapter", "data.chat_template"}
    assert [file.path for file in recipe().data.train] == ["t.jsonl"]


def test_a_batch_has_so_many_rows_or_so_many_tokens():
    assert recipe(training={"batch_tokens": 2048}).training.batch_size is None
    for sizes in ({"batch_size": 4, "batch_tokens": 2048}, {"batch_size": None}):
        with pytest.raises(ValidationError, match="batch_tokens in its place"):
            recipe(training=sizes)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ({"rank": 4}, "LoRA rank 4"),
        ({"rank": 4, "rank_pattern": {"v_proj": 16, "k_proj": 2}}, "LoRA rank 2 to 16 by layer"),
        ({"rank": 4, "rank_pattern": {"v_proj": 4}}, "LoRA rank 4"),
        ({"rank": 8, "use_rslora": True}, "rsLoRA rank 8"),
        ({"type": "dora", "rank": 8, "use_rslora": True}, "rank-stabilized DoRA rank 8"),
        ({"rank": 2, "modules_to_save": ["norm", "lm_head"]}, "LoRA rank 2, norm and lm_head in full"),
        ({"type": "full"}, "all blocks in full"),
        ({"type": "full", "layers": {"top": 1}}, "the top block in full"),
        (
            {"type": "full", "layers": {"top": 3}, "train_embeddings": True},
            "the top 3 blocks and the embeddings in full",
        ),
    ],
)
def test_a_title_says_what_the_method_is(method: dict, words: str):
    assert method_in_words(method) == words
