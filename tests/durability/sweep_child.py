"""A sweep in a process that kills itself at one point of its work: python sweep_child.py JSON.

The points: ``drawn N``, when trial N is in the study and has no run yet; ``line N M``, when trial N has measured its
M-th line; ``cut N``, when trial N was ended early and the study does not know yet; ``over N``, when the study does.
"""

import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path

from mlxtune.iteration.sweep.study import Study
from mlxtune.iteration.sweep.sweep import SweepWatch, resume_sweep, run_sweep
from mlxtune.iteration.watch import Watch

asked = json.loads(sys.argv[1])
at = [0]
lines: Counter[int] = Counter()


def reach(point: str) -> None:
    if point == asked["point"]:
        os.kill(os.getpid(), signal.SIGKILL)


def begun(trial) -> None:
    at[0] = trial.number
    reach(f"drawn {trial.number}")


def measured(_line) -> None:
    lines[at[0]] += 1
    reach(f"line {at[0]} {lines[at[0]]}")


finish = Study.finish


def finish_past_points(self, number, state, *arguments, **facts) -> None:
    if state == "pruned":
        reach(f"cut {number}")
    finish(self, number, state, *arguments, **facts)
    reach(f"over {number}")


Study.finish = finish_past_points
watch = SweepWatch(begun=begun, trial=Watch(measured=measured))
if Path(asked["sweep_dir"]).exists():
    resume_sweep(asked["sweep_dir"], device="cpu", watch=watch)
else:
    run_sweep(
        asked["recipe"],
        asked["settings"],
        trials=asked["trials"],
        sweep_dir=asked["sweep_dir"],
        device="cpu",
        watch=watch,
    )
