"""A tuned model as an MLX folder in the place where LM Studio looks for models: ``<models>/<publisher>/<name>``.

The folder is the one that `fuse` writes. LM Studio moves its own folder about, and its settings may name another one
for models; both are asked. No LM Studio has opened what this writes: the place is the one that its documentation and
its command line tool name.

Source: https://lmstudio.ai/docs/app/advanced/import-model; findLMStudioHome in https://github.com/lmstudio-ai/lmstudio-js
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxtune.deployment.export.gguf import model_name
from mlxtune.deployment.fuse import FuseReport
from mlxtune.deployment.fuse_run import fuse_run
from mlxtune.deployment.tuned import find_tuned
from mlxtune.errors import UsageError
from mlxtune.progress import Progress, silent

PUBLISHER = "mlxtune"
UNTRIED = "no LM Studio has opened such a folder yet: written by what its documentation says of the place"


@dataclass(frozen=True)
class LmStudioReport:
    """What was written, and what LM Studio has to be told."""

    out: Path
    fused: FuseReport
    system: str | None
    """The system message of training, which the folder has no place for."""
    notes: list[str]


def export_lmstudio(
    source: str | Path,
    out: str | Path | None = None,
    *,
    models_dir: str | Path | None = None,
    home: Path | None = None,
    progress: Progress = silent,
    **options: Any,
) -> LmStudioReport:
    """Write a run, or a model with an adapter, where LM Studio looks.

    Args:
        out: the folder, if it is not to be there; LM Studio then has to be shown it.
        models_dir: LM Studio's folder of models, if it is not the one that its settings name.
        home: the user's home folder, for tests.
        options: as of `fuse_run`, ``adapter`` and ``force`` among them.

    Raises: UsageError, for both places; and as `fuse_run`.
    """
    if out is not None and models_dir is not None:
        raise UsageError("OUT and --models-dir both say where", where="--models-dir", remedy="leave out one of them")
    tuned = find_tuned(source, options.get("adapter"), progress=progress)
    if out is None:
        out = Path(models_dir or find_models_dir(home or Path.home())) / PUBLISHER / model_name(tuned)
    fused = fuse_run(source, out, progress=progress, **options)
    return LmStudioReport(Path(out), fused, tuned.prompting.system, [UNTRIED])


def find_models_dir(home: Path) -> Path:
    """LM Studio's folder of models: the one its settings name, else ``models`` in its own folder."""
    pointer = home / ".lmstudio-home-pointer"
    named = pointer.read_text(encoding="utf-8", errors="replace").strip() if pointer.is_file() else ""
    places = [*([Path(named)] if named else []), home / ".cache" / "lm-studio"]
    own = next((place for place in places if place.is_dir()), home / ".lmstudio")
    try:
        folder = json.loads((own / "settings.json").read_text(encoding="utf-8"))["downloadsFolder"]
    except (OSError, ValueError, KeyError, TypeError):
        return own / "models"
    return Path(folder) if isinstance(folder, str) and folder else own / "models"
