"""What a run shows of itself: to whom it tells how it goes, and what it says at its end.

Plain values and functions; knows nothing of how a run is made.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxtune.iteration.forecast import Forecast
from mlxtune.iteration.ready import Ready
from mlxtune.progress import Progress, silent
from mlxtune.runs.folder import RunFolder
from mlxtune.training.plan import EndedBy


@dataclass(frozen=True)
class Watch:
    """Who looks on while a run works: functions that are called, and one that is asked whether to stop."""

    progress: Progress = silent
    foretold: Callable[[Forecast], None] = lambda _found: None
    """Told what a run will take, where that was asked for."""
    started: Callable[[RunFolder, Ready], None] = lambda *_: None
    """Called when the first step is next."""
    warned: Callable[[str], None] = lambda _line: None
    """Told what a user should know though the run goes on."""
    paused: Callable[[int | None, str | None], None] = lambda _step, _why: None
    """Told after which step the run waits and why (None: somebody wished it through its folder), and None twice when
    the wait is over."""
    measured: Callable[[dict[str, Any]], None] = lambda _line: None
    """Given each line of metrics.jsonl."""
    trained: Callable[[], None] = lambda: None
    """Called when the last step is over; what is left may be stopped anywhere and done again."""
    should_stop: Callable[[], bool] = lambda: False
    """Asked before each step, and before the scoring; a run so stopped is saved and can be resumed."""


NOBODY = Watch()


@dataclass(frozen=True)
class RunResult:
    """How a run ended. ``scores`` is None where there was nothing to score on, or it was not asked for."""

    run_dir: Path
    ended_by: EndedBy
    steps: int
    train_loss: float | None
    """Of the last step."""
    valid_loss: float | None
    """The best."""
    seconds: float
    tokens: int
    target_tokens: int
    peak_memory_bytes: int
    trainable_parameters: int
    scores: dict[str, Any] | None = None
    findings: tuple[dict[str, Any], ...] = ()
    """What to look at, as findings.json has it."""
    interrupted: bool = False
    """Whether something is left to do for `resume_run`, because the run was asked to stop."""
