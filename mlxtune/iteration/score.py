"""Scores on held-out rows: of a run, base and tuned model side by side, and of any model.

The tuned model is opened anew from the run's ``adapter/``, so that what is scored is what is handed on. The scores of a
model without adapter are kept in the cache under all that they depend on, since every iteration on a task asks for the
base's again.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlxtune.adapters.open import attach_adapter
from mlxtune.cache import cache_folder
from mlxtune.device.choose import Device, open_device
from mlxtune.device.workers import start_workers
from mlxtune.errors import DataError, UsageError
from mlxtune.evaluation.score import Scores, score_model
from mlxtune.evaluation.statistics import CONFIDENCE, Interval
from mlxtune.files import sha256_of, write_json, write_text
from mlxtune.iteration.card import write_card
from mlxtune.iteration.opening import examples_of, find_base, held_out, open_split, tasks_of
from mlxtune.models.load import Model, open_model
from mlxtune.models.source import ModelFolder, find_model
from mlxtune.progress import Progress, silent
from mlxtune.recipe.load import LoadedRecipe, load_recipe
from mlxtune.recipe.schema import DataSettings, ModelSettings, Recipe
from mlxtune.runs.folder import RunFolder, is_run_folder, lock, open_run
from mlxtune.runs.manifest import versions

BOOTSTRAP_SEED = 0


def evaluate(
    run_or_model: str | Path,
    *,
    recipe: LoadedRecipe | str | Path | None = None,
    data: str | Path | None = None,
    device: str = "auto",
    force: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Score a run beside its base, or a model, on rows that it was not trained on.

    A run is scored on its own recipe's test split; without one on the validation split, and ``split`` says so: it
    chose the checkpoint, so it flatters the tuned model.

    Args:
        recipe: for a model: the recipe whose held-out split and tasks it is scored on.
        data: for a model, instead: a JSONL file, for which a recipe's defaults hold.
        force: score again, though what was scored before is current.

    Returns: for a run what scores.json holds: ``base`` and ``tuned``, each metric with its interval; for a model
        ``metrics`` instead.
    Raises: UsageError, if there is nothing to score on, or too much; RunError, if the run has no adapter yet, another
        base, or another process in it; DataError; ModelError.
    """
    if is_run_folder(Path(run_or_model)):
        if recipe is not None or data is not None:
            raise UsageError(
                "a run is scored on its own recipe's rows", where=run_or_model, remedy="leave out --recipe and --data"
            )
        run = open_run(Path(run_or_model))
        with lock(run):
            return score_run(run, device=open_device(device), force=force, progress=progress)
    source = str(run_or_model)
    settings, rows = _rows_for_model(source, recipe, data)
    chosen = open_device(device)
    found = _scores_as_it_is(
        settings, find_model(source, progress=progress), rows, chosen, force=force, progress=progress
    )
    return {
        "model": source,
        "data": str(rows),
        "rows": found.metrics["loss"].count,
        "confidence": CONFIDENCE,
        "metrics": _plain(found.metrics),
        "versions": versions(),
    }


def _rows_for_model(
    source: str, recipe: LoadedRecipe | str | Path | None, data: str | Path | None
) -> tuple[Recipe, Path]:
    """The settings under which a model is scored, and the rows."""
    if (recipe is None) == (data is None):
        raise UsageError(
            "one of a recipe and a data file has to say what a model is scored on",
            where=source,
            remedy="give --recipe RECIPE or --data FILE",
        )
    if data is not None:
        path = _present(Path(data))
        return Recipe(name="evaluate", model=ModelSettings(source=source), data=DataSettings(train=path)), path
    loaded = recipe if isinstance(recipe, LoadedRecipe) else load_recipe(recipe or "")
    return loaded.recipe, _held_out_path(loaded.recipe, loaded.path)[1]


