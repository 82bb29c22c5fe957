"""One turn of the wheel: recipe to data, training, adapter and scores, in a run folder.

This is what ``mlxtune train`` calls. All that can be wrong with a recipe, a model or data is found before the folder is
made, so that a mistake leaves nothing behind.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxtune.adapters.attach import adapter_parameters, attach_lora, load_adapter_parameters
from mlxtune.adapters.format import save_adapter
from mlxtune.device.workers import start_workers
from mlxtune.evaluation.heldout import read_heldout
from mlxtune.files import new_folder, write_json
from mlxtune.inference.likelihood import make_reader
from mlxtune.iteration.opening import Opened, lora_shape, make_plan, open_recipe
from mlxtune.iteration.score import score_run
from mlxtune.progress import Progress, silent
from mlxtune.recipe.load import LoadedRecipe, load_recipe
from mlxtune.runs.folder import RunFolder, create_run, lock, open_run
from mlxtune.runs.manifest import make_manifest, refuse_changes
from mlxtune.runs.metrics import append_metrics, cut_metrics, read_metrics
from mlxtune.training.checkpoint import ADAPTER, load_checkpoint, newest_checkpoint, read_tensors, save_checkpoint
from mlxtune.training.loop import train
from mlxtune.training.objectives.sft import sft_loss_sum
from mlxtune.training.optimizer import make_optimizer
from mlxtune.training.plan import Plan
from mlxtune.training.state import TrainingState


@dataclass(frozen=True)
class Watch:
    """Who looks on while a run works: functions that are called, and one that is asked whether to stop."""

    progress: Progress = silent
    started: Callable[[RunFolder, Opened, Plan, TrainingState], None] = lambda *_: None
    measured: Callable[[dict[str, Any]], None] = lambda _line: None
    """Given each line of metrics.jsonl."""
    should_stop: Callable[[], bool] = lambda: False
    """Asked after each step; a run so stopped is saved and can be resumed."""


@dataclass(frozen=True)
class RunResult:
    """How a run ended. ``scores`` is None where there was nothing to score on, or it was not asked for."""

    run_dir: Path
    ended_by: str
    steps: int
    train_loss: float | None
    valid_loss: float | None
    seconds: float
    tokens: int
    target_tokens: int
    peak_memory_bytes: int
    trainable_parameters: int
    scores: dict[str, Any] | None = None

    @property
    def interrupted(self) -> bool:
        return self.ended_by == "stopped"


def run_recipe(
    recipe: LoadedRecipe | str | Path,
    overrides: Sequence[str] = (),
    *,
    device: str = "auto",
    run_dir: Path | None = None,
    score: bool = True,
    watch: Watch = Watch(),
) -> RunResult:
    """Train as a recipe says, in a new run folder, and score base and tuned model on its test split.

    Args:
        recipe: loaded, or a file, or the name of a packaged recipe.
        overrides: ``KEY=VALUE`` in the recipe's dotted keys.
        run_dir: the folder to make; else one below ``runs/``, named after the recipe and the time.
        score: whether to score at the end, where the recipe has a test split.

    Raises: MlxtuneError, in its kinds; before the folder is made for all that is wrong with recipe, model and data.
    """
    loaded = recipe if isinstance(recipe, LoadedRecipe) else load_recipe(recipe, overrides)
    opened = open_recipe(loaded.recipe, device=device, progress=watch.progress)
    run = create_run(
        loaded.recipe.name, run_dir=run_dir, recipe_text=loaded.text, resolved=loaded.recipe.model_dump(mode="json")
    )
    chosen = {
        "kind": opened.device.kind,
        "precision": opened.device.precision.name,
        "reason": opened.device.reason,
    }
    manifest = make_manifest(
        name=loaded.recipe.name, device=chosen, inputs=opened.inputs(), recipe_folder=loaded.path.parent
    )
    write_json(run.manifest, manifest | {"prompting": asdict(opened.prompting())})
    with lock(run):
        return _train_and_score(run, opened, score=score, watch=watch)


def resume_run(
    path: Path,
    recipe: LoadedRecipe | None = None,
    *,
    device: str = "auto",
    score: bool = True,
    watch: Watch = Watch(),
) -> RunResult:
    """Go on with a run from its newest checkpoint, or from step 0 if it was killed before the first.

    A finished run is left as it is; one that was trained but not scored is scored.

    Args:
        path: the run folder.
        recipe: what the user believes the run to be, if given: it must be the run's own.

    Raises: RunError, listing the differences, if the recipe, model, chat template or data are not what they were, and
        if another process is in the run.
    """
    run = open_run(path)
    resolved = load_recipe(run.resolved)
    if recipe is not None:
        refuse_changes(resolved.recipe.model_dump(mode="json"), recipe.recipe.model_dump(mode="json"), where=path)
    with lock(run):
        scored = run.scores.exists() or not score or resolved.recipe.data.test is None
        if run.is_finished and scored:
            return RunResult(run_dir=run.path, **run.read_manifest()["finished"])
        opened = open_recipe(resolved.recipe, device=device, progress=watch.progress)
        refuse_changes(run.read_manifest()["inputs"], opened.inputs(), where=path)
        return _train_and_score(run, opened, score=score, watch=watch)


def _train_and_score(run: RunFolder, opened: Opened, *, score: bool, watch: Watch) -> RunResult:
    recipe, model = opened.recipe, opened.model
    train_rows = opened.datasets["train"].rows
    valid = opened.datasets.get("valid")
    valid_rows = valid.rows if valid is not None else ()
    attach_lora(model.network, lora_shape(recipe), seed=recipe.seed)
    reader = make_reader(model.network)
    optimizer = make_optimizer(recipe.training.optimizer, weight_decay=recipe.training.weight_decay)
    optimizer.init(model.network.trainable_parameters())
    state = TrainingState(model.network, optimizer)
    plan = make_plan(recipe, rows=len(train_rows), validates=valid is not None)
    checkpoint = newest_checkpoint(run.checkpoints)
    if checkpoint is not None:
        load_checkpoint(state, checkpoint)
    cut_metrics(run.metrics, state.step)
    watch.started(run, opened, plan, state)

    def record(line: dict[str, Any]) -> None:
        append_metrics(run.metrics, line)
        watch.measured(line)

    def save() -> None:
        save_checkpoint(state, run.checkpoints, keep=recipe.checkpoint.keep)

    mx.reset_peak_memory()
    with start_workers(opened.device.workers) as workers:
        ended_by = train(
            state,
            plan,
            train_rows,
            lambda batch: sft_loss_sum(reader, batch),
            share_prefix=reader.shares_prefixes,
            workers=workers,
            record=record,
            validate=lambda: read_heldout(reader, model.tokenizer, valid_rows, workers=workers).loss,
            save=save,
            should_stop=watch.should_stop,
        )
    result = _result(run, state, ended_by)
    if result.interrupted:
        return result
    _write_adapter(run, opened, state)
    finished = asdict(result)
    del finished["run_dir"], finished["scores"]
    run.update_manifest(finished=finished)
    if not score or "test" not in opened.datasets:
        return result
    scores = score_run(run, device=opened.device, progress=watch.progress)
    return replace(result, scores=scores)


def _result(run: RunFolder, state: TrainingState, ended_by: str) -> RunResult:
    lines = read_metrics(run.metrics)
    losses = [line["loss"] for line in lines if "loss" in line]
    return RunResult(
        run_dir=run.path,
        ended_by=ended_by,
        steps=state.step,
        train_loss=losses[-1] if losses else None,
        valid_loss=state.best_valid_loss,
        seconds=state.seconds,
        tokens=state.tokens,
        target_tokens=state.target_tokens,
        peak_memory_bytes=max((line["peak_memory_bytes"] for line in lines if "loss" in line), default=0),
        trainable_parameters=sum(array.size for array in adapter_parameters(state.network).values()),
    )


def _write_adapter(run: RunFolder, opened: Opened, state: TrainingState) -> None:
    """``adapter/``: the best by validation, else the last."""
    step = state.step
    if state.best_step is not None and state.best_step != state.step:
        step = state.best_step
        best = run.checkpoints / f"step_{step:06d}"
        load_adapter_parameters(state.network, read_tensors(best / ADAPTER))
    extra = {"step": step, "model_sha256": opened.folder.sha256, "train_on": opened.recipe.data.train_on}
    with new_folder(run.adapter, force=True) as part:
        save_adapter(
            state.network,
            part,
            shape=lora_shape(opened.recipe),
            base_model=str(opened.folder.path),
            extra={"mlxtune": extra},
        )
