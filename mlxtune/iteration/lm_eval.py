"""lm-evaluation-harness on a run, base and tuned model side by side, or on any model; ``mlxtune evaluate --lm-eval``.

General tasks beside the owner's own: what a tuned model has kept of them, and how far a model is from figures that
others publish. Both models are asked the same questions in the same way, and figures that are means a row are compared
by the paired test of every other comparison here. A run keeps the last result in its lm_eval.json.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mlxtune.adapters.open import attach_adapter
from mlxtune.device.choose import Device, open_device
from mlxtune.evaluation.lm_eval.answers import make_answers
from mlxtune.evaluation.lm_eval.harness import Asked, Figure, Harness, TaskFigures
from mlxtune.evaluation.score import BOOTSTRAP_SEED
from mlxtune.evaluation.statistics import CONFIDENCE
from mlxtune.evaluation.verdict import Verdict, verdict
from mlxtune.files import sha256_of, write_json
from mlxtune.iteration.opening import find_base
from mlxtune.iteration.report.page import write_report
from mlxtune.models.chat_template import FILE
from mlxtune.models.load import Model, open_model, precision_to_ask
from mlxtune.models.source import find_model
from mlxtune.offline import network_off
from mlxtune.progress import Progress, silent
from mlxtune.recipe.load import load_recipe
from mlxtune.runs.folder import RunFolder, is_run_folder, lock, open_run, weights_of
from mlxtune.runs.manifest import versions

TURNED: dict[Verdict, Verdict] = {"better": "worse", "worse": "better", "not distinguishable": "not distinguishable"}
"""What a verdict is where lower is better."""


def evaluate_with_lm_eval(
    run_or_model: str | Path, asked: Asked, *, device: str = "auto", progress: Progress = silent
) -> dict[str, Any]:
    """Ask a run's base and tuned model, or a model, the harness's tasks.

    Returns: for a run what its lm_eval.json holds then: ``base`` and ``tuned``, task by task, and ``differences`` by
        task and metric (tuned less base); for a model ``figures`` instead. All with the tasks' versions and rows.
    Raises: as `Harness`; RunError, if the run has no adapter yet, another base, or another process in it; ModelError.
    """
    if is_run_folder(Path(run_or_model)):
        run = open_run(Path(run_or_model))
        with network_off(when=load_recipe(run.resolved).recipe.offline), lock(run):
            found = _ask_run(run, asked, open_device(device), progress)
            write_json(run.lm_eval, found)
            write_report(run)
            return found
    harness = Harness(asked)
    chosen = open_device(device)
    folder = find_model(str(run_or_model), progress=progress)
    chosen = replace(chosen, precision=precision_to_ask(folder.path, chosen.precision))
    figures = _ask(harness, open_model(folder.path, chosen.precision), progress)
    return {
        "model": str(run_or_model),
        **_how(asked, harness, chosen),
        "figures": _plain(figures),
        "basis": {"model_sha256": folder.sha256},
    }


def _ask_run(run: RunFolder, asked: Asked, device: Device, progress: Progress) -> dict[str, Any]:
    adapter = run.finished_adapter()
    harness = Harness(asked)
    folder = find_base(run, progress=progress)
    template = adapter / FILE if (adapter / FILE).is_file() else None
    base = _ask(harness, open_model(folder.path, device.precision, template), _named("base", progress))
    model = open_model(folder.path, device.precision, template)
    attach_adapter(model.network, adapter)
    tuned = _ask(harness, model, _named("tuned", progress))
    return {
        **_how(asked, harness, device),
        "base": _plain(base),
        "tuned": _plain(tuned),
        "differences": {
            task: {
                metric: found
                for metric, figure in tuned[task].figures.items()
                if (found := _difference(base[task].figures.get(metric), figure)) is not None
            }
            for task in tuned
        },
        "basis": {
            "model_sha256": folder.sha256,
            "adapter_sha256": sha256_of(weights_of(adapter)),
        },
    }


def _ask(harness: Harness, model: Model, progress: Progress) -> dict[str, TaskFigures]:
    return harness.ask(make_answers(model, progress=progress))


def _difference(base: Figure | None, tuned: Figure) -> dict[str, Any] | None:
    """The tuned model's figure less the base's, with its verdict; None where the figure is no mean a row."""
    if base is None or base.measured is None or tuned.measured is None:
        return None
    found = tuned.measured.minus(base.measured, seed=BOOTSTRAP_SEED)
    said = verdict("", found)
    return asdict(found) | {"verdict": TURNED[said] if tuned.higher_is_better is False else said}


def _plain(tasks: Mapping[str, TaskFigures]) -> dict[str, Any]:
    return {
        name: {
            "version": task.version,
            "shots": task.shots,
            "rows": task.rows,
            "metrics": {metric: _plain_figure(figure) for metric, figure in task.figures.items()},
        }
        for name, task in tasks.items()
    }


def _plain_figure(figure: Figure) -> dict[str, Any]:
    measured = figure.measured
    return {
        "value": figure.value,
        "stderr": figure.stderr,
        "higher_is_better": figure.higher_is_better,
        "interval": None if measured is None else asdict(measured.interval(seed=BOOTSTRAP_SEED)),
    }


def _how(asked: Asked, harness: Harness, device: Device) -> dict[str, Any]:
    """How the tasks were asked."""
    return {
        "asked": list(asked.tasks),
        "limit": asked.limit,
        "shots": asked.shots,
        "chat_template": asked.chat,
        "confidence": CONFIDENCE,
        "precision": device.precision.name,
        "versions": versions() | {"lm-eval": harness.version},
    }


def _named(name: str, progress: Progress) -> Progress:
    return lambda what, done, total: progress(f"lm-eval, {name}: {what}", done, total)
