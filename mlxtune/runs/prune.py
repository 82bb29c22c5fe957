"""Making room: which runs, or which runs' checkpoints, may go, and taking them away.

Choosing and removing are two functions, so that what would go can be shown while nothing happens. Only folders that are
runs, that lie in the one folder that was named, and that are no links are ever touched; one that another process works
in stays, and so does one that another run, which stays, was started from. What is broken stays: nobody can say what it
is. A run is renamed before it is emptied, so that whoever comes by never meets half a run; if that is cut short, the
next prune ends it. Knows paths and locks, nothing of what a run is worth: that is the owner's choice.
"""

import contextlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from mlxtune.errors import RunError, UsageError
from mlxtune.files import flush_path
from mlxtune.runs.disk import disk_bytes
from mlxtune.runs.folder import RunFolder, lock
from mlxtune.runs.listing import LEFTOVER, Listing, RunEntry, list_runs, read_object

CHECKPOINT = re.compile(r"step_[0-9]+")

What = Literal["run", "checkpoints", "leftover"]


@dataclass(frozen=True)
class Candidate:
    """What may go, and why; ``entry`` is None of a leftover."""

    path: Path
    what: What
    bytes: int
    why: str
    entry: RunEntry | None = None


@dataclass(frozen=True)
class Kept:
    """A run that would go by its age or place in the row, and why it stays."""

    path: Path
    why: str


@dataclass(frozen=True)
class Prunable:
    """All that may go from a folder, and what stays though it was asked for."""

    folder: Path
    candidates: tuple[Candidate, ...]
    kept: tuple[Kept, ...]

    @property
    def bytes(self) -> int:
        return sum(candidate.bytes for candidate in self.candidates)


def find_prunable(
    folder: Path,
    *,
    keep: int | None = None,
    older_than: timedelta | None = None,
    checkpoints: bool = False,
    now: datetime | None = None,
) -> Prunable:
    """What may go; nothing is changed.

    Args:
        keep: so many runs stay, those that were worked in last.
        older_than: only runs that nobody has worked in for so long. With ``keep`` both have to hold.
        checkpoints: of the runs so chosen, or of all if neither is said, only the checkpoints, and only where training
            and scoring have come to their end: nothing can need them any more.

    Raises: UsageError, if nothing says what may go; RunError, if the folder is not there.
    """
    if keep is None and older_than is None and not checkpoints:
        raise UsageError(
            "nothing says what may go", remedy="give --keep N, --older-than DAYS, --checkpoints, or several of them"
        )
    folder = folder.resolve()
    listing, now = list_runs(folder), now or datetime.now(UTC)
    newest_first = sorted(listing.runs, key=lambda run: last_worked_in(run.path), reverse=True)
    chosen = [
        run
        for place, run in enumerate(newest_first)
        if (keep is None or place >= keep) and (older_than is None or now - last_worked_in(run.path) > older_than)
    ]
    candidates, kept = [], []
    for run in chosen:
        stays = _stays(run) or (_needs_checkpoints(run) if checkpoints else None)
        if stays is not None:
            kept.append(Kept(run.path, stays))
            continue
        size = sum(map(disk_bytes, checkpoints_of(run.path))) if checkpoints else disk_bytes(run.path)
        if checkpoints and not checkpoints_of(run.path):
            continue
        candidates.append(
            Candidate(run.path, "checkpoints" if checkpoints else "run", size, _why(run, newest_first, now), run)
        )
    if not checkpoints:
        candidates, needed = _without_needed(candidates, listing)
        kept += needed
    return Prunable(folder, (*candidates, *_leftovers(folder)), tuple(kept))


def last_worked_in(run: Path) -> datetime:
    """When something was last written in a run: its metrics, its manifest or its scores."""
    names = ("metrics.jsonl", "run.json", "scores.json")
    times = [0.0]
    for name in names:
        with contextlib.suppress(OSError):
            times.append((run / name).stat().st_mtime)
    return datetime.fromtimestamp(max(times), UTC)


def checkpoints_of(run: Path) -> list[Path]:
    """The checkpoints of a run: folders, no links, below a folder that is none either."""
    place = run / "checkpoints"
    if not _is_plain_folder(place):
        return []
    return sorted(path for path in place.iterdir() if CHECKPOINT.fullmatch(path.name) and _is_plain_folder(path))


