"""Pause, go on, stop: what is wished of the process that trains in a run, told through the run's folder.

A wish is a small file, put there whole by whoever may write in the folder; the process looks for it between steps. No
signal is sent, so a page or another terminal needs nothing of that process but the folder. The last wish holds. What
the process does about it stands in a file of its own, so that neither side writes what the other does. A wish is for
the process that is at work: it ends with it, and a run that is resumed goes on. The price: a wish is met after the step
that is being made; and a process on another machine is not seen, so nothing can be asked of it.
"""

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from mlxtune.errors import RunError
from mlxtune.files import write_json
from mlxtune.json_text import parse_json
from mlxtune.runs.at_work import who_works_in
from mlxtune.runs.folder import RunFolder

Wish = Literal["pause", "stop"]


@dataclass(frozen=True)
class Paused:
    """A pause that a run is in."""

    step: int
    """The last one that was made."""
    since: str
    """ISO 8601, UTC."""
    why: str | None = None
    """None: somebody wished it."""


def ask(run: RunFolder, wish: Wish | None) -> None:
    """Wish something of the process that trains in ``run``; None takes the last wish back, so that it goes on.

    Raises: RunError, if no process trains there; OSError, if the folder cannot be written to.
    """
    if who_works_in(run) is None:
        remedy = f"if it is not finished, go on with it: mlxtune train --resume {run.path}"
        raise RunError("no process works in this run", where=run.path, remedy=remedy)
    if run.is_finished:
        remedy = "Ctrl-C where it runs ends the scoring; mlxtune evaluate does it again"
        raise RunError(
            "the training is over, and scoring has no steps to pause or stop at", where=run.path, remedy=remedy
        )
    if wish is None:
        run.control.unlink(missing_ok=True)
    else:
        write_json(run.control, {"wish": wish, "at": _now()})


def wish_of(run: RunFolder) -> Wish | None:
    """What is wished of the process that trains in ``run``. A file that says nothing known is no wish."""
    wish = _read(run.control).get("wish")
    return wish if wish in get_args(Wish) else None


def note_pause(run: RunFolder, step: int, why: str | None = None) -> None:
    """Tell that the run waits after ``step``, and why, if nobody wished it; of the process that trains."""
    write_json(run.paused, {"step": step, "since": _now(), "why": why})


def note_end_of_pause(run: RunFolder) -> None:
    """Tell that it waits no more."""
    run.paused.unlink(missing_ok=True)


def pause_of(run: RunFolder) -> Paused | None:
    """The pause that a run is in, or was in when its process was killed: `who_works_in` tells which."""
    told = _read(run.paused)
    step, since, why = told.get("step"), told.get("since"), told.get("why")
    if type(step) is not int or not isinstance(since, str):
        return None
    return Paused(step, since, why if isinstance(why, str) else None)


def forget_wishes(run: RunFolder) -> None:
    """Clear away what was wished of an earlier process, and what it told; of one that has the run's lock."""
    run.control.unlink(missing_ok=True)
    run.paused.unlink(missing_ok=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _read(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        if path.is_file():
            content = parse_json(path.read_bytes())
            return content if isinstance(content, dict) else {}
    return {}
