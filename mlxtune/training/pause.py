"""A pause between two steps: the state is saved, then all ranks wait together until it is over.

Nothing of the state changes meanwhile and no clock that a run is limited by goes on, so a pause leaves no trace in what
is learned. A checkpoint comes first: a run that waits may be killed, and loses nothing. Knows who is asked whether to
wait; nothing of how people ask. The price is that a wish is met after the step that is being made, not at once.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx

from mlxtune.device.distributed import Ranks

LOOK_EVERY_S = 0.25


@dataclass(frozen=True)
class Pause:
    """Who decides on a pause, and who is told of it; as it stands, nobody.

    ``is_asked`` is looked at between steps. ``began`` is told the last step that was made, once it is saved; ``ended``
    is called when the wait is over, whether the run then goes on or stops. ``wait`` passes the time between two looks.
    ``rest`` is told how many seconds a step took, and may pass some more before the next.
    """

    is_asked: Callable[[], bool] = lambda: False
    began: Callable[[int], None] = lambda _step: None
    ended: Callable[[], None] = lambda: None
    wait: Callable[[], None] = lambda: time.sleep(LOOK_EVERY_S)
    rest: Callable[[float], None] = lambda _seconds: None


NEVER = Pause()


def stops_here(
    pause: Pause, ranks: Ranks, should_stop: Callable[[], bool], *, step: int, save: Callable[[], None]
) -> bool:
    """Between two steps: wait for as long as a pause is asked for; whether to stop then.

    Several ranks ask each other at every step, and one's wish is that of all: they wait, go on and stop at the same
    step. A process that is alone is asked whether to stop before each batch, and here only while it waits.

    Args:
        step: the last one that was made.
        save: brings the state to the disk, where it is not there already.
    """

    def asked() -> tuple[bool, bool]:
        waits = pause.is_asked()
        if ranks.is_alone:
            return waits, waits and should_stop()
        table = ranks.gather([waits, should_stop()])
        return bool(table[:, 0].any()), bool(table[:, 1].any())

    waits, stops = asked()
    if stops or not waits:
        return stops
    save()
    mx.clear_cache()  # what is kept to be quick is others' while nothing is done
    pause.began(step)
    while waits and not stops:
        pause.wait()
        waits, stops = asked()
    pause.ended()
    return stops
