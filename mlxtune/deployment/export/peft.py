"""An adapter as a folder of its own, for PEFT and mlx-lm.

A run's is copied byte by byte, since it is in both programs' form already; one that came in is written anew, in the
form of the program that could not open it, too. What says how the model is asked goes along: both leave it alone.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from mlxtune.adapters import mlx_lm, peft
from mlxtune.adapters.format import CONFIG_FILE, is_full, read_adapter, read_config, save_adapter, who_can_open
from mlxtune.adapters.open import attach_adapter
from mlxtune.deployment.tuned import check_not_replaced, find_tuned
from mlxtune.errors import AdapterError, UsageError
from mlxtune.files import check_new_folder, new_folder
from mlxtune.models import chat_template
from mlxtune.models.load import load_network
from mlxtune.models.source import hub_repository
from mlxtune.progress import Progress, silent
from mlxtune.runs.folder import is_run_folder, open_run
from mlxtune.runs.prompting import FILE

BESIDE = (FILE, chat_template.FILE)
"""How the model is asked."""
FILES = (CONFIG_FILE, peft.FILE, mlx_lm.FILE, *BESIDE)


@dataclass(frozen=True)
class PeftReport:
    """What was written."""

    out: Path
    base_model: str
    """Where the adapter says that its base is."""
    bytes: int
    cannot_open: dict[str, str]
    """Of PEFT and mlx-lm, those that have no words for this adapter, and the reason."""


def export_peft(
    source: str | Path,
    out: str | Path,
    *,
    adapter: str | Path | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> PeftReport:
    """Write the adapter of a finished run, or of a model and an adapter folder, to the folder ``out``, whole or not.

    Raises: RunError, if the run has no adapter yet; AdapterError, if it cannot be read or does not fit the model;
        OutputExistsError; UsageError, if there is no adapter or ``out`` holds it.
    """
    out = Path(out)
    check_new_folder(out, force=force)
    if is_run_folder(Path(source)) and adapter is None:
        tuned, folder = None, open_run(Path(source)).finished_adapter()
    else:
        tuned = find_tuned(source, adapter, progress=progress)
        if tuned.adapter is None:
            raise UsageError("there is no adapter to export", where=source, remedy="name a run, or add --adapter DIR")
        folder = tuned.adapter
        check_not_replaced(out, tuned)
    if folder.resolve().is_relative_to(out.resolve()):
        raise UsageError("the adapter is there, and is not replaced", where=out, remedy="choose another place")
    if is_full(read_config(folder)):
        raise AdapterError(
            "these are the network's own weights, trained in full, and no adapter, which is all that PEFT's form holds",
            where=folder,
            remedy="merge them into a model: mlxtune fuse, mlxtune export gguf, or mlxtune export hub --what fused",
        )
    config = read_adapter(folder).config
    with new_folder(out, force=force) as part:
        for name in FILES if tuned is None else BESIDE:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, part / name)
        if tuned is not None:
            network, _ = load_network(tuned.base.path)
            attach_adapter(network, folder)
            named = config.get("base_model_name_or_path") or hub_repository(str(source)) or str(tuned.base.path)
            save_adapter(network, part, base_model=str(named))
        size = sum(file.stat().st_size for file in part.iterdir())
    cannot = {program: reason for program, reason in who_can_open(out).items() if reason is not None}
    return PeftReport(out, str(read_config(out).get("base_model_name_or_path", "")), size, cannot)
