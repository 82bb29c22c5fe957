"""Scores on held-out rows: of a run, base and tuned model side by side, and of any model.

The tuned model is opened anew from the run's ``adapter/``, so that what is scored is what is handed on. The scores of a
model without adapter are kept in the cache under all that they depend on, since every iteration on a task asks for the
base's again.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mlxtune.adapters.open import attach_adapter
from mlxtune.cache import cache_folder
from mlxtune.data.forms.template import hash_of_files
from mlxtune.data.reading.locations import is_remote
from mlxtune.data.source import Source, find_source, hash_of, stream_of
from mlxtune.device.choose import Device, open_device
from mlxtune.errors import DataError, UsageError
from mlxtune.evaluation.score import Scores, score_model
from mlxtune.evaluation.statistics import CONFIDENCE, Interval
from mlxtune.files import sha256_of, write_json, write_text
from mlxtune.iteration.card import write_card
from mlxtune.iteration.opening import find_base, held_out, render_split, source_of, tasks_of
from mlxtune.models.chat_template import FILE, chat_template_sha256
from mlxtune.models.load import Model, open_model, precision_to_ask, read_config
from mlxtune.models.source import ModelFolder, find_model
from mlxtune.offline import network_off
from mlxtune.progress import Progress, silent
from mlxtune.recipe.load import LoadedRecipe, load_recipe
from mlxtune.recipe.schema import DataSettings, EvaluationSettings, Recipe
from mlxtune.runs.folder import RunFolder, is_run_folder, lock, open_run
from mlxtune.runs.manifest import versions

SHORTEST_CONTEXT = 512
"""Tokens that a row may have for a model whose config names no limit."""


@dataclass(frozen=True)
class HeldOutRows:
    """What a model is scored on: rows, how they are rendered, and what is asked of them."""

    source: Source
    data: DataSettings
    evaluation: EvaluationSettings

    def basis(self) -> dict[str, Any]:
        """All of it that scores depend on."""
        return {
            "data_sha256": hash_of(self.source),
            "data": self.data.model_dump(mode="json", exclude={"train", "valid", "test", "chat_template"}),
            "data_template": hash_of_files(self.source.shape.template),
            "chat_template": chat_template_sha256(self.data.chat_template),
            "tasks": [task.model_dump(mode="json") for task in self.evaluation.tasks],
        }


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
        data: for a model, instead: a JSONL file, read with a recipe's defaults, and rows as long as the model takes.
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
        with network_off(when=load_recipe(run.resolved).recipe.offline), lock(run):
            return score_run(run, device=open_device(device), force=force, progress=progress)
    source = str(run_or_model)
    if (recipe is None) == (data is None):
        raise UsageError(
            "one of a recipe and a data file has to say what a model is scored on",
            where=source,
            remedy="give --recipe RECIPE or --data FILE",
        )
    if recipe is not None and not isinstance(recipe, LoadedRecipe):
        recipe = load_recipe(recipe)
    with network_off(when=recipe is not None and recipe.recipe.offline):
        return _evaluate_model(source, recipe, data, device=device, force=force, progress=progress)


def _evaluate_model(
    source: str,
    recipe: LoadedRecipe | None,
    data: str | Path | None,
    *,
    device: str,
    force: bool,
    progress: Progress,
) -> dict[str, Any]:
    """`evaluate` for a model, with either a recipe or data."""
    rows = None if recipe is None else _rows_of_recipe(recipe)
    held = None if data is None else _present([str(data)], lambda: find_source([(str(data), 1.0)], "test"))
    chosen = open_device(device)
    folder = find_model(source, progress=progress)
    chosen = replace(chosen, precision=precision_to_ask(folder.path, chosen.precision))
    if rows is None:
        assert held is not None
        longest = read_config(folder.path).get("max_position_embeddings", SHORTEST_CONTEXT)
        rows = HeldOutRows(held, _any_rows(longest), EvaluationSettings())
    found = _scores_as_it_is(rows, folder, chosen, force=force, progress=progress)
    return {
        "model": source,
        "data": str(rows.source.path),
        "rows": found.metrics["loss"].count,
        "confidence": CONFIDENCE,
        "metrics": _plain(found.metrics),
        "versions": versions(),
    }


def _rows_of_recipe(loaded: LoadedRecipe) -> HeldOutRows:
    source = _held_out_source(loaded.recipe, _held_out_split(loaded.recipe, loaded.path))
    return HeldOutRows(source, loaded.recipe.data, loaded.recipe.evaluation)


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
    split = _held_out_split(recipe, run.resolved)
    source = _held_out_source(recipe, split, run.read_manifest()["inputs"].get("data_commits"))
    adapter = run.finished_adapter()
    rows = HeldOutRows(source, recipe.data, recipe.evaluation)
    if (template := adapter / FILE).is_file():  # the recipe's may have changed since
        rows = replace(rows, data=recipe.data.model_copy(update={"chat_template": template}))
    folder = base or find_base(run, progress=progress)
    basis = {
        "split": split,
        "adapter_sha256": sha256_of(adapter / "adapters.safetensors"),
        **_basis(rows, folder, device),
    }
    current = run.read_scores()
    if current is not None and current["basis"] == basis and not force:
        return current
    before = _scores_as_it_is(rows, folder, device, force=force, progress=_named("base", progress))
    model = open_model(folder.path, device.precision, rows.data.chat_template)
    attach_adapter(model.network, adapter)
    tuned = _score(rows, model, progress=_named("tuned", progress))
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


def _held_out_split(recipe: Recipe, where: Path) -> str:
    if (split := held_out(recipe)) is None:
        raise UsageError(
            "the recipe names no held-out data, so there is nothing to score on",
            where=where,
            remedy="add data.test or data.valid to the recipe; `mlxtune data split` makes them from one file",
        )
    return split


def _present(places: Sequence[str], find: Callable[[], Source]) -> Source:
    """What ``find`` finds. Raises: DataError, if any of the ``places`` that it looks at is not there."""
    for place in places:
        if not is_remote(place) and not Path(place).exists():
            remedy = "name rows that are there, or put these back; what was scored before is in a run's scores.json"
            raise DataError("the held-out rows are not there", where=place, remedy=remedy)
    return find()


def _held_out_source(recipe: Recipe, split: str, commits: Mapping[str, str] | None = None) -> Source:
    places = [file.path for file in getattr(recipe.data, split)]
    return _present(places, lambda: source_of(recipe.data, split, commits=commits))


def _any_rows(longest: int) -> DataSettings:
    """How rows are read that no recipe speaks of; the place of training data is never looked at."""
    return DataSettings.model_validate({"train": "-", "max_seq_length": longest})


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


def _basis(rows: HeldOutRows, folder: ModelFolder, device: Device) -> dict[str, Any]:
    """All that a model's scores depend on."""
    return {
        "model_sha256": folder.sha256,
        **rows.basis(),
        "precision": device.precision.name,
        "mlxtune": versions()["mlxtune"],
        "mlx": versions()["mlx"],
    }