def score_run(
    run: RunFolder,
    *,
    device: Device,
    base: ModelFolder | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """The content of a run's scores.json, which is made where it is missing or not current; the caller has the lock.

    Args:
        base: the folder of the model that the run was trained on, where that is known already.

    Raises: as `evaluate`.
    """
    recipe = load_recipe(run.resolved).recipe
    split, path = _held_out_path(recipe, run.resolved)
    adapter = run.finished_adapter()
    folder = base or find_base(run, progress=progress)
    basis = {
        "split": split,
        "adapter_sha256": sha256_of(adapter / "adapters.safetensors"),
        **_basis(recipe, folder, path, device),
    }
    current = run.read_scores()
    if current is not None and current["basis"] == basis and not force:
        return current
    before = _scores_as_it_is(recipe, folder, path, device, force=force, progress=_named("base", progress))
    model = open_model(folder.path, device.precision)
    attach_adapter(model.network, adapter)
    tuned = _score(recipe, model, path, device, progress=_named("tuned", progress))
    content = {
        "split": split,
        "rows": before.metrics["loss"].count,
        "confidence": CONFIDENCE,
        "base": _plain(before.metrics),
        "tuned": _plain(tuned.metrics),
        "basis": basis,
        "versions": versions(),
    }
    samples = _side_by_side(before.samples, tuned.samples)
    write_text(run.samples, "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples))
    write_json(run.scores, content)
    write_card(run, recipe, content)
    return content


def _held_out_path(recipe: Recipe, where: Path) -> tuple[str, Path]:
    split, path = held_out(recipe)
    if path is None:
        raise UsageError(
            "the recipe names no held-out data, so there is nothing to score on",
            where=where,
            remedy="add data.test or data.valid to the recipe; `mlxtune data split` makes them from one file",
        )
    return split, _present(path)


def _present(data: Path) -> Path:
    if not data.is_file():
        remedy = "name a JSONL file, or put it back; what was scored before is in a run's scores.json"
        raise DataError("the held-out rows are not there", where=data, remedy=remedy)
    return data


def _side_by_side(base: Sequence[Mapping[str, Any]], tuned: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Both models' answers to each row."""
    return [
        {
            "task": ours["task"],
            "where": ours["where"],
            "reference": ours["reference"],
            "base": theirs["output"],
            "tuned": ours["output"],
            "scores": {"base": theirs["scores"], "tuned": ours["scores"]},
        }
        for theirs, ours in zip(base, tuned, strict=True)
    ]


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


def _scores_as_it_is(
    recipe: Recipe, folder: ModelFolder, data: Path, device: Device, *, force: bool, progress: Progress
) -> Scores:
    """The scores of a model without adapter: those kept in the cache, or new ones."""
    basis = json.dumps(_basis(recipe, folder, data, device), sort_keys=True)
    kept = cache_folder("scores") / f"{hashlib.sha256(basis.encode()).hexdigest()[:32]}.json"
    if kept.exists() and not force:
        try:
            return Scores.from_json(json.loads(kept.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError):
            pass  # damaged; a cache's entry can be made anew
    scores = _score(recipe, open_model(folder.path, device.precision), data, device, progress=progress)
    write_json(kept, scores.to_json())
    return scores


def _score(recipe: Recipe, model: Model, data: Path, device: Device, *, progress: Progress) -> Scores:
    dataset = open_split(recipe, model, data, progress=progress)
    examples, tasks = examples_of(recipe, data, dataset), tasks_of(recipe)
    with start_workers(device.workers) as workers:
        return score_model(
            model, dataset.rows, examples, tasks, seed=BOOTSTRAP_SEED, workers=workers, progress=progress
        )


def _plain(metrics: Mapping[str, Interval]) -> dict[str, Any]:
    return {name: asdict(interval) for name, interval in metrics.items()}


def _named(name: str, progress: Progress) -> Progress:
    return lambda what, done, total: progress(f"score {name}, {what}", done, total)
