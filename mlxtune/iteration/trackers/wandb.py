"""Weights & Biases (the extra ``wandb``), offline unless the owner's own ``WANDB_MODE`` says otherwise.

Offline nothing leaves this machine: what would have been sent lies in ``wandb/`` of the run's folder, and ``wandb
sync`` sends it when the owner says so. Told are the steps' numbers and the recipe's settings of method and training.
Left out is all that Weights & Biases would take by itself: the console, the code, git, the machine's name and hardware,
the packages. Each attempt offline writes its record anew from metrics.jsonl, so that a resumed run has each step once;
online the server has what was sent before, and later steps alone follow.
"""

import os
import shutil
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from importlib import import_module
from typing import Any

from mlxtune.network import is_offline
from mlxtune.recipe.schema import Recipe
from mlxtune.runs.folder import RunFolder

PACKAGE = "wandb"
FOLDER = "wandb"
MODE = "WANDB_MODE"
OFFLINE = "offline"
PROJECT = "mlxtune"
"""Where WANDB_PROJECT names no other."""
SECONDS_TO_FINISH = 60.0
"""For what is still to be sent at a run's end; what is not sent by then stays on the disk, for ``wandb sync``."""
REPORTS_ERRORS = "WANDB_ERROR_REPORTING"


class WeightsAndBiases:
    """One run of Weights & Biases.

    Args:
        first: the first step that it has not been told of yet, in an earlier attempt.
    """

    def __init__(self, run: Any, first: int = 0) -> None:
        self._run = run
        self._first = first

    def add(self, step: int, values: Mapping[str, float], *, at: float) -> None:
        """Tell the values of a step; ``at`` in seconds since 1970. Steps that are known already are passed over."""
        if step >= self._first:
            self._run.log({**values, "_timestamp": at}, step=step)

    def close(self) -> None:
        self._run.finish()


def mode_asked() -> str:
    """``offline``, or what the owner's WANDB_MODE says; with the network off nothing that would need it."""
    asked = os.environ.get(MODE, OFFLINE)
    return OFFLINE if is_offline() and asked != "disabled" else asked


def open_tracker(run: RunFolder, recipe: Recipe, *, started: datetime) -> WeightsAndBiases:
    """A new record of this run, or online the one that an earlier attempt began.

    Raises: ImportError; whatever wandb raises.
    """
    os.environ.setdefault(REPORTS_ERRORS, "false")  # of its own failures it would tell its makers; read on import
    return _open(run, recipe, started, mode_asked())


def _open(run: RunFolder, recipe: Recipe, started: datetime, mode: str) -> WeightsAndBiases:
    wandb = import_module("wandb")
    name = f"{recipe.name}-{started:%Y%m%d-%H%M%S}"
    if mode == OFFLINE:
        for path in (run.path / FOLDER).glob("offline-run-*"):
            shutil.rmtree(path)
    opened = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        name=name,
        id=sha256(f"{run.path.name} {started.isoformat()}".encode()).hexdigest()[:16],
        dir=run.path,
        config=settings_told(recipe),
        mode=mode,
        resume="allow" if mode == "online" else None,
        reinit="create_new",
        settings=wandb.Settings(
            console="off",
            disable_code=True,
            disable_git=True,
            disable_job_creation=True,
            finish_timeout=SECONDS_TO_FINISH,
            host="",
            program="mlxtune",
            save_code=False,
            silent=True,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        ),
    )
    return WeightsAndBiases(opened, opened.step if mode == "online" else 0)


def settings_told(recipe: Recipe) -> dict[str, Any]:
    """The recipe's settings that have no place or text of the owner's in them."""
    sections = recipe.model_dump(mode="json", include={"seed", "method", "objective", "training"})
    return {**sections, "data": {"train_on": recipe.data.train_on, "max_seq_length": recipe.data.max_seq_length}}
