"""A configuration of mlx_lm.lora becomes a recipe that says the same, and tells what it cannot say."""

from pathlib import Path

import pytest

from mlxtune.errors import RecipeError
from mlxtune.recipe.load import load_recipe
from mlxtune.recipe.method import DoraSettings, FullSettings, TopLayers
from mlxtune.recipe.mlx_lm_config import as_yaml, import_config
from mlxtune.recipe.schema import Recipe

WHOLE = """
model: org/model
train: true
fine_tune_type: lora
optimizer: adamw
optimizer_config:
  adamw: {betas: [0.9, 0.98], weight_decay: 0.02}
data: rows
seed: 3
num_layers: 4
batch_size: 2
iters: 20
val_batches: 25
learning_rate: 1e-5
steps_per_report: 10
steps_per_eval: 10
adapter_path: adapters
save_every: 8
test: true
max_seq_length: 300
grad_checkpoint: true
grad_accumulation_steps: 2
mask_prompt: true
lora_parameters: {keys: [self_attn.q_proj, self_attn.v_proj], rank: 4, scale: 20.0, dropout: 0.1}
lr_schedule: {name: cosine_decay, warmup: 2, arguments: [2e-5, 10, 1e-7]}
report_to: wandb,swanlab
colour: blue
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where mlx_lm.lora would be started: with a folder of rows."""
    (tmp_path / "rows").mkdir()
    for split in ("train", "valid", "test"):
        (tmp_path / "rows" / f"{split}.jsonl").write_text('{"text": "a"}\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def imported(folder: Path, text: str):
    (folder / "lora config.yaml").write_text(text)
    found = import_config(folder / "lora config.yaml")
    return Recipe.model_validate(found.values), found.notes


def test_every_value_that_has_a_counterpart_is_the_same_in_our_units(folder: Path):
    recipe, _ = imported(folder, WHOLE)
    assert (recipe.name, recipe.seed, recipe.model.source) == ("lora-config", 3, "org/model")
    method, training, data = recipe.method, recipe.training, recipe.data
    assert (method.rank, method.alpha, method.dropout) == (4, 80.0, 0.1)
    assert (method.target_modules, method.layers) == (("q_proj", "v_proj"), TopLayers(top=4))
    assert (training.max_steps, training.epochs, training.batch_size) == (10, None, 2)
    assert (training.gradient_accumulation_steps, training.max_grad_norm) == (2, None)
    assert (training.optimizer, training.weight_decay) == ("adamw", 0.02)
    assert (training.learning_rate, training.lr_schedule, training.warmup_ratio) == (2e-5, "cosine", 0.2)
    assert (data.train_on, data.max_seq_length, data.overflow) == ("last_completion", 300, "truncate_right")
    assert data.test is not None
    assert [data.train[0].path, data.test[0].path] == [
        str(folder / "rows" / f"{one}.jsonl") for one in ("train", "test")
    ]
    assert (recipe.evaluation.every_steps, recipe.checkpoint.every_steps) == (5, 4)
    assert recipe.report_to == ("wandb",)


def test_every_key_without_a_counterpart_is_named(folder: Path):
    _, notes = imported(folder, WHOLE)
    named = {"val_batches", "steps_per_report", "adapter_path", "colour", "report_to", "optimizer_config.adamw.betas"}
    assert named <= notes.keys()
    assert "swanlab is left out" in notes["report_to"]
    assert "20 * 4" in notes["lora_parameters.scale"]


def test_what_the_file_leaves_out_is_what_mlx_lm_takes_and_not_what_we_take(folder: Path):
    recipe, notes = imported(folder, "model: org/model\ndata: rows\n")
    assert (recipe.method.rank, recipe.method.alpha, recipe.method.layers) == (8, 160.0, TopLayers(top=16))
    assert (recipe.training.max_steps, recipe.training.batch_size, recipe.training.learning_rate) == (1000, 4, 1e-5)
    assert (recipe.training.optimizer, recipe.training.lr_schedule) == ("adam", "constant")
    assert recipe.training.warmup_ratio == 0
    assert (recipe.data.train_on, recipe.data.max_seq_length, recipe.data.test) == ("everything", 2048, None)
    assert recipe.seed == 0
    assert "16 is its default" in notes["num_layers"]


def test_our_defaults_for_it_are_those_of_the_installed_mlx_lm():
    from mlx_lm.lora import CONFIG_DEFAULTS

    from mlxtune.recipe.mlx_lm_config import DEFAULTS, LORA_DEFAULTS, NO_COUNTERPART, SILENT

    assert {key: CONFIG_DEFAULTS[key] for key in DEFAULTS} == DEFAULTS
    assert CONFIG_DEFAULTS["lora_parameters"] == LORA_DEFAULTS
    others = {"optimizer_config", "resume_adapter_file", "lr_schedule", "lora_parameters", "report_to"}
    assert CONFIG_DEFAULTS.keys() == DEFAULTS.keys() | NO_COUNTERPART.keys() | SILENT | others


def test_all_layers_and_the_hub_and_an_adapter_to_go_on_from(folder: Path):
    text = "model: m\nnum_layers: -1\nhf_dataset: {path: org/rows, prompt_feature: q, completion_feature: a, name: x}\n"
    recipe, notes = imported(folder, text + "resume_adapter_file: old/adapters.safetensors\n")
    assert recipe.method.layers == "all"
    assert recipe.data.train[0].path == "hf://datasets/org/rows"
    assert recipe.model.adapter == folder / "old"
    assert {"hf_dataset.name", "resume_adapter_file"} <= notes.keys()
    recipe, notes = imported(folder, "model: m\ndata: org/rows\n")
    assert recipe.data.train[0].path == "hf://datasets/org/rows"
    assert "there is no such folder" in notes["data"]


def test_dora_has_the_numbers_of_lora_and_full_tuning_has_blocks_alone(folder: Path):
    parameters = "lora_parameters: {rank: 4, scale: 10.0, dropout: 0.1}\n"
    base = f"model: m\ndata: rows\nnum_layers: 2\n{parameters}fine_tune_type: "
    recipe, _ = imported(folder, base + "dora\n")
    assert recipe.method == DoraSettings(rank=4, alpha=40.0, dropout=0.1, layers=TopLayers(top=2))
    recipe, notes = imported(folder, base + "full\n")
    assert recipe.method == FullSettings(layers=TopLayers(top=2))
    assert "full tuning has none" in notes["lora_parameters"]
    assert "a quantized model is refused" in notes["fine_tune_type"]


def test_modules_outside_of_the_blocks_have_their_names_and_one_of_one_block_its_path(folder: Path):
    keys = "[self_attn.q_proj, model.embed_tokens, lm_head, model.layers.3.mlp.up_proj]"
    recipe, notes = imported(folder, f"model: m\ndata: rows\nlora_parameters: {{keys: {keys}}}\n")
    assert recipe.method.target_modules == ("q_proj", "embed_tokens", "lm_head", "model.layers.3.mlp.up_proj")
    assert notes["lora_parameters.keys"].startswith("model.layers.3.mlp.up_proj: ")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("iters: many\n", "iters is no int"),
        ("lora_parameters: {rank: 8, scale: big}\n", "scale is no int or float"),
        ("fine_tune_type: qlora\n", "fine_tune_type is one of lora, dora, full, not qlora"),
        ("lora_parameters: {dropout: some}\n", "dropout is no int or float"),
        ("optimizer: adamax\n", "there is no optimizer adamax"),
        ("lr_schedule: {name: cosine_decay}\n", "lr_schedule.arguments is no int or float"),
        ("mask_prompt: maybe\n", "mask_prompt is no bool"),
        ("- a\n", "is no mapping"),
    ],
)
def test_a_value_that_mlx_lm_would_refuse_is_refused_with_its_key(folder: Path, text: str, told: str):
    with pytest.raises(RecipeError, match=told):
        imported(folder, text)


def test_what_is_written_is_read_back_as_the_same(folder: Path):
    (folder / "a.yaml").write_text(WHOLE)
    values = import_config(folder / "a.yaml").values
    (folder / "recipe.yaml").write_text(as_yaml(values, "From a.yaml"))
    assert load_recipe(folder / "recipe.yaml").recipe == Recipe.model_validate(values)
