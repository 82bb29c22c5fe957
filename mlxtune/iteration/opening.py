"""Opens all that a recipe or a run names: the device, the model, every data file; nothing is written but the cache.

And says the recipe in the plain values that the floors below take: a training plan, an adapter's shape, tasks.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxtune.adapters.attach import LoraShape
from mlxtune.adapters.format import hash_of_adapter
from mlxtune.data.dataset import Dataset, render_examples
from mlxtune.data.normalize import Example, read_examples
from mlxtune.data.order import BatchOrder, BatchSize, batch_order
from mlxtune.data.render import Rendered
from mlxtune.device.choose import Device, open_device
from mlxtune.errors import RunError
from mlxtune.evaluation.tasks import Task, check_task
from mlxtune.files import sha256_of
from mlxtune.models.load import Model, open_model
from mlxtune.models.source import ModelFolder, find_model
from mlxtune.progress import Progress, silent
from mlxtune.recipe.load import load_recipe
from mlxtune.recipe.schema import DataSettings, EvaluationSettings, Recipe
from mlxtune.runs.folder import RunFolder, is_run_folder, open_run
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
    start_base: str | None = None
    """What the adapter that training starts from calls its base, if there is one and it says so."""

    def inputs(self) -> dict[str, Any]:
        """What the result depends on besides the recipe: a resumed run must have the same."""
        start = {}
        if (adapter := self.recipe.model.adapter) is not None:
            start["adapter"] = {"source": str(adapter), "sha256": hash_of_adapter(adapter_folder(adapter))}
        return {
            "model": {
                "source": self.recipe.model.source,
                "revision": self.folder.revision,
                "sha256": self.folder.sha256,
            },
            **start,
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


def open_recipe(
    recipe: Recipe, *, device: str = "auto", revision: str | None = None, progress: Progress = silent
) -> Opened:
    """Open the device, the model and every data file that a recipe names; nothing is written but the cache.

    Args:
        revision: of a model from the hub, the commit that a run to be resumed began with.

    Raises: MlxtuneError, in its kinds, for all that cannot be opened, rows that cannot be trained on, and held-out rows
        of which the recipe's tasks cannot be asked: after hours of training it would be late to learn of them.
    """
    chosen = open_device(device)
    paths = {split: getattr(recipe.data, split) for split in SPLITS if getattr(recipe.data, split) is not None}
    examples = {split: read_examples(path, recipe.data.format) for split, path in paths.items()}  # before any download
    folder = find_recipe_model(recipe, revision=revision, progress=progress)
    model = open_model(folder.path, chosen.precision, recipe.data.chat_template)
    datasets = {
        split: render_split(recipe.data, examples[split], model, path, progress=progress)
        for split, path in paths.items()
    }
    split, path = held_out(recipe)
    if path is not None:
        for task in tasks_of(recipe.evaluation):
            check_task(model.tokenizer, datasets[split].examples, task, path=path)
    return Opened(recipe, chosen, folder, model, datasets)


def held_out(recipe: Recipe) -> tuple[str, Path | None]:
    """The split that is scored, and its file if there is one: test, and without it valid."""
    if recipe.data.test is not None:
        return "test", recipe.data.test
    return "valid", recipe.data.valid


def find_base(run: RunFolder, *, progress: Progress = silent) -> ModelFolder:
    """The folder of the model that a run was trained on.

    Raises: RunError, if what is there now is another model than it was; ModelError, if it is gone.
    """
    model = run.read_manifest()["inputs"]["model"]
    folder = find_recipe_model(load_recipe(run.resolved).recipe, revision=model.get("revision"), progress=progress)
    if folder.sha256 != model["sha256"]:
        raise RunError(
            "the base model is not the one that this run was trained on: its hash differs",
            where=folder.path,
            remedy="put the old model back; an adapter on another base gives another model",
        )
    return folder


def adapter_folder(adapter: Path) -> Path:
    """The adapter folder that ``model.adapter`` means. Raises: RunError, for a run that has none yet."""
    return open_run(adapter).finished_adapter() if is_run_folder(adapter) else adapter


def find_recipe_model(recipe: Recipe, *, revision: str | None = None, progress: Progress = silent) -> ModelFolder:
    """The folder of the model that a recipe names, converted as it says; of the hub's, the commit ``revision``."""
    quantize = recipe.model.quantize
    pair = None if quantize is None else (quantize.bits, quantize.group_size)
    return find_model(recipe.model.source, quantize=pair, revision=revision, progress=progress)


def chat_template_hash(tokenizer: Any) -> str | None:
    """The SHA-256 of a tokenizer's chat template; None without one."""
    template = tokenizer.chat_template
    return hashlib.sha256(str(template).encode()).hexdigest() if template else None


def render_split(
    settings: DataSettings, examples: Sequence[Example], model: Model, path: Path, *, progress: Progress = silent
) -> Dataset:
    """One data file's examples, rendered as the recipe says."""
    return render_examples(
        examples,
        model.tokenizer,
        path=path,
        train_on=settings.train_on,
        max_seq_length=settings.max_seq_length,
        overflow=settings.overflow,
        tokenizer_folder=model.folder,
        progress=progress,
    )


def make_order(recipe: Recipe, rows: Sequence[Rendered], *, share_prefix: bool) -> BatchOrder:
    """How the training rows are gone through."""
    size = BatchSize(rows=recipe.training.batch_size, tokens=recipe.training.batch_tokens)
    return batch_order(rows, size, seed=recipe.seed, share_prefix=share_prefix)


def make_plan(recipe: Recipe, order: BatchOrder, *, validates: bool) -> Plan:
    """What the training loop needs of a recipe."""
    training = recipe.training
    limits = [] if training.max_steps is None else [training.max_steps]
    if training.epochs is not None:
        batches = [order.count_batches(epoch) for epoch in range(training.epochs)]
        limits.append(sum(math.ceil(count / training.gradient_accumulation_steps) for count in batches))
    return Plan(
        seed=recipe.seed,
        total_steps=min(limits, default=None),
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


def tasks_of(evaluation: EvaluationSettings) -> list[Task]:
    """A recipe's tasks."""
    return [
        Task(
            name=task.name,
            scorer=task.scorer,
            max_tokens=task.max_tokens,
            answer_after=task.answer_after,
            fields=getattr(task, "fields", None),  # json_fields alone has them
        )
        for task in evaluation.tasks
    ]
