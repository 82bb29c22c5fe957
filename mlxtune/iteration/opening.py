"""Opens all that a recipe or a run names: the device, the model, every data file; nothing is written but the cache.

And says the recipe in the plain values that the floors below take: a training plan, an adapter's shape, tasks.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mlxtune.adapters.format import hash_of_adapter
from mlxtune.adapters.full import FullShape
from mlxtune.adapters.shape import LoraShape
from mlxtune.data.dataset import Dataset, check_beginning, render_examples
from mlxtune.data.example import Example
from mlxtune.data.forms.template import hash_of_files
from mlxtune.data.normalize import Shape
from mlxtune.data.order import BatchOrder, BatchSize, batch_order
from mlxtune.data.pairs import SIDES, Pairs
from mlxtune.data.read import Record, read_stream
from mlxtune.data.render import Rendered
from mlxtune.data.source import Source, find_source, hash_of, stream_of
from mlxtune.data.store.census import Stream
from mlxtune.data.store.rows import take_rows
from mlxtune.device.choose import Device, open_device
from mlxtune.device.precision import Precision
from mlxtune.errors import DataError, RunError
from mlxtune.evaluation.forgetting.ask import check_probe
from mlxtune.evaluation.tasks import Task, check_task
from mlxtune.iteration.labels import settle_labels
from mlxtune.models.chat_template import ChatTemplate
from mlxtune.models.load import Model, open_model
from mlxtune.models.source import ModelFolder, find_model
from mlxtune.offline import network_off
from mlxtune.progress import Progress, silent
from mlxtune.recipe.choices import TrainOn
from mlxtune.recipe.load import load_recipe
from mlxtune.recipe.method import FullSettings, LowRankSettings
from mlxtune.recipe.schema import DataSettings, EvaluationSettings, Recipe, ThrottleSettings
from mlxtune.recipe.tasks import AnswerTask, ChoiceTask, settings_of
from mlxtune.runs.folder import RunFolder, is_run_folder, open_run
from mlxtune.runs.prompting import Prompting
from mlxtune.training.objectives import OBJECTIVES
from mlxtune.training.objectives.objective import Objective
from mlxtune.training.plan import Plan
from mlxtune.training.throttle import Manners

SPLITS = ("train", "valid", "test")
LOOKED_AT = 200
"""Rows whose columns are named where the one that is wanted is not there."""


@dataclass(frozen=True)
class Opened:
    """All that a recipe names, opened and found good."""

    recipe: Recipe
    device: Device
    folder: ModelFolder
    model: Model
    sources: dict[str, Source]
    datasets: dict[str, Dataset]
    start_base: str | None = None
    """What the adapter that training starts from calls its base, if there is one and it says so."""

    def inputs(self) -> dict[str, Any]:
        """What the result depends on besides the recipe: a resumed run must have the same."""
        start = {}
        commits = {place: commit for source in self.sources.values() for place, commit in source.commits.items()}
        templates = hash_of_files(shape_of(self.recipe.data).template)
        if (adapter := self.recipe.model.adapter) is not None:
            start["adapter"] = {"source": str(adapter), "sha256": hash_of_adapter(adapter_folder(adapter))}
        return {
            "model": {
                "source": self.recipe.model.source,
                "revision": self.folder.revision,
                "sha256": self.folder.sha256,
            },
            **start,
            "data": {split: hash_of(source) for split, source in self.sources.items()} | self._replay_input(),
            **({"data_commits": commits} if commits else {}),
            **({"data_template": templates} if templates else {}),
            "chat_template": chat_template_hash(self.model.tokenizer),
            "train_on": self.recipe.data.train_on,
            "precision": self.device.precision.name,
        }

    def _replay_input(self) -> dict[str, str]:
        """The hash of replay, beside that of all training rows, so that it is named where it has changed."""
        replay = self.sources["train"].replay
        return {} if replay is None else {"replay": hash_of(replay)}

    def prompting(self) -> Prompting:
        """How the tuned model wants its prompts: as the training rows have them."""
        train = self.datasets["train"]
        without_template = train.report.kind == "prompt_completion" and not self.model.tokenizer.has_chat_template
        raw = train.report.kind == "text" or without_template
        return Prompting(raw, train.system, train.thinks)


def open_recipe(
    recipe: Recipe,
    *,
    device: str = "auto",
    revision: str | None = None,
    commits: Mapping[str, str] | None = None,
    open_network: Callable[[Path, Precision, ChatTemplate | None], Model] = open_model,
    progress: Progress = silent,
) -> Opened:
    """Open the device, the model and every data file that a recipe names; nothing is written but the cache.

    Args:
        revision: of a model from the hub, the commit that a run to be resumed began with.
        commits: of data sets from the hub, the same.
        open_network: opens the model's folder; `open_unread` where its weights are only to be counted.

    Raises: MlxtuneError, in its kinds, for all that cannot be opened, rows that cannot be trained on, and held-out rows
        of which the recipe's tasks cannot be asked: after hours of training it would be late to learn of them.
    """
    chosen = open_device(device)
    sources = {
        split: source_of(recipe.data, split, keep=kept_columns(recipe), commits=commits, progress=progress)
        for split in splits_of(recipe.data)
    }
    streams = {split: stream_of(source) for split, source in sources.items()}
    pairs = pairs_of(recipe)
    for split, stream in streams.items():  # before a model is fetched
        check_beginning(stream, sources[split].path, pairs=pairs)
    _check_groups(recipe, streams, sources)
    recipe = settle_labels(recipe, sources["train"])
    folder = find_recipe_model(recipe, revision=revision, progress=progress)
    model = open_network(folder.path, chosen.precision, recipe.data.chat_template)
    datasets = {
        split: render_split(recipe.data, streams[split], model, source.path, pairs=pairs, progress=progress)
        for split, source in sources.items()
    }
    if (split := held_out(recipe)) is not None:
        if recipe.evaluation.forgetting:
            check_probe(model.tokenizer)
        for task in tasks_of(recipe.evaluation):
            check_task(model.tokenizer, datasets[split].examples(), task, path=sources[split].path)
    return Opened(recipe, chosen, folder, model, sources, datasets)


def splits_of(data: DataSettings) -> list[str]:
    """The splits that a recipe has data for."""
    return [split for split in SPLITS if getattr(data, split) is not None]


def held_out(recipe: Recipe) -> str | None:
    """The split that is scored: test, without it valid; None without both."""
    return next((split for split in ("test", "valid") if split in splits_of(recipe.data)), None)


def kept_columns(recipe: Recipe) -> tuple[str, ...]:
    """The columns of a row that no prompt has and its scoring needs (`Example.kept`)."""
    group_by = recipe.evaluation.group_by
    columns = [] if group_by is None else [group_by]
    columns += [column for task in tasks_of(recipe.evaluation) for column in task.columns]
    return tuple(dict.fromkeys(columns))


def _check_groups(recipe: Recipe, streams: Mapping[str, Stream], sources: Mapping[str, Source]) -> None:
    """Find out whether held-out rows have the column that they are to be grouped by.

    Raises: DataError, if none has a value there, with the columns that there are.
    """
    column, split = recipe.evaluation.group_by, held_out(recipe)
    if column is None or split is None:
        return
    rows = (item for file in streams[split].files for item in file.open() if isinstance(item, Example))
    if any(row.kept.get(column) is not None for row in rows):
        return
    records = (record for path in sources[split].paths for record in read_stream(path) if isinstance(record, Record))
    there = dict.fromkeys(name for record in islice(records, LOOKED_AT) for name in record.fields)
    raise DataError(
        f"no held-out row has a value in {column!r} (evaluation.group_by)",
        where=sources[split].path,
        remedy=f"name one of the columns that there are: {', '.join(there)}",
    )


def source_of(
    data: DataSettings,
    split: str,
    *,
    keep: tuple[str, ...] = (),
    commits: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> Source:
    """What a split that the recipe has is read from, and how; data sets of the hub are fetched if they are not cached.

    Of train that is all that is learned, replay included; ``own`` of it is without.

    Args:
        keep: `kept_columns`, where rows are to be scored.
        commits: as of `find_source`.

    Raises: as `find_source`.
    """
    places = [(file.path, file.weight) for file in getattr(data, split)]
    replay = None if split != "train" or data.replay is None else (data.replay.file, data.replay.share)
    shape = shape_of(data, keep=keep)
    return find_source(places, split, shape, replay=replay, commits=commits, progress=progress)


def shape_of(data: DataSettings, *, keep: tuple[str, ...] = ()) -> Shape:
    """How the rows are read, in plain values; ``keep`` as of `source_of`."""
    columns = None if data.columns is None else data.columns.model_dump(exclude_none=True)
    template = data.template
    if template is not None and not isinstance(template, str):
        template = template.model_dump(exclude_none=True)
    return Shape(data.format, columns, template, keep)


def find_base(run: RunFolder, *, progress: Progress = silent) -> ModelFolder:
    """The folder of the model that a run was trained on.

    Raises: RunError, if what is there now is another model than it was; ModelError, if it is gone.
    """
    model = run.read_manifest()["inputs"]["model"]
    recipe = load_recipe(run.resolved).recipe
    with network_off(when=recipe.offline):
        folder = find_recipe_model(recipe, revision=model.get("revision"), progress=progress)
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
    settings: DataSettings,
    examples: Iterable[Example] | Stream,
    model: Model,
    path: Path,
    *,
    pairs: Pairs = "refused",
    progress: Progress = silent,
) -> Dataset:
    """A split's examples, rendered as the recipe says."""
    folder = model.folder
    return render_rows(
        settings, examples, model.tokenizer, path, tokenizer_folder=folder, pairs=pairs, progress=progress
    )


