"""A run into a model folder: its base, its adapter and how it wants its prompts, folded into one."""

from pathlib import Path

from mlxtune.deployment.fuse import FuseReport, fuse
from mlxtune.device.choose import open_device
from mlxtune.errors import RunError
from mlxtune.iteration.opening import find_recipe_model
from mlxtune.progress import Progress, silent
from mlxtune.recipe.load import load_recipe
from mlxtune.runs.folder import open_run
from mlxtune.runs.prompting import FILE, from_record


def fuse_run(
    run: Path,
    out: Path,
    *,
    dtype: str | None = None,
    device: str = "auto",
    force: bool = False,
    progress: Progress = silent,
) -> FuseReport:
    """Fold a finished run's adapter into its base model and write the result to ``out``.

    Args: as of `deployment.fuse.fuse`.
    Raises: RunError, if the run has no adapter yet or its base is no longer the one it was trained on; and as `fuse`.
    """
    opened = open_run(run)
    if not opened.adapter.exists():
        raise RunError("the run has no adapter yet", where=run, remedy=f"finish it: mlxtune train --resume {run}")
    chosen = open_device(device)
    folder = find_recipe_model(load_recipe(opened.resolved).recipe, progress=progress)
    manifest = opened.read_manifest()
    trained_on = manifest["inputs"]["model"]["sha256"]
    if folder.sha256 != trained_on:
        raise RunError(
            "the base model is not the one that this run was trained on: its hash differs",
            where=folder.path,
            remedy="put the old model back; an adapter on another base gives another model",
        )
    return fuse(
        folder.path,
        opened.adapter,
        out,
        precision=chosen.precision,
        dtype=dtype,
        force=force,
        extra_files={FILE: from_record(manifest.get("prompting")).to_json()},
        progress=progress,
    )
