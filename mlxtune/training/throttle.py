"""Whether the machine wants training to wait or to rest: on battery, too hot, short of memory, or all of it in use.

A function of readings and a clock that are handed in; looks at the machine every few seconds at most, never for each
step, and asks nothing of arrays. Knows when to wait; nothing of how a run does it (pause.py). The price: what the
machine says is met up to `LOOK_EVERY_S` later, and a step that is being made is finished first.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mlxtune.device.power import PowerReadings, read_power

LOOK_EVERY_S = 5.0
LOOK_SHARE = 20.0
"""Times what a look takes: no sooner does the next one follow, so that looks take a twentieth of the time at most."""
PATIENCE_S = 300.0
"""Of a wait for memory: what is short after it is short because of this run, and waiting does not help."""
SLOW_SHARE = 0.5
"""Of the time, that steps take on a machine that is hot."""
SLICE_S = 0.25
"""Of a rest, after which it is asked whether to stop."""


@dataclass(frozen=True)
class Manners:
    """What to heed, as `recipe.schema.ThrottleSettings` says it; as it stands, nothing."""

    battery: Literal["pause", "ignore"] = "ignore"
    thermal: Literal["slow", "pause", "ignore"] = "ignore"
    memory_pressure: Literal["pause", "ignore"] = "ignore"
    max_gpu_share: float = 1.0

    @property
    def looks(self) -> bool:
        """Whether the machine is asked anything at all."""
        return (self.battery, self.thermal, self.memory_pressure) != ("ignore", "ignore", "ignore")


class Throttle:
    """Asked between steps; remembers the last look at the machine.

    Args:
        read: one look at the machine.
        clock, sleep: seconds.
    """

    def __init__(
        self,
        manners: Manners,
        *,
        read: Callable[[], PowerReadings] = read_power,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._manners, self._read, self._clock, self._sleep = manners, read, clock, sleep
        self._readings = PowerReadings()
        self._look_at = float("-inf")
        self._short_since: float | None = None

    def why_to_wait(self) -> str | None:
        """What is the matter and what can be done, for people; None, if nothing is."""
        readings, heeds = self._look(), self._manners
        if heeds.battery == "pause" and readings.on_battery:
            return "on battery (plug in, or training.throttle.battery: ignore)"
        if heeds.thermal == "pause" and _is_hot(readings):
            return "too hot (let it cool down, or training.throttle.thermal: ignore)"
        if heeds.memory_pressure == "pause" and self._is_short_of_memory(readings):
            return "memory is short (close other programs, or training.throttle.memory_pressure: ignore)"
        return None

    def share(self) -> float:
        """The most of the time that steps may take now."""
        is_slow = self._manners.thermal == "slow" and _is_hot(self._look())
        return min(self._manners.max_gpu_share, SLOW_SHARE if is_slow else 1.0)

    def rest(self, seconds: float, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Sleep for so long that a step of ``seconds`` is at most its share of both."""
        left = seconds / self.share() - seconds
        while left > 0 and not should_stop():
            self._sleep(min(left, SLICE_S))
            left -= SLICE_S

    def _look(self) -> PowerReadings:
        started = self._clock()
        if self._manners.looks and started >= self._look_at:
            self._readings = self._read()
            ended = self._clock()
            self._look_at = ended + max(LOOK_EVERY_S, LOOK_SHARE * (ended - started))
        return self._readings

    def _is_short_of_memory(self, readings: PowerReadings) -> bool:
        """Whether other programs stand still, and have not for so long that it must be this run's doing."""
        if readings.memory_pressure != "critical":
            self._short_since = None
            return False
        if self._short_since is None:
            self._short_since = self._clock()
        return self._clock() - self._short_since < PATIENCE_S


def _is_hot(readings: PowerReadings) -> bool:
    return readings.thermal in ("heavy", "critical")
