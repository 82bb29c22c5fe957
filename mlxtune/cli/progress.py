"""How far long work is, told on standard error: a bar on a terminal, a line now and then elsewhere.

Each view is a ``mlxtune.progress.Progress``, to be handed to the work as it is. Knows units and time, nothing of the
work. rich is imported when the first bar is drawn.
"""

import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import rich.progress

SECONDS_BETWEEN_LINES = 5.0


class ProgressView:
    """Draws nothing: the view of ``--quiet`` and of tests."""

    def __call__(self, what: str, done: int, total: int) -> None:
        """Take note that ``done`` of ``total`` is done of ``what``, whose unit may follow a colon; total 0: unknown.

        Work may come inside other work, as validation does in training: each ``what`` has its own line.
        """

    def detail(self, text: str) -> None:
        """What to show at the end of the line that moves next, such as a loss."""

    def close(self) -> None:
        """Leave the terminal as it should be; a later call starts anew."""


class Lines(ProgressView):
    """Plain lines: one at the start of each piece of work, one at its end, and between them one every five seconds,
    with the time that is left.
    """

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._begun: dict[str, tuple[float, int]] = {}
        self._written_at: dict[str, float] = {}
        self._detail = ""

    def __call__(self, what: str, done: int, total: int) -> None:
        detail, self._detail = self._detail, ""
        now, ended = self._clock(), 0 < total <= done
        start, first = self._begun.setdefault(what, (now, done))
        if not ended and now - self._written_at.get(what, float("-inf")) < SECONDS_BETWEEN_LINES:
            return
        self._written_at[what] = now
        if ended:
            del self._written_at[what], self._begun[what]
        name, _, unit = what.partition(":")
        left = ""
        if now > start and first < done < total:
            left = f", about {duration((now - start) / (done - first) * (total - done))} left"
        self._write(f"{name}: {amount(done, total, unit.strip())}{left}  {detail}".rstrip())

    def detail(self, text: str) -> None:
        self._detail = text

    def close(self) -> None:
        self._begun.clear()
        self._written_at.clear()


class Bars(ProgressView):
    """Bars that move. One inside another goes when its work is done; the last one stays as a line."""

    def __init__(self) -> None:
        self._bars: rich.progress.Progress | None = None
        self._tasks: dict[str, rich.progress.TaskID] = {}
        self._detail: str | None = None

    def __call__(self, what: str, done: int, total: int) -> None:
        name, _, unit = what.partition(":")
        if self._bars is None:
            self._bars = _new_bars()
            self._bars.start()
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(name, amount="", detail="")
        task = self._tasks[what]
        if self._detail is not None:
            self._bars.update(task, detail=self._detail)
            self._detail = None
        self._bars.update(task, completed=done, total=total or None, amount=amount(done, total, unit.strip()))
        if 0 < total <= done:
            del self._tasks[what]
            if self._tasks:
                self._bars.remove_task(task)
            else:
                self.close()

    def detail(self, text: str) -> None:
        self._detail = text

    def close(self) -> None:
        if self._bars is not None:
            self._bars.stop()
        self._bars, self._tasks = None, {}


def _new_bars() -> "rich.progress.Progress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[amount]}", markup=False),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[detail]}", markup=False),
        console=Console(stderr=True),
        redirect_stdout=False,  # data that is piped on must not be drawn into the bar
    )


def amount(done: int, total: int, unit: str) -> str:
    """``3/10 rows``, ``12.5/98.4 MB``, or without the total where it is not known."""
    numbers = [done, total] if total > 0 else [done]
    if unit == "bytes":
        return "/".join(f"{number / 1e6:.1f}" for number in numbers) + " MB"
    return " ".join(["/".join(str(number) for number in numbers), unit]).rstrip()


def duration(seconds: float) -> str:
    """``40 s``, ``5 min``, ``2.5 h``."""
    if seconds < 90:  # noqa: PLR2004 - below it minutes say too little
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"  # noqa: PLR2004 - 90 minutes


def choose_view(*, quiet: bool) -> ProgressView:
    """The view that fits where standard error goes."""
    if quiet:
        return ProgressView()
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        return Bars()
    return Lines(lambda line: click.echo(line, err=True))
