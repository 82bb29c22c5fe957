"""The runs in a folder, each in a line: what it trained, how far it came, how it scored; and those that are broken.

A folder of runs lives long: runs that are training, that were stopped, that an earlier version wrote, that a full disk
left half made, lie side by side. One that cannot be read hides no other: it is told with its reason. Of a run a few
small files are read, never its tensors nor all of its metrics, and nothing is written or locked. Knows JSON and names;
the price is that figures are taken as the run's files have them.
"""

import math
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from mlxtune.errors import RunError, UsageError
from mlxtune.files import PART
from mlxtune.json_text import parse_json
from mlxtune.runs.at_work import who_works_in
from mlxtune.runs.control import pause_of
from mlxtune.runs.curve import read_curve
from mlxtune.runs.folder import MANIFEST_KEYS, RUNS, RunFolder, is_run_folder

MOST_JSON_BYTES = 64 << 20
"""A longer file is none that mlxtune wrote; it is not read."""
TRACES = ("run.json", "recipe.resolved.json", "metrics.jsonl", "checkpoints")
"""What tells a damaged run from a folder of something else."""
LEFTOVER = re.compile(r"\..+\.[0-9a-f]{8}\.pruned")
"""The name that a run has while it is taken away; nothing else has such names."""

State = Literal["training", "paused", "scoring", "scored", "trained", "stopped"]
"""``training``, ``paused`` and ``scoring``: a process is at it. ``stopped``: it can be resumed."""


@dataclass(frozen=True)
class Headline:
    """The one metric that a run is known by, of base and tuned model, and the verdict if there is one."""

    metric: str
    base: float
    tuned: float
    verdict: str | None = None