def render_rows(
    settings: DataSettings,
    examples: Iterable[Example] | Stream,
    tokenizer: Any,
    path: Path,
    *,
    tokenizer_folder: Path,
    pairs: Pairs = "refused",
    progress: Progress = silent,
) -> Dataset:
    """`render_split`, for whoever has a tokenizer and no network."""
    return render_examples(
        examples,
        tokenizer,
        path=path,
        train_on=learned_of(settings, pairs=pairs),
        max_seq_length=settings.max_seq_length,
        overflow=settings.overflow,
        tokenizer_folder=tokenizer_folder,
        pairs=pairs,
        progress=progress,
    )


def learned_of(settings: DataSettings, *, pairs: Pairs) -> TrainOn:
    """Which answers of a row are targets; of a pair the last ones alone."""
    return "last_completion" if pairs == "both" else settings.train_on


def objective_of(recipe: Recipe) -> Objective:
    """What the recipe optimizes."""
    settings = recipe.objective.model_dump(exclude={"type", "rewards"})  # who judges is told to those who draw
    return OBJECTIVES[recipe.objective.type](**settings)


def pairs_of(recipe: Recipe) -> Pairs:
    """What preferences become for the recipe's objective."""
    return "both" if objective_of(recipe).pairs else "refused"


def make_order(recipe: Recipe, rows: Sequence[Rendered], *, share_prefix: bool) -> BatchOrder:
    """How the training rows, or pairs of them, are gone through."""
    if objective_of(recipe).pairs:
        rows = take_rows(rows, np.arange(0, len(rows), SIDES))
    size = BatchSize(rows=recipe.training.batch_size, tokens=recipe.training.batch_tokens)
    return batch_order(rows, size, seed=recipe.seed, share_prefix=share_prefix)


