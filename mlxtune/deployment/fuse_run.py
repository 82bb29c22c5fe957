"""A run into a model folder: its base, its adapter and how it wants its prompts, folded into one."""

from pathlib import Path

from mlxtune.deployment.fuse import FuseReport, fuse
from mlxtune.device.choose import open_device
from mlxtune.errors import UsageError
from mlxtune.files import check_new_folder
from mlxtune.iteration.opening import find_base
from mlxtune.progress import Progress, silent
from mlxtune.runs.folder import open_run
from mlxtune.runs.prompting import FILE, read_prompting


def fuse_run(
    run: str | Path,
    out: str | Path,
    *,
    dtype: str | None = None,
    device: str = "auto",
    force: bool = False,
    progress: Progress = silent,
) -> FuseReport:
    """Fold a finished run's adapter into its base model and write the result to ``out``.

    Args: as of `deployment.fuse.fuse`.
    Raises: RunError, if the run has no adapter yet or its base is no longer the one it was trained on; UsageError, if
        ``out`` would replace the run or its base; and as `fuse`.
    """
    opened, out = open_run(Path(run)), Path(out)
    adapter = opened.finished_adapter()
    check_new_folder(out, force=force)
    chosen = open_device(device)
    base = find_base(opened, progress=progress)
    for what, path in (("run", opened.path), ("base model", base.path)):
        if path.resolve().is_relative_to(out.resolve()):
            raise UsageError(f"the {what} is there, and is not replaced", where=out, remedy="choose another place")
    return fuse(
        base.path,
        adapter,
        out,
        precision=chosen.precision,
        dtype=dtype,
        force=force,
        extra_files={FILE: read_prompting(adapter).to_json()},
        progress=progress,
    )
