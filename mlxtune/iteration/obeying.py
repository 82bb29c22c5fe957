"""A run that does what is wished of it through its folder, and what its machine wants: who is asked, who is told of it.

Knows the files of the wishes and who looks on; of the waiting itself training/pause.py knows, and of the machine
training/throttle.py. Of several ranks the first one alone looks into the folder and at its own machine, and the others
hear from it.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from mlxtune.iteration.watch import Watch
from mlxtune.runs.control import forget_wishes, note_end_of_pause, note_pause, wish_of
from mlxtune.runs.folder import RunFolder
from mlxtune.runs.log import Log
from mlxtune.training.pause import Pause
from mlxtune.training.throttle import Throttle

WISHED = "as was asked through the run's folder"


@contextlib.contextmanager
def obeying(run: RunFolder, watch: Watch, log: Log, throttle: Throttle) -> Iterator[tuple[Watch, Pause]]:
    """``watch``, that also stops where that is wished through the folder, and the pause that is wished there or that
    ``throttle`` wants.

    After the block no wish is left.
    """
    wishes = _Wishes(run, watch, log, throttle)

    def should_stop() -> bool:
        return watch.should_stop() or wishes.is_to_stop()

    try:
        yield (
            replace(watch, should_stop=should_stop),
            Pause(
                is_asked=wishes.is_to_wait,
                began=wishes.pause_began,
                ended=wishes.pause_ended,
                rest=lambda seconds: wishes.rest(seconds, should_stop),
            ),
        )
    finally:
        with contextlib.suppress(OSError):  # what ended the block is to be told, not that the folder has gone
            forget_wishes(run)


class _Wishes:
    """What has been wished so far: a wish to stop is told once, and not taken back once it was seen."""

    def __init__(self, run: RunFolder, watch: Watch, log: Log, throttle: Throttle) -> None:
        self._run = run
        self._watch = watch
        self._log = log
        self._throttle = throttle
        self._stops = False
        self._began = 0.0
        self._why: str | None = None
        self._paused_after: int | None = None
        self._share = 1.0

    def is_to_stop(self) -> bool:
        if not self._stops and wish_of(self._run) == "stop":
            self._stops = True
            self._log("asked to stop, through the run's folder")
            self._watch.warned("stopping, as was asked through the run's folder")
        return self._stops

    def is_to_wait(self) -> bool:
        """By a wish or for the machine's sake; while it waits, another reason is told as it comes up."""
        before, is_wished = self._why, wish_of(self._run) == "pause"
        self._why = WISHED if is_wished else self._throttle.why_to_wait()
        if self._why not in (None, before) and self._paused_after is not None:
            self._tell(self._paused_after)
        return self._why is not None

    def pause_began(self, step: int) -> None:
        self._began, self._paused_after = time.monotonic(), step
        self._tell(step)

    def pause_ended(self) -> None:
        self._paused_after = None
        note_end_of_pause(self._run)
        self._log(f"the pause is over, after {time.monotonic() - self._began:.0f} s")
        self._watch.paused(None, None)

    def rest(self, seconds: float, should_stop: Callable[[], bool]) -> None:
        """Between two steps; that the share of time changes is told once."""
        share = self._throttle.share()
        if share != self._share:
            self._share = share
            told = f"steps take {share:.0%} of the time from now on (training.throttle)"
            self._log(told)
            self._watch.warned(told)
        self._throttle.rest(seconds, should_stop)

    def _tell(self, step: int) -> None:
        why = None if self._why == WISHED else self._why
        note_pause(self._run, step, why)
        self._log(f"paused after step {step}" + (f", {WISHED}" if why is None else f": {why}"))
        self._watch.paused(step, why)
