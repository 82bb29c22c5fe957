"""Opens all that a recipe names: the device, the model, every data file; nothing is written but the cache.

And says the recipe in the plain values that the floors below take: a training plan, an adapter's shape, tasks.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxtune.adapters.attach import LoraShape
from mlxtune.data.dataset import Dataset, load_rendered
from mlxtune.device.choose import Device, open_device
from mlxtune.evaluation.tasks import Task
from mlxtune.files import sha256_of
from mlxtune.models.load import Model, open_model
from mlxtune.models.source import ModelFolder, find_model
from mlxtune.progress import Progress, silent
from mlxtune.recipe.schema import Recipe
from mlxtune.runs.prompting import Prompting
from mlxtune.training.plan import Plan

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Opened:
    """All that a recipe names, opened and found good."""

    recipe: Recipe
    device: Device
    folder: ModelFolder
    model: Model
    datasets: dict[str, Dataset]

    def inputs(self) -> dict[str, Any]:
        """What the result depends on besides the recipe: a resumed run must have the same."""
        return {
            "model": {"source": self.recipe.model.source, "sha256": self.folder.sha256},
            "data": {split: sha256_of(Path(getattr(self.recipe.data, split))) for split in self.datasets},
            "chat_template": chat_template_hash(self.model.tokenizer),
            "train_on": self.recipe.data.train_on,
            "precision": self.device.precision.name,
        }

    def prompting(self) -> Prompting:
        """How the tuned model wants its prompts: as the training rows have them."""
        train = self.datasets["train"]
        without_template = train.report.format == "prompt_completion" and not self.model.tokenizer.has_chat_template
        return Prompting(raw=train.report.format == "text" or without_template, system=train.system)


def open_recipe(recipe: Recipe, *, device: str = "auto", progress: Progress = silent) -> Opened:
    """Open the device, the model and every data file that a recipe names; nothing is written but the cache."""
    chosen = open_device(device)
    folder = find_recipe_model(recipe, progress=progress)
    model = open_model(folder.path, chosen.precision)
    datasets = {}
    for split in SPLITS:
        path = getattr(recipe.data, split)
        if path is not None:
            datasets[split] = open_split(recipe, model, Path(path))
    return Opened(recipe, chosen, folder, model, datasets)


def find_recipe_model(recipe: Recipe, *, progress: Progress = silent) -> ModelFolder:
    """The folder of the model that a recipe names, converted as it says."""
    quantize = recipe.model.quantize
    pair = None if quantize is None else (quantize.bits, quantize.group_size)
    return find_model(recipe.model.source, quantize=pair, progress=progress)


def chat_template_hash(tokenizer: Any) -> str | None:
    """The SHA-256 of a tokenizer's chat template; None without one."""
    template = tokenizer.chat_template
    return hashlib.sha256(str(template).encode()).hexdigest() if template else None


def open_split(recipe: Recipe, model: Model, path: Path) -> Dataset:
    """One data file, rendered as the recipe says."""
    return load_rendered(
        path,
        model.tokenizer,
        format=recipe.data.format,
        train_on=recipe.data.train_on,
        max_seq_length=recipe.data.max_seq_length,
        overflow=recipe.data.overflow,
    )


def make_plan(recipe: Recipe, *, rows: int, validates: bool) -> Plan:
    """What the training loop needs of a recipe."""
    training = recipe.training
    return Plan(
        seed=recipe.seed,
        rows=rows,
        batch_size=training.batch_size,
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        epochs=training.epochs,
        max_steps=training.max_steps,
        max_minutes=training.max_minutes,
        learning_rate=training.learning_rate,
        lr_schedule=training.lr_schedule,
        warmup_ratio=training.warmup_ratio,
        max_grad_norm=training.max_grad_norm,
        validate_every=recipe.evaluation.every_steps if validates else None,
        save_every=recipe.checkpoint.every_steps,
        early_stopping_patience=recipe.evaluation.early_stopping_patience,
    )


def lora_shape(recipe: Recipe) -> LoraShape:
    """The recipe's method, in the adapter's own terms."""
    method = recipe.method
    targets = method.target_modules
    return LoraShape(
        rank=method.rank,
        alpha=method.alpha,
        dropout=method.dropout,
        target_modules="all-linear" if targets == "all-linear" else tuple(targets),
        layers="all" if method.layers == "all" else method.layers.top,
    )


def tasks_of(recipe: Recipe) -> list[Task]:
    """The recipe's tasks."""
    return [
        Task(
            name=task.name,
            scorer=task.scorer,
            max_tokens=task.max_tokens,
            answer_after=task.answer_after,
            fields=getattr(task, "fields", None),  # json_fields alone has them
        )
        for task in recipe.evaluation.tasks
    ]
