"""Scores a run: base and tuned model on the same held-out rows, in scores.json and samples.jsonl.

The tuned model is opened anew from the run's ``adapter/``, so that what is scored is what is handed on. The base's
scores are kept in the cache under all that they depend on, since every iteration on a task asks for them again.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlxtune.adapters.open import attach_adapter
from mlxtune.cache import cache_folder
from mlxtune.data.normalize import read_examples
from mlxtune.device.choose import Device, open_device
from mlxtune.device.workers import start_workers
from mlxtune.errors import RunError, UsageError
from mlxtune.evaluation.score import Scores, score_model
from mlxtune.evaluation.statistics import CONFIDENCE, Interval
from mlxtune.evaluation.table import ComparisonRow, compare
from mlxtune.files import sha256_of, write_json, write_text
from mlxtune.iteration.card import write_card
from mlxtune.iteration.opening import find_recipe_model, open_split, tasks_of
from mlxtune.models.load import Model, open_model
from mlxtune.models.source import ModelFolder, find_model
from mlxtune.progress import Progress, silent
from mlxtune.recipe.load import load_recipe
from mlxtune.recipe.schema import Recipe
from mlxtune.runs.folder import RunFolder
from mlxtune.runs.manifest import versions

BOOTSTRAP_SEED = 0


def score_run(
    run: RunFolder, *, device: Device | None = None, force: bool = False, progress: Progress = silent
) -> dict[str, Any]:
    """The content of a run's scores.json, which is made where it is missing or not current.

    The test split is scored; without one the validation split is, and ``split`` says so: it chose the checkpoint, so
    it flatters the tuned model.

    Args:
        device: already opened, or None to choose one.
        force: score again in any case.

    Raises: RunError, if the run has no adapter yet; UsageError, if its recipe names no held-out data.
    """
    recipe = load_recipe(run.resolved).recipe
    split = "test" if recipe.data.test is not None else "valid"
    path = getattr(recipe.data, split)
    if path is None:
        remedy = "add data.test or data.valid to the recipe; `mlxtune data split` makes them from one file"
        raise UsageError(
            "the recipe names no held-out data, so there is nothing to score on", where=run.resolved, remedy=remedy
        )
    if not run.adapter.exists():
        raise RunError(
            "the run has no adapter yet", where=run.path, remedy=f"finish it: mlxtune train --resume {run.path}"
        )
    device = device or open_device()
    folder = find_recipe_model(recipe, progress=progress)
    basis = {
        "split": split,
        "adapter_sha256": sha256_of(run.adapter / "adapters.safetensors"),
        **_basis(recipe, folder, Path(path), device),
    }
    if not force and run.scores.exists():
        current = json.loads(run.scores.read_text(encoding="utf-8"))
        if current["basis"] == basis:
            return current
    base = _base_scores(recipe, folder, Path(path), device, progress=_named("base", progress))
    model = open_model(folder.path, device.precision)
    attach_adapter(model.network, run.adapter)
    tuned = _score(recipe, model, Path(path), device, progress=_named("tuned", progress))
    content = {
        "split": split,
        "rows": base.metrics["loss"].count,
        "confidence": CONFIDENCE,
        "base": {name: asdict(interval) for name, interval in base.metrics.items()},
        "tuned": {name: asdict(interval) for name, interval in tuned.metrics.items()},
        "basis": basis,
        "versions": versions(),
    }
    samples = [
        {
            "task": ours["task"],
            "where": ours["where"],
            "reference": ours["reference"],
            **{f"{name}": sample["output"] for name, sample in (("base", theirs), ("tuned", ours))},
            "scores": {"base": theirs["scores"], "tuned": ours["scores"]},
        }
        for theirs, ours in zip(base.samples, tuned.samples, strict=True)
    ]
    write_text(run.samples, "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples))
    write_json(run.scores, content)
    write_card(run, recipe, content)
    return content


def score_model_on(
    source: str, recipe: Recipe, data: Path, *, device: Device | None = None, progress: Progress = silent
) -> Scores:
    """The scores of a model as it is, on ``data``, rendered and asked as ``recipe`` says; kept in the cache."""
    device = device or open_device()
    return _base_scores(recipe, find_model(source, progress=progress), data, device, progress=progress)


def comparison(scores: dict[str, Any]) -> list[ComparisonRow]:
    """scores.json as the rows of the before/after table."""
    base, tuned = (
        {name: Interval(**interval) for name, interval in scores[model].items()} for model in ("base", "tuned")
    )
    return compare(base, tuned)


def _basis(recipe: Recipe, folder: ModelFolder, data: Path, device: Device) -> dict[str, Any]:
    """All that a model's scores depend on."""
    return {
        "model_sha256": folder.sha256,
        "data_sha256": sha256_of(data),
        "data": recipe.data.model_dump(mode="json", exclude={"train", "valid", "test"}),
        "tasks": [task.model_dump(mode="json") for task in recipe.evaluation.tasks],
        "precision": device.precision.name,
        "mlxtune": versions()["mlxtune"],
        "mlx": versions()["mlx"],
    }


def _base_scores(recipe: Recipe, folder: ModelFolder, data: Path, device: Device, *, progress: Progress) -> Scores:
    basis = json.dumps(_basis(recipe, folder, data, device), sort_keys=True)
    kept = cache_folder("scores") / f"{hashlib.sha256(basis.encode()).hexdigest()[:32]}.json"
    if kept.exists():
        return Scores.from_json(json.loads(kept.read_text(encoding="utf-8")))
    scores = _score(recipe, open_model(folder.path, device.precision), data, device, progress=progress)
    write_json(kept, scores.to_json())
    return scores


def _score(recipe: Recipe, model: Model, data: Path, device: Device, *, progress: Progress) -> Scores:
    rendered = open_split(recipe, model, data).rows
    kept = {row.where for row in rendered}
    examples = [example for example in read_examples(data, recipe.data.format) if example.where in kept]
    tasks = tasks_of(recipe)
    with start_workers(device.workers) as workers:
        return score_model(model, rendered, examples, tasks, seed=BOOTSTRAP_SEED, workers=workers, progress=progress)


def _named(name: str, progress: Progress) -> Progress:
    return lambda what, done, total: progress(f"score {name}, {what}", done, total)
