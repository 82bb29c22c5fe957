"""Scores on held-out rows: of a run, base and tuned model side by side and others beside them, and of any model.

The tuned model is opened anew from the run's ``adapter/``, so that what is scored is what is handed on. What is
current is shown and not made again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlxtune.device.choose import Device, open_device
from mlxtune.errors import UsageError
from mlxtune.evaluation.breakdown import row_facts
from mlxtune.evaluation.forgetting.probe import probe_sha256
from mlxtune.evaluation.statistics import CONFIDENCE
from mlxtune.files import sha256_of
from mlxtune.iteration.finish import conclude, is_concluded
from mlxtune.iteration.opening import find_base
from mlxtune.iteration.scoring.asking import context_of
from mlxtune.iteration.scoring.content import (
    add_rival,
    asked,
    plain,
    read_scored,
    run_scored,
    write_scored,
)
from mlxtune.iteration.scoring.forgetting import measure_forgetting
from mlxtune.iteration.scoring.one_model import model_basis, reader_of, tuned_scores, untuned_scores
from mlxtune.iteration.scoring.rivals import entry_of, find_rivals, make_questions, rival_scores
from mlxtune.iteration.scoring.rows import (
    HeldOutRows,
    any_rows,
    held_out_source,
    rows_of_recipe,
    source_of_file,
    split_to_score,
)
from mlxtune.models.chat_template import FILE
from mlxtune.models.load import precision_to_ask
from mlxtune.models.source import ModelFolder, find_model
from mlxtune.offline import network_off
from mlxtune.progress import Progress, silent
from mlxtune.recipe.load import LoadedRecipe, load_recipe
from mlxtune.recipe.schema import EvaluationSettings, Recipe
from mlxtune.runs.folder import RunFolder, is_run_folder, lock, open_run, weights_of
from mlxtune.runs.manifest import versions

SHORTEST_CONTEXT = 512
"""Tokens that a row may have for a model whose config names no limit."""
Note = Callable[[str], None]


def nobody(_sentence: str) -> None:
    """Whom notes are told, where nobody is to be."""


def evaluate(
    run_or_model: str | Path,
    *,
    recipe: LoadedRecipe | str | Path | None = None,
    data: str | Path | None = None,
    against: Sequence[str] = (),
    shots: Sequence[int] = (),
    device: str = "auto",
    force: bool = False,
    note: Note = nobody,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Score a run beside its base, or a model, on rows that it was not trained on; and other models on the same rows.

    A run is scored on its own recipe's test split; without one on the validation split, and ``split`` says so: it
    chose the checkpoint, so it flatters the tuned model.

    Args:
        recipe: for a model: the recipe whose held-out split and tasks it is scored on.
        data: for a model, instead: a JSONL file, read with a recipe's defaults, and rows as long as the model takes.
        against: models to set beside it, each asked the same rows in its own chat template.
        shots: how many rows of the training data to show each untuned model before each row it is asked, the run's
            base among them; several numbers give several rows of the table, 0 none shown.
        force: score again, though what was scored before is current.
        note: told, in sentences, what a reader of the table should know besides.

    Returns: for a run what scores.json holds: ``base`` and ``tuned``, each metric with its interval, ``differences``
        with their tests and verdicts, ``against``, and ``cost``; for a model ``metrics`` instead of the two.
    Raises: UsageError, if there is nothing to score on, or too much; RunError, if the run has no adapter yet, another
        base, or another process in it; DataError, also for rows that a model in ``against`` cannot be asked;
        ModelError; NetworkError.
    """
    rivals = ([str(source) for source in against], list(shots))
    if is_run_folder(Path(run_or_model)):
        if recipe is not None or data is not None:
            raise UsageError(
                "a run is scored on its own recipe's rows", where=run_or_model, remedy="leave out --recipe and --data"
            )
        run = open_run(Path(run_or_model))
        with network_off(when=load_recipe(run.resolved).recipe.offline), lock(run):
            return score_run(run, device=open_device(device), rivals=rivals, force=force, note=note, progress=progress)
    source = str(run_or_model)
    if (recipe is None) == (data is None):
        raise UsageError(
            "this is no run's folder, and for a model one of a recipe and a data file has to say what it is scored on",
            where=source,
            remedy="name a run's folder; or to score a model, give --recipe RECIPE or --data FILE",
        )
    if recipe is not None and not isinstance(recipe, LoadedRecipe):
        recipe = load_recipe(recipe)
    with network_off(when=recipe is not None and recipe.recipe.offline):
        return _evaluate_model(
            source, recipe, data, device=device, rivals=rivals, force=force, note=note, progress=progress
        )


