"""A run's curves as they grow, in a bounded number of points: what the live page draws, and how long the rest takes.

Each curve keeps means with the range around them; when it has too many, neighbours become one. So memory, and what is
sent, stay the same however long a run is, and a spike stays visible as range. Knows lines of metrics.jsonl; the price
is that an old point is a mean over many steps.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlxtune.runs.listing import number_of

POINTS = 240
"""Of a curve at least, and twice as many at most: what a chart on the page has room for."""
RECENT_STEPS = 50
"""That the time of a step is told by."""
NAMES = ("loss", "valid_loss", "reward", "learning_rate", "grad_norm", "tokens_per_s", "peak_memory_bytes")

Point = tuple[float, float, float, float]
"""A step, the mean of the values around it, the lowest and the highest of them."""


@dataclass
class Curve:
    """One value over the steps."""

    sums: list[tuple[float, float, float, float]] = field(default_factory=list)
    """Of each group of ``width`` values: the sums of the steps and of the values, the lowest and the highest."""
    width: int = 1
    filled: int = 0
    """How many the last group has."""
    last: tuple[int, float] | None = None

    def add(self, step: int, value: float) -> None:
        if not self.sums or self.filled == self.width:
            if len(self.sums) == 2 * POINTS:
                self._halve()
            self.sums.append((0.0, 0.0, value, value))
            self.filled = 0
        steps, total, low, high = self.sums[-1]
        self.sums[-1] = (steps + step, total + value, min(low, value), max(high, value))
        self.filled += 1
        self.last = step, value

    def _halve(self) -> None:
        pairs = zip(self.sums[::2], self.sums[1::2], strict=True)
        self.sums = [(a[0] + b[0], a[1] + b[1], min(a[2], b[2]), max(a[3], b[3])) for a, b in pairs]
        self.width *= 2

    def points(self) -> list[Point]:
        """In the order of steps."""
        counts = [self.width] * len(self.sums)
        if counts:
            counts[-1] = self.filled
        return [
            (steps / count, total / count, low, high)
            for (steps, total, low, high), count in zip(self.sums, counts, strict=True)
        ]


class Curves:
    """All that is kept of metrics.jsonl."""

    def __init__(self) -> None:
        self.curves = {name: Curve() for name in NAMES}
        self.step: int | None = None
        self.seconds = 0.0
        self.tokens = 0
        self.skipped = 0
        self.was_short_of_memory = False
        self.best: tuple[int, float] | None = None
        """The lowest loss on validation rows so far, and its step."""
        self._recent: deque[tuple[float, float]] = deque(maxlen=RECENT_STEPS)

    def add(self, line: Mapping[str, Any]) -> None:
        """Take in one line; what is none of mlxtune's is passed over."""
        step = line.get("step")
        if type(step) is not int:
            return
        others = ("seconds", "valid_seconds", "samples_seconds", "tokens")
        values = {name: number_of(line.get(name)) for name in (*NAMES, *others)}
        for name in NAMES:
            if (value := values[name]) is not None:
                self.curves[name].add(step, value)
        if (loss := values["valid_loss"]) is not None:
            self.best = min(self.best or (step, loss), (step, loss), key=lambda look: look[1])
            if self._recent:  # a share of the time of the steps before it
                made, looked = self._recent[-1]
                self._recent[-1] = made, looked + (values["valid_seconds"] or 0.0) + (values["samples_seconds"] or 0.0)
        elif "out_of_memory" in line:  # of the step that is being made
            self.was_short_of_memory = True
        else:
            self.step = step
            self.skipped += "skipped" in line
            self.seconds += values["seconds"] or 0.0
            self.tokens += int(values["tokens"] or 0)
            self._recent.append((values["seconds"] or 0.0, 0.0))

    def seconds_left(self, total_steps: int | None, max_minutes: float | None) -> float | None:
        """How long the run still takes, at the rate of its last steps, validation included; None: not known."""
        if not self._recent or self.step is None:
            return None
        made = sum(seconds for seconds, _ in self._recent)
        with_looks = made + sum(seconds for _, seconds in self._recent)
        ends = []
        if total_steps is not None:
            ends.append(max(0, total_steps - self.step) * with_looks / len(self._recent))
        if max_minutes is not None and made > 0:
            ends.append(max(0.0, 60 * max_minutes - self.seconds) * with_looks / made)  # minutes count steps alone
        return min(ends, default=None)

    def share_done(self, total_steps: int | None, max_minutes: float | None) -> float | None:
        """Of the limit that is nearest, from 0 to 1; None: there is none."""
        shares = []
        if total_steps:
            shares.append((self.step or 0) / total_steps)
        if max_minutes:
            shares.append(self.seconds / (60 * max_minutes))
        return min(1.0, max(shares)) if shares else None
