"""TensorBoard's event files (the extra ``tensorboard``), in ``tensorboard/`` of the run's folder.

One file a run, written with TensorBoard's own record writer and without its event writer, which would put the machine's
name into the file's. ``tensorboard --logdir runs`` shows all runs together. Each attempt at a run writes its file anew
from metrics.jsonl, so that a resumed run has each step once; the price is that its old file goes.
"""

from collections.abc import Mapping
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from mlxtune.recipe.schema import Recipe
from mlxtune.runs.folder import RunFolder

FOLDER = "tensorboard"
PACKAGE = "tensorboard"
OURS = "events.out.tfevents.*.mlxtune.*"
FORMAT = "brain.Event:2"
"""How every event file of today begins."""


class TensorBoard:
    """One run's event file, open for writing."""

    def __init__(self, path: Path, started: float) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        events = import_module("tensorboard.compat.proto.event_pb2")  # classes that are made on import
        self._event: Any = events.Event
        self._summary: Any = import_module("tensorboard.compat.proto.summary_pb2").Summary
        self._writer = RecordWriter(path.open("xb"))
        self._write(self._event(wall_time=started, file_version=FORMAT))
        # A TensorBoard that is looking on forgets what it read of the file before.
        start = events.SessionLog(status=events.SessionLog.START)
        self._write(self._event(wall_time=started, step=0, session_log=start))

    def add(self, step: int, values: Mapping[str, float], *, at: float) -> None:
        """Add the values of a step, handed to the system before this returns; ``at`` in seconds since 1970."""
        parts = [self._summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(self._event(wall_time=at, step=step, summary=self._summary(value=parts)))

    def close(self) -> None:
        self._writer.close()

    def _write(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())
        self._writer.flush()


def open_tracker(run: RunFolder, recipe: Recipe, *, started: datetime) -> TensorBoard:  # noqa: ARG001 - a tracker's form
    """The run's event file, new and without a step. Raises: ImportError; OSError."""
    folder = run.path / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    before = sorted(folder.glob(OURS))
    number = 1 + max((int(path.suffix[1:]) for path in before if path.suffix[1:].isdigit()), default=0)
    begun = started.timestamp()
    tracker = TensorBoard(folder / f"events.out.tfevents.{begun:.0f}.mlxtune.{number}", begun)
    for path in before:
        path.unlink()
    return tracker