def _scores_as_it_is(
    rows: HeldOutRows, folder: ModelFolder, device: Device, *, force: bool, progress: Progress
) -> Scores:
    """The scores of a model without adapter: those kept in the cache, or new ones."""
    basis = json.dumps(_basis(rows, folder, device), sort_keys=True)
    kept = cache_folder("scores") / f"{hashlib.sha256(basis.encode()).hexdigest()[:32]}.json"
    if kept.exists() and not force:
        try:
            return Scores.from_json(json.loads(kept.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError):
            pass  # damaged; a cache's entry can be made anew
    model = open_model(folder.path, device.precision, rows.data.chat_template)
    scores = _score(rows, model, progress=progress)
    write_json(kept, scores.to_json())
    return scores


def _score(rows: HeldOutRows, model: Model, *, progress: Progress) -> Scores:
    dataset = render_split(rows.data, stream_of(rows.source), model, rows.source.path, progress=progress)
    tasks = tasks_of(rows.evaluation)
    return score_model(model, dataset.rows, list(dataset.examples()), tasks, progress=progress)


def _plain(metrics: Mapping[str, Interval]) -> dict[str, Any]:
    return {name: asdict(interval) for name, interval in metrics.items()}


def _named(name: str, progress: Progress) -> Progress:
    return lambda what, done, total: progress(f"score {name}, {what}", done, total)