def prune(candidates: Iterable[Candidate], folder: Path) -> tuple[list[Candidate], list[Kept]]:
    """Take away what `find_prunable` found in ``folder``.

    Each is looked at again: it has to be what it was, and no process may work in it.

    Returns: what is gone, and what stayed and why.
    """
    gone: list[Candidate] = []
    kept: list[Kept] = []
    folder = folder.resolve()
    for candidate in candidates:
        try:
            _remove(candidate, folder)
        except RunError as error:
            kept.append(Kept(candidate.path, error.message))
        except OSError as error:
            kept.append(Kept(candidate.path, f"cannot be removed: {error.strerror}"))
        else:
            gone.append(candidate)
    return gone, kept


def _remove(candidate: Candidate, folder: Path) -> None:
    """Raises: RunError, if it is not what it was, or a process works in it; OSError."""
    path = candidate.path
    if path.parent != folder or not _is_plain_folder(path):
        raise RunError("is no folder in the folder of runs", where=path)
    if candidate.what == "leftover":
        shutil.rmtree(path)
        return
    _refuse_odd_lock(path)
    run = RunFolder(path)
    with lock(run):
        if not run.manifest.is_file():
            raise RunError("is no run any more", where=path)
        if candidate.what == "checkpoints":
            for checkpoint in checkpoints_of(path):
                shutil.rmtree(checkpoint)
            (run.checkpoints / "latest.json").unlink(missing_ok=True)
            return
        hidden = path.with_name(f".{path.name}.{secrets.token_hex(4)}.pruned")
        path.rename(hidden)
        flush_path(folder)
    shutil.rmtree(hidden)


def _refuse_odd_lock(run: Path) -> None:
    """Raises: RunError, where the lock's file is none: to lock it would write to what a link leads to."""
    place = run / ".lock"
    if os.path.lexists(place) and not stat.S_ISREG(place.lstat().st_mode):
        raise RunError("its .lock is no file of its own", where=run)


def _stays(run: RunEntry) -> str | None:
    """Why a run is not touched."""
    if run.path.is_symlink():
        return "a link; what it leads to is not in this folder"
    if run.process is not None:
        return f"process {run.process} works in it"
    return None


def _needs_checkpoints(run: RunEntry) -> str | None:
    """Why a run's checkpoints stay: a resumed run would begin anew without them."""
    if run.state == "stopped":
        return "it can be resumed from its checkpoints"
    if RunFolder(run.path).read_scores() is None and _has_test_rows(run.path):
        return f"it is not scored yet: mlxtune evaluate {run.path}"
    return None


def _has_test_rows(run: Path) -> bool:
    """Whether the recipe names test rows; also if it cannot be read."""
    try:
        data = read_object(RunFolder(run).resolved).get("data")
    except (OSError, ValueError):
        return True
    return not isinstance(data, dict) or data.get("test") is not None


def _without_needed(candidates: Sequence[Candidate], listing: Listing) -> tuple[list[Candidate], list[Kept]]:
    """The candidates that no run which stays was started from; and those others, which stay too."""
    going = {candidate.path: candidate for candidate in candidates}
    kept: list[Kept] = []
    while True:
        needed = {
            Path(run.starts_from).resolve(): run.path
            for run in listing.runs
            if run.starts_from is not None and run.path not in going
        }
        found = [
            (path, user)
            for path in going
            for start, user in needed.items()
            if start == path or start.is_relative_to(path)
        ]
        if not found:
            return list(going.values()), kept
        for path, user in found:
            if going.pop(path, None) is not None:
                kept.append(Kept(path, f"{user.name} was started from it"))


def _leftovers(folder: Path) -> list[Candidate]:
    """Runs whose removal was cut short."""
    return [
        Candidate(path, "leftover", disk_bytes(path), "its removal was cut short")
        for path in sorted(folder.iterdir())
        if LEFTOVER.fullmatch(path.name) and _is_plain_folder(path)
    ]


def _why(run: RunEntry, newest_first: Sequence[RunEntry], now: datetime) -> str:
    days = (now - last_worked_in(run.path)) / timedelta(days=1)
    newer = newest_first.index(run)
    return f"{newer} newer, last worked in {days:.1f} days ago"


def _is_plain_folder(path: Path) -> bool:
    """Whether it is a folder and no link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False
