"""One trial of a sweep: a run of its own, from its settings to a validation loss, with nothing scored.

The run goes on from its newest checkpoint where a process was killed in it; where it measures its validation loss it is
compared with the others and may be ended early. Test rows are opened, so that a fault in them is found before hours of
training, and never scored here. Knows one trial; nothing of which is next.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any, Literal

from mlxtune.errors import AdapterError, RecipeError, TrainingError
from mlxtune.files import write_json
from mlxtune.iteration.ready import Ready
from mlxtune.iteration.run import resume_run, run_recipe
from mlxtune.iteration.sweep.data_sizes import overrides_of_part
from mlxtune.iteration.sweep.folder import SweepFolder, SweepPlan
from mlxtune.iteration.sweep.halving import WHOLE, Curve, is_cut, percent_of
from mlxtune.iteration.sweep.space import Point, overrides_of
from mlxtune.iteration.sweep.study import Study, Trial
from mlxtune.iteration.watch import RunResult, Watch
from mlxtune.recipe.load import LoadedRecipe, load_recipe
from mlxtune.recipe.schema import Recipe
from mlxtune.runs.folder import RunFolder, is_run_folder
from mlxtune.runs.manifest import refuse_changes

Ending = Literal["over", "stopped"]


def recipe_of(sweep: SweepFolder, plan: SweepPlan, point: Point) -> LoadedRecipe:
    """A trial's recipe; its text is what a user would have written. Raises: RecipeError, if its settings do not go
    together.
    """
    if plan.kind == "data_sizes":
        settings = overrides_of_part(sweep.parts, load_recipe(sweep.base).recipe, point, steps=plan.steps)
    else:
        settings = overrides_of(point)
    loaded = load_recipe(sweep.base, settings)
    return replace(loaded, text=text_of(loaded.recipe), path=Path(plan.recipe))


def text_of(recipe: Recipe, *comments: str) -> str:
    """A recipe as YAML: what was set, without defaults."""
    from ruamel.yaml import YAML

    out = StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(recipe.model_dump(mode="json", exclude_unset=True), out)
    return "".join(f"# {line}\n" for line in comments) + out.getvalue()


@dataclass
class _Progress:
    """What is known of a run while it goes on."""

    total: int | None = None
    curve: dict[int, float] = field(default_factory=dict)
    cut: bool = False


def run_trial(
    sweep: SweepFolder,
    plan: SweepPlan,
    study: Study,
    trial: Trial,
    *,
    device: str,
    watch: Watch,
) -> Ending:
    """Train one trial to its end, from wherever it is, and tell the study how it ended.

    Args:
        watch: who looks on; ``should_stop`` leaves the trial as one that runs, to be gone on with.

    Returns: "stopped", if it was asked to stop before its end.
    Raises: MlxtuneError, for what is no matter of this trial's settings: the trial is then left as one that runs.
    """
    prunes = plan.kind == "settings"
    seen = _Progress(curve=dict(trial.curve))

    def others() -> list[Curve]:
        return [other.curve for other in study.trials() if other.number != trial.number]

    def started(run: RunFolder, ready: Ready) -> None:
        seen.total = ready.plan.total_steps
        _refuse_other_inputs(sweep, plan, run)
        watch.started(run, ready)

    def measured(line: dict[str, Any]) -> None:
        watch.measured(line)
        if "valid_loss" not in line or seen.total is None:
            return
        percent = percent_of(line["step"], seen.total)
        seen.curve[percent] = line["valid_loss"]
        study.report(trial.number, percent, line["valid_loss"])
        if prunes and percent < WHOLE:
            seen.cut = is_cut(seen.curve, others())

    own = replace(watch, started=started, measured=measured, should_stop=lambda: seen.cut or watch.should_stop())
    path = sweep.run_of(trial.number)
    if prunes and is_cut(seen.curve, others()):  # it was to be ended when its process was killed
        study.finish(trial.number, "pruned", **_facts_of_pruned(seen))
        return "over"
    try:
        if is_run_folder(path):
            result = resume_run(path, device=device, score=False, watch=own)
        else:
            loaded = recipe_of(sweep, plan, trial.point)
            loaded = replace(loaded, recipe=_as_trial(loaded.recipe, plan))
            result = run_recipe(loaded, device=device, run_dir=path, score=False, watch=own)
    except (TrainingError, AdapterError, RecipeError) as error:
        # The numbers went wrong, which is as bad as settings can be; or they do not fit the network, or one another.
        state = "pruned" if isinstance(error, TrainingError) else "failed"
        study.finish(trial.number, state, why=error.message)
        return "over"
    return _ended(study, trial, result, seen)


def _ended(study: Study, trial: Trial, result: RunResult, seen: _Progress) -> Ending:
    if not result.interrupted:
        facts = {"steps": result.steps, "seconds": result.seconds, "peak_memory_bytes": result.peak_memory_bytes}
        study.finish(trial.number, "complete", result.valid_loss, **facts)
        return "over"
    if not seen.cut:
        return "stopped"
    study.finish(trial.number, "pruned", steps=result.steps, seconds=result.seconds, **_facts_of_pruned(seen))
    return "over"


def _facts_of_pruned(seen: _Progress) -> dict[str, Any]:
    return {"why": f"ended at {max(seen.curve)} %, where others were better"}


def _as_trial(recipe: Recipe, plan: SweepPlan) -> Recipe:
    """With what a trial has besides its settings: one checkpoint, and frozen blocks' states where others find them.

    Parts of the rows are met by one trial each, so there is nobody to keep states for; nor are answers met again.
    """
    checkpoint = recipe.checkpoint.model_copy(update={"keep": 1})
    training = recipe.training
    if plan.kind == "settings" and training.cache_frozen_prefix != "off" and recipe.objective.type != "grpo":
        training = training.model_copy(update={"cache_frozen_prefix": "kept"})
    return recipe.model_copy(update={"checkpoint": checkpoint, "training": training})


def _refuse_other_inputs(sweep: SweepFolder, plan: SweepPlan, run: RunFolder) -> None:
    """Hold what a trial is compared by against what the first one had.

    Raises: RunError, if the validation rows, or what no trial was to change, are not what they were.
    """
    inputs = _alike(run.read_manifest()["inputs"], {one.key for one in plan.dimensions})
    if not sweep.inputs.exists():
        write_json(sweep.inputs, inputs)
    refuse_changes(json.loads(sweep.inputs.read_text(encoding="utf-8")), inputs, where=sweep.path)


def _alike(inputs: Mapping[str, Any], tried: set[str]) -> dict[str, Any]:
    """What all trials are to have alike of a run's inputs."""
    data = dict(inputs["data"])
    if "share" in tried or any(key.startswith(("data.train", "data.replay")) for key in tried):
        data.pop("train", None)
    if any(key.startswith("data.replay") for key in tried):
        data.pop("replay", None)
    found = {"data": data, "chat_template": inputs["chat_template"], "train_on": inputs["train_on"]}
    if not any(key.startswith("model") for key in tried):
        found["model"] = inputs["model"]["sha256"]
    return found