def make_plan(recipe: Recipe, order: BatchOrder, *, validates: bool) -> Plan:
    """What the training loop needs of a recipe."""
    training, drawing = recipe.training, objective_of(recipe).drawing
    updates = 1 if drawing is None else drawing.updates
    limits = [] if training.max_steps is None else [training.max_steps]
    if training.epochs is not None:
        batches = [order.count_batches(epoch) for epoch in range(training.epochs)]
        limits.append(updates * sum(math.ceil(count / training.gradient_accumulation_steps) for count in batches))
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
        updates_a_window=updates,
    )


def lora_shape(method: LowRankSettings) -> LoraShape:
    """A low-rank method, in the adapter's own terms."""
    targets = method.target_modules
    return LoraShape(
        rank=method.rank,
        alpha=method.alpha,
        dropout=method.dropout,
        target_modules="all-linear" if targets == "all-linear" else tuple(targets),
        layers=_blocks_of(method),
        use_rslora=method.use_rslora,
        use_dora=method.type == "dora",
        rank_pattern=method.rank_pattern,
        alpha_pattern=method.alpha_pattern,
        modules_to_save=method.modules_to_save,
    )


def full_shape(method: FullSettings) -> FullShape:
    """Full fine-tuning, in the weights' own terms."""
    return FullShape(layers=_blocks_of(method), train_embeddings=method.train_embeddings)


def _blocks_of(method: LowRankSettings | FullSettings) -> int | Literal["all"]:
    return "all" if method.layers == "all" else method.layers.top


def manners_of(settings: ThrottleSettings) -> Manners:
    """What the recipe heeds of the machine, in the throttle's own terms."""
    return Manners(**settings.model_dump())


def tasks_of(evaluation: EvaluationSettings) -> list[Task]:
    """A recipe's tasks."""
    return [
        Task(
            name=task.name,
            scorer=task.scorer,
            max_tokens=task.max_tokens if isinstance(task, AnswerTask) else 0,
            answer_after=task.answer_after,
            settings=settings_of(task),
            labels=tuple(label.strip() for label in task.labels or ()) if isinstance(task, ChoiceTask) else None,
        )
        for task in evaluation.tasks
    ]
