"""A sweep's folder: what lies where, what the sweep is, and who is at which trial.

``sweep.json`` says what is tried and when to end; the state of the trials is study.db's. A process that works on a
trial holds a lock of that trial's, which goes with the process however it ends: a trial that runs by the study and
whose lock is free was left behind, and is taken up by whoever finds it. The price: file systems whose locks do not
reach other machines (some network shares) take one machine only. The folder is its owner's alone.
"""

import contextlib
import fcntl
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from mlxtune.errors import OutputExistsError, RunError, UsageError
from mlxtune.files import new_folder, write_json, write_text
from mlxtune.iteration.sweep.space import Dimension, Point, from_json, to_json

SWEEPS = Path("sweeps")
"""Where sweeps go that are given no folder, seen from the working folder."""

Kind = Literal["settings", "data_sizes"]


@dataclass(frozen=True)
class SweepFolder:
    """The places in one sweep's folder."""

    path: Path

    @property
    def recipe(self) -> Path:
        """As its owner wrote it."""
        return self.path / "recipe.yaml"

    @property
    def base(self) -> Path:
        """The recipe that all trials begin with: the settings that were given, with absolute paths."""
        return self.path / "recipe.base.json"

    @property
    def plan(self) -> Path:
        return self.path / "sweep.json"

    @property
    def study(self) -> Path:
        return self.path / "study.db"

    @property
    def inputs(self) -> Path:
        """What the trials' validation losses were measured with, from the first trial on."""
        return self.path / "inputs.json"

    @property
    def trials(self) -> Path:
        return self.path / "trials"

    @property
    def parts(self) -> Path:
        """Parts of the training rows, where their number is what is tried."""
        return self.path / "parts"

    @property
    def attempts(self) -> Path:
        return self.path / "attempts"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def winner(self) -> Path:
        """The winner's recipe."""
        return self.path / "winner.yaml"

    @property
    def page(self) -> Path:
        return self.path / "sweep.html"

    @property
    def readme(self) -> Path:
        return self.path / "README.md"

    def run_of(self, number: int) -> Path:
        """The run folder of a trial."""
        return self.trials / f"{number:04d}"


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep is: from its first trial on all but the limits stays as it is."""

    kind: Kind
    name: str
    """The recipe's."""
    recipe: str
    """The recipe's file, for messages and the commit of its checkout; it is not read again."""
    seed: int
    dimensions: tuple[Dimension, ...]
    first: Point | None
    """What trial 0 has: the recipe's own values, where they are among those that are tried."""
    points: tuple[Point, ...]
    """All trials in order, where they are not drawn."""
    trials: int | None
    hours: float | None
    """Limits; None where there is none."""
    rows: int
    """Of data.train, each once, to say what a share of them is."""
    steps: int
    """Updates that all rows take, by the recipe: what each part is trained for, where parts are tried."""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "dimensions": to_json(self.dimensions)}


def create_sweep(
    path: Path | None,
    plan: SweepPlan,
    *,
    recipe_text: str,
    base: Mapping[str, Any],
    fill: Callable[[SweepFolder], object] = lambda _: None,
) -> SweepFolder:
    """A new sweep's folder, whole from the moment that it is there; its study is made when it is first opened.

    Args:
        path: the folder itself, which must be new or empty; else one below ``sweeps/``, named after recipe and time.
        recipe_text, base: the recipe as written, and as all trials begin with it.
        fill: writes what else is to be in it from the beginning.

    Raises: OutputExistsError, if ``path`` is taken.
    """
    made = path or _fresh(SWEEPS / f"{plan.name}-{datetime.now().astimezone():%Y%m%d-%H%M%S}")
    refuse_taken(made)
    with new_folder(made) as part:
        sweep = SweepFolder(part)
        sweep.trials.mkdir(mode=0o700)
        write_text(sweep.recipe, recipe_text)
        write_json(sweep.base, base)
        write_json(sweep.plan, plan.to_json())
        fill(sweep)
    return SweepFolder(made)


def _fresh(path: Path) -> Path:
    number, candidate = 1, path
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate


def refuse_taken(path: Path) -> None:
    """Raises: OutputExistsError, if ``path`` is there and is no empty folder."""
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        remedy = "choose another --sweep-dir"
        if SweepFolder(path).plan.is_file():
            remedy += f", or go on with --resume {path}"
        raise OutputExistsError("the sweep's folder exists already", where=path, remedy=remedy)


def open_sweep(path: Path) -> tuple[SweepFolder, SweepPlan]:
    """An existing sweep. Raises: UsageError, if there is none; RunError, if sweep.json is not as mlxtune wrote it."""
    sweep = SweepFolder(path)
    if not sweep.plan.is_file():
        what = "this folder holds no sweep" if path.is_dir() else "there is no such sweep"
        raise UsageError(what, where=path, remedy=f"name a folder below {SWEEPS}/, or the one --sweep-dir made")
    try:
        told = json.loads(sweep.plan.read_text(encoding="utf-8"))
        points = tuple(told.pop("points"))
        return sweep, SweepPlan(**{**told, "dimensions": from_json(told["dimensions"]), "points": points})
    except (OSError, ValueError, TypeError, KeyError) as error:
        remedy = "put the file back as mlxtune wrote it, or start a new sweep"
        raise RunError(f"cannot be read: {error}", where=sweep.plan, remedy=remedy) from error


@contextlib.contextmanager
def deciding(sweep: SweepFolder) -> Iterator[None]:
    """Keep other processes waiting while this one decides what to do next: which trial, and whether it is the last."""
    with (sweep.path / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclass
class Claims:
    """The trials, and other work by name, that this process has taken."""

    sweep: SweepFolder

    def __post_init__(self) -> None:
        self._held: dict[str, Any] = {}

    def take(self, name: str) -> bool:
        """Whether this process has it now; False, if another has."""
        if name in self._held:
            return True
        folder = self.sweep.path / ".claims"
        folder.mkdir(mode=0o700, exist_ok=True)
        file = (folder / name).open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return False
        self._held[name] = file
        return True

    def leave(self, name: str) -> None:
        """Give it back."""
        if (file := self._held.pop(name, None)) is not None:
            file.close()

    def leave_all(self) -> None:
        """Give all back."""
        for name in list(self._held):
            self.leave(name)