def _evaluate_model(
    source: str,
    recipe: LoadedRecipe | None,
    data: str | Path | None,
    *,
    device: str,
    rivals: tuple[Sequence[str], Sequence[int]],
    force: bool,
    note: Note,
    progress: Progress,
) -> dict[str, Any]:
    """`evaluate` for a model, with either a recipe or data."""
    rows = None if recipe is None else rows_of_recipe(recipe)
    held = None if data is None else source_of_file(data)
    chosen = open_device(device)
    folder = find_model(source, progress=progress)
    others = find_rivals(*rivals, folder, source, taken={}, note=note, progress=progress)
    chosen = replace(chosen, precision=precision_to_ask(folder.path, chosen.precision))
    if rows is None:
        assert held is not None
        rows = HeldOutRows(held, any_rows(context_of(folder.path) or SHORTEST_CONTEXT), EvaluationSettings())
    read = reader_of(rows, folder, progress)
    questions = make_questions(rows, read(), others, folder, chosen) if others else []
    found = untuned_scores(rows, read, folder, chosen, force=force, progress=progress)
    entries = []
    for question in questions:
        label = question.rival.label
        theirs = rival_scores(question, rows, force=force, progress=named(label, progress))
        entries.append(entry_of(question, theirs, found.measured))
    return {
        "model": source,
        "data": str(rows.source.path),
        "rows": found.metrics["loss"].count,
        "confidence": CONFIDENCE,
        **asked(rows.tasks, found.measured),
        "metrics": plain(found),
        "calibration": found.calibration.summary(),
        "cost": found.cost.to_json(),
        "details": dict(found.details),
        "against": entries,
        "versions": versions(),
    }


def score_run(
    run: RunFolder,
    *,
    device: Device,
    base: ModelFolder | None = None,
    rivals: tuple[Sequence[str], Sequence[int]] = ((), ()),
    force: bool = False,
    note: Note = nobody,
    progress: Progress = silent,
) -> dict[str, Any]:
    """The content of a run's scores.json, which is made where it is missing or not current; the caller has the lock.

    Args:
        base: the folder of the model that the run was trained on, where that is known already.
        rivals: ``against`` and ``shots`` of `evaluate`.

    Raises: as `evaluate`.
    """
    recipe = load_recipe(run.resolved).recipe
    split = split_to_score(recipe, run.resolved)
    adapter = run.finished_adapter()
    rows = _rows_of_run(run, recipe, split)
    folder = base or find_base(run, progress=progress)
    basis = {
        "split": split,
        "adapter_sha256": sha256_of(weights_of(adapter)),
        **model_basis(folder, device),
        **rows.basis(),
        **({"probe": probe_sha256()} if recipe.evaluation.forgetting else {}),
    }
    before = run.read_scores()
    current = None if before is None or before["basis"] != basis or force else before
    others = find_rivals(*rivals, folder, "base", taken=_models_beside(current), note=note, progress=progress)
    if current is not None and not others:
        if not is_concluded(run):
            conclude(run)
        return current
    read = reader_of(rows, folder, progress)
    questions = make_questions(rows, read(), others, folder, device) if others else []
    scored = None if current is None else read_scored(run)
    if scored is None:
        untuned = untuned_scores(rows, read, folder, device, force=force, progress=named("base", progress))
        tuned = tuned_scores(rows, read(), folder, adapter, device, progress=named("tuned", progress))
        facts = row_facts(read().dataset, read().examples, recipe.evaluation.group_by)
        scored = run_scored(untuned, tuned, rows.tasks, facts, split=split, basis=basis)
        if recipe.evaluation.forgetting:
            scored.content["forgetting"] = measure_forgetting(
                run, folder, device, rows.data, force=force, progress=progress
            )
        write_scored(run, scored)
    for question in questions:
        if any(entry["basis"] == question.basis for entry in scored.content["against"]):
            continue
        theirs = rival_scores(question, rows, force=force, progress=named(question.rival.label, progress))
        scored = add_rival(scored, entry_of(question, theirs, scored.rows["tuned"]), theirs)
        write_scored(run, scored)
    conclude(run)
    if lost := _lost(before, scored.content):
        note(f"the scores are made anew, and without: {', '.join(lost)}. Name models again to have them beside the run")
    return scored.content


def _rows_of_run(run: RunFolder, recipe: Recipe, split: str) -> HeldOutRows:
    """The rows of a run's split, as the tuned model wants them. Raises: DataError, if they are not there."""
    commits = run.read_manifest()["inputs"].get("data_commits")
    rows = HeldOutRows(held_out_source(recipe, split, commits), recipe.data, recipe.evaluation, recipe, commits)
    if (template := run.adapter / FILE).is_file():  # the recipe's may have changed since
        return replace(rows, data=recipe.data.model_copy(update={"chat_template": template}))
    return rows


def _models_beside(scores: Mapping[str, Any] | None) -> dict[str, tuple[str, str]]:
    """What the table calls the models beside a run's own, and the source and the hash of each."""
    return {
        entry["label"].removesuffix(f", {entry['shots']}-shot"): (entry["model"], entry["basis"]["model_sha256"])
        for entry in (scores or {}).get("against", ())
    }


def _lost(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> list[str]:
    """The models that were beside a run's own in its earlier scores, and are so no longer."""
    there = {entry["label"] for entry in now["against"]}
    return [entry["label"] for entry in (before or {}).get("against", ()) if entry["label"] not in there]


def named(name: str, progress: Progress) -> Progress:
    """Progress that says which model is scored."""
    return lambda what, done, total: progress(f"score {name}, {what}", done, total)