@dataclass(frozen=True)
class RunEntry:
    """What is told of a run; None where its files do not say."""

    path: Path
    name: str
    state: State
    started: str | None
    """ISO 8601, UTC."""
    model: str | None
    steps: int | None
    losses: tuple[float, ...]
    """The training loss at a few points of the run."""
    train_loss: float | None
    valid_loss: float | None
    """The best."""
    seconds: float | None
    headline: Headline | None
    problems: int
    """Findings that are no mere hints."""
    process: int | None
    """Which is at work in it."""
    note: str | None
    """What about it is unusual."""
    starts_from: str | None
    """The run or adapter folder that its training started from."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Broken:
    """A folder that was a run, or was to become one, and why it cannot be read as one."""

    path: Path
    why: str


@dataclass(frozen=True)
class Listing:
    """The runs of a folder, the newest first, and those that are broken, by name."""

    folder: Path
    runs: tuple[RunEntry, ...]
    broken: tuple[Broken, ...]


def list_runs(folder: Path = RUNS) -> Listing:
    """What is in a folder of runs. A folder of something else is passed over; links are looked through.

    Raises: RunError, if the folder is not there; UsageError, if it is a run itself.
    """
    if is_run_folder(folder):
        raise UsageError(
            "this is one run, not a folder of runs", where=folder, remedy=f"look at it: mlxtune runs show {folder}"
        )
    if not folder.is_dir():
        remedy = "name the folder that your runs are in; `mlxtune train` makes one below runs/"
        raise RunError("there is no such folder", where=folder, remedy=remedy)
    runs, broken = [], []
    for path in sorted(folder.iterdir()):
        found = _look_at(path)
        if isinstance(found, RunEntry):
            runs.append(found)
        elif found is not None:
            broken.append(found)
    runs.sort(key=lambda run: (run.started or "", run.path.name), reverse=True)
    return Listing(folder, tuple(runs), tuple(broken))


def read_entry(path: Path) -> RunEntry:
    """One run. Raises: RunError, if it cannot be read as one."""
    found = _look_at(path)
    if isinstance(found, RunEntry):
        return found
    why = found.why if found is not None else "holds no run" if path.is_dir() else "there is no such run"
    raise RunError(why, where=path, remedy="`mlxtune runs list` names the runs that there are")


def _look_at(path: Path) -> RunEntry | Broken | None:
    """The run at ``path``; None for what never was one."""
    try:
        if not path.is_dir():
            return Broken(path, "a link to nothing") if path.is_symlink() and not path.exists() else None
        with os.scandir(path) as entries:
            names = {entry.name for entry in entries}
        if LEFTOVER.fullmatch(path.name):
            return Broken(path, "its removal was cut short: mlxtune runs prune ends it")
        if PART.fullmatch(path.name):
            return Broken(path, "half made by a process that was killed") if names & set(TRACES) else None
        if not is_run_folder(path):
            missing = [name for name in TRACES[:2] if name not in names]
            why = f"lacks {' and '.join(missing)}" if missing else "run.json or recipe.resolved.json is no file"
            return Broken(path, why) if names & set(TRACES) else None
        return _entry(RunFolder(path))
    except (OSError, ValueError, TypeError) as error:
        told = error.strerror if isinstance(error, OSError) else str(error)
        return Broken(path, f"cannot be read: {told or type(error).__name__}")


def _entry(run: RunFolder) -> RunEntry:
    """Raises: OSError, or ValueError with a sentence, for a run whose manifest cannot be read."""
    manifest = read_object(run.manifest)
    if missing := MANIFEST_KEYS - manifest.keys():
        raise ValueError(f"run.json lacks {', '.join(sorted(missing))}")
    finished = _mapping(manifest.get("finished"))
    inputs = _mapping(manifest["inputs"])
    model, start = _mapping(inputs.get("model")), _mapping(inputs.get("adapter"))
    curve, process = read_curve(run.metrics), who_works_in(run)
    scores, note = _scores(run)
    is_trained = bool(finished) and run.adapter.is_dir()
    if process is not None:
        state: State = "scoring" if is_trained else "training" if pause_of(run) is None else "paused"
    elif is_trained:
        state = "scored" if scores is not None else "trained"
    else:
        state = "stopped"
    return RunEntry(
        path=run.path,
        name=_text(manifest["name"]) or run.path.name,
        state=state,
        started=_text(manifest.get("started")),
        model=_text(model.get("source")),
        steps=_whole(finished.get("steps")) if finished else curve.last_step,
        losses=curve.losses,
        train_loss=number_of(finished.get("train_loss")),
        valid_loss=number_of(finished.get("valid_loss")),
        seconds=number_of(finished.get("seconds")),
        headline=None if scores is None else headline_of(scores),
        problems=_problems(run),
        process=process,
        note=note,
        starts_from=_text(start.get("source")),
    )


def _scores(run: RunFolder) -> tuple[dict[str, Any] | None, str | None]:
    """scores.json, and what is unusual about it."""
    if not run.scores.is_file():
        return None, None
    try:
        scores = read_object(run.scores)
    except (OSError, ValueError) as error:
        return None, f"scores.json cannot be read: {error}"
    if not all(isinstance(scores.get(model), Mapping) for model in ("base", "tuned")):
        return None, "scores.json holds no scores"
    if "differences" not in scores:
        return scores, "scored by an earlier version"
    return scores, None


def headline_of(scores: Mapping[str, Any]) -> Headline | None:
    """The metric that ``scores`` names as its headline; of an earlier version's, bits per byte."""
    metric = scores.get("headline") or "bits_per_byte"
    if not isinstance(metric, str):
        return None
    base, tuned = (number_of(_mapping(_mapping(scores[model]).get(metric)).get("mean")) for model in ("base", "tuned"))
    if base is None or tuned is None:
        return None
    difference = _mapping(_mapping(scores.get("differences")).get(metric))
    return Headline(metric, base, tuned, _text(difference.get("verdict")))


def _problems(run: RunFolder) -> int:
    """How many problems findings.json tells of."""
    return sum(one.get("severity") == "problem" for one in read_list(run.findings))


def read_list(path: Path) -> list[Mapping[str, Any]]:
    """The JSON objects in a file's list; none where it is not there, or no list of objects."""
    try:
        found = _read(path)
    except (OSError, ValueError):
        return []
    return found if isinstance(found, list) and all(isinstance(one, Mapping) for one in found) else []


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises: OSError; ValueError, with a sentence, for what is none."""
    content = _read(path)
    if isinstance(content, dict):
        return content
    raise ValueError(f"{path.name} holds no JSON object")


def _read(path: Path) -> Any:
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited at for ever
        raise ValueError(f"{path.name} is no file")
    if path.stat().st_size > MOST_JSON_BYTES:
        raise ValueError(f"{path.name} has {path.stat().st_size:,} bytes, and is no file that mlxtune wrote")
    try:
        return parse_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path.name} is {error}") from error


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _whole(value: Any) -> int | None:
    return value if type(value) is int else None


def number_of(value: Any) -> float | None:
    """A finite number, or None."""
    try:
        return float(value) if type(value) in (int, float) and math.isfinite(value) else None
    except OverflowError:  # a whole number of hundreds of digits
        return None
