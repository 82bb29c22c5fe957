"""A run's trackers (``report_to``): told of every line of metrics.jsonl, and never in the way of the training.

A tracker is a module here, named as the recipe names it, with the package it needs and ``open_tracker``. It gets a
run's earlier lines first, then each new one as it comes. metrics.jsonl remains the truth: a tracker that fails is named
once and told no more. The clock is the run's: the time it began and the seconds that the lines themselves say.
"""

import contextlib
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from types import ModuleType
from typing import Any, Protocol

from mlxtune.errors import RecipeError
from mlxtune.iteration.trackers.scalars import scalars_of, seconds_of
from mlxtune.iteration.watch import Watch
from mlxtune.recipe.schema import Recipe
from mlxtune.runs.folder import RunFolder
from mlxtune.runs.metrics import read_metrics

LONGEST_REASON = 200
"""Characters of a tracker's own words in a warning."""


class Tracker(Protocol):
    """What keeps or shows a run's numbers elsewhere. Whatever its functions raise, the run goes on without it."""

    def add(self, step: int, values: Mapping[str, float], *, at: float) -> None: ...

    def close(self) -> None: ...


Opener = Callable[[str, RunFolder, Recipe, datetime], Tracker]


def check_trackers(names: Sequence[str]) -> None:
    """Raises: RecipeError, if the package of a tracker is not installed."""
    for name in names:
        found = importlib.util.find_spec(_module(name).PACKAGE)
        if found is None or found.origin is None:  # a mere folder of that name in the working folder has no origin
            raise RecipeError(
                f"report_to has {name}, whose package is not installed",
                where="report_to",
                remedy=f"pip install 'mlxtune[{name}]', or take {name} out of report_to",
            )


@contextlib.contextmanager
def tracked(run: RunFolder, recipe: Recipe, watch: Watch, *, open_tracker: Opener | None = None) -> Iterator[Watch]:
    """``watch``, that also tells the recipe's trackers of what is measured; they are closed after the block.

    Args:
        open_tracker: opens a tracker by name; else the one in its module does.
    """
    open_tracker = open_tracker or _open
    if not recipe.report_to:
        yield watch
        return
    started = datetime.fromisoformat(run.read_manifest()["started"])
    listening = _Listening(watch.warned, started.timestamp())
    for name in recipe.report_to:
        with listening.while_it_works(name):
            listening.trackers[name] = open_tracker(name, run, recipe, started)
    for line in read_metrics(run.metrics):
        listening.hear(line)

    def measured(line: dict[str, Any]) -> None:
        watch.measured(line)
        listening.hear(line)

    try:
        yield replace(watch, measured=measured)
    finally:
        listening.close()


class _Listening:
    """The trackers that still work, and how late it is in the run."""

    def __init__(self, warned: Callable[[str], None], started: float) -> None:
        self.trackers: dict[str, Tracker] = {}
        self.at = started
        self._warned = warned

    def hear(self, line: Mapping[str, Any]) -> None:
        """Tell all of one line."""
        self.at += seconds_of(line)
        for name, tracker in list(self.trackers.items()):
            with self.while_it_works(name):
                tracker.add(int(line["step"]), scalars_of(line), at=self.at)

    def close(self) -> None:
        for name, tracker in list(self.trackers.items()):
            with self.while_it_works(name):
                tracker.close()

    @contextlib.contextmanager
    def while_it_works(self, name: str) -> Iterator[None]:
        """What fails inside is told once, and the tracker no more."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - another's program fails in any way, and is no reason to end a training
            self.trackers.pop(name, None)
            said = (str(error).splitlines() or [""])[0][:LONGEST_REASON]
            self._warned(
                f"{name} failed and is told no more ({type(error).__name__}: {said}); the run goes on, and "
                "metrics.jsonl has every step"
            )


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"mlxtune.iteration.trackers.{name}")


def _open(name: str, run: RunFolder, recipe: Recipe, started: datetime) -> Tracker:
    return _module(name).open_tracker(run, recipe, started=started)
