"""How long a sweep has been worked at, over all attempts: what ``--hours`` limits.

An attempt is a process that works in the sweep. Each writes down from when to when it did, every few seconds; the time
that any of them worked counts once, and the time between a kill and the next attempt not at all. The price: the seconds
since a killed process last wrote are not counted.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mlxtune.files import write_json

WRITTEN_EVERY_S = 5.0


@dataclass
class Clock:
    """The time of one attempt, which `start_clock` starts."""

    path: Path
    now: Callable[[], float]
    begun: float
    written: float = field(default=0.0)

    def tick(self, *, at_once: bool = False) -> None:
        """Write down that work goes on, if that is due."""
        now = self.now()
        if at_once or now - self.written >= WRITTEN_EVERY_S:
            self.written = now
            write_json(self.path, {"begun": self.begun, "until": now})

    def seconds(self) -> float:
        """That the sweep was worked at until now."""
        self.tick()
        others = [span for path, span in _spans(self.path.parent).items() if path != self.path]
        return _union([*others, (self.begun, self.now())])


def start_clock(folder: Path, now: Callable[[], float] = time.time) -> Clock:
    """A new attempt. To be called by one process at a time.

    Args:
        folder: where attempts are written down.
        now: seconds of a clock that all processes have.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    numbers = [int(path.stem) for path in _spans(folder)]
    clock = Clock(folder / f"{max(numbers, default=0) + 1}.json", now, now())
    clock.tick(at_once=True)
    return clock


def seconds_worked(folder: Path) -> float:
    """That a sweep was worked at, in all attempts."""
    return _union(list(_spans(folder).values()))


def _spans(folder: Path) -> dict[Path, tuple[float, float]]:
    spans = {}
    for path in folder.glob("[0-9]*.json"):
        told = json.loads(path.read_text(encoding="utf-8"))
        spans[path] = (told["begun"], told["until"])
    return spans


def _union(spans: list[tuple[float, float]]) -> float:
    """The length of the union of spans of time."""
    total, end = 0.0, float("-inf")
    for begun, until in sorted(spans):
        total += max(0.0, until - max(begun, end))
        end = max(end, until)
    return total
