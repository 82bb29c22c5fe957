"""``mlxtune ARGUMENTS`` in a process that signals itself at one point of its work: python child.py JSON ARGUMENTS.

The points are all that changes the run folder (files opened to be written, flushed, renamed, removed), seen from
outside: Python's audit events tell of them before they happen, so that a kill at a point leaves what stands on the disk
between the one before and this one. Flushes raise no such event; they, the half-written line, batches, each look during
a pause and the beginning of the training are seen by a function put in the place of the program's own. A point's name
holds how many lines metrics.jsonl has, so that a resumed run comes to the same points.
"""

import hashlib
import json
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
RANDOM = re.compile(r"\.[0-9a-f]{8}(?=$|\.old$)")
WISHES: dict[str, Any] = {"PAUSE": "pause", "GO_ON": None, "STOP": "stop"}
PLUGS = {"UNPLUG": True, "PLUG_IN": False}
"""Whether the machine runs on its battery from then on."""
F_GETPATH = 50  # macOS's


@dataclass
class Points:
    """The points of one process, as they are reached."""

    run_dir: Path
    signals: dict[str, str]
    """By the point's name: the name of the signal that is sent there, of a wish (`WISHES`), or of what becomes of the
    plug (`PLUGS`)."""
    trace: Path | None
    """Where all points go, a line each: a digest of what is on the disk, and the name."""
    has_begun: bool = False
    """Whether the first step is next, or was made."""
    is_looking: bool = False
    on_battery: bool = False
    met: Counter[str] = field(default_factory=Counter)

    def reach(self, what: str, first: Callable[[], object] = lambda: None) -> None:
        """A point is reached; ``first`` is what happens there yet, if it is where a signal is sent."""
        self.is_looking = True  # what is opened here is nobody's point
        try:
            metrics = self.run_dir / "metrics.jsonl"
            lines = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
            name = f"{f'{lines} lines' if self.has_begun else 'opening'}: {what}"
            self.met[name] += 1
            if self.met[name] > 1:
                name += f" #{self.met[name]}"
            if self.trace:
                with self.trace.open("a") as file:
                    file.write(f"{self.digest()} {name}\n")
            if name in self.signals:
                first()
                self.wish(self.signals[name])
        finally:
            self.is_looking = False
        asked = self.signals.get(name, "GO_ON")
        self.on_battery = PLUGS.get(asked, self.on_battery)
        if asked not in WISHES | PLUGS:
            os.kill(os.getpid(), signal.Signals[self.signals[name]])

    def wish(self, name: str) -> None:
        """Ask through the folder for what another process would ask for there."""
        if name in WISHES:
            from mlxtune.runs.control import ask
            from mlxtune.runs.folder import RunFolder

            ask(RunFolder(self.run_dir), WISHES[name])

    def digest(self) -> str:
        """Of the run folder, and of what is to become it: the names and contents of all files."""
        found = hashlib.sha256()
        for path in sorted(self.run_dir.parent.rglob("*")):
            if (shown := self.shown(path)) is not None:
                content = path.read_bytes() if path.is_file() else b""
                found.update(f"{shown} {len(content)} ".encode() + content)
        return found.hexdigest()

    def shown(self, path: Any) -> str | None:
        """A path in a point's name; None for what is not in the run folder, and for logs, of which nothing is read."""
        path = Path(os.path.abspath(os.fsdecode(path)))  # noqa: PTH100 - a link stays a link
        if not path.is_relative_to(self.run_dir.parent):
            return None
        parts = [RANDOM.sub(".part", part) for part in path.relative_to(self.run_dir.parent).parts]
        if parts and parts[0] == f".{self.run_dir.name}.part":
            return "/".join(["(new)", *parts[1:]])
        if parts[:1] != [self.run_dir.name] or parts[1:2] == ["logs"]:
            return None
        return "/".join(parts[1:]) or "(run)"

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Python's audit hook."""
        known = EVENTS.get(event)
        if known is None or self.is_looking or isinstance(arguments[0], int):
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITING):
            return
        paths = list(arguments[: known.count("{")])
        if event in ("os.remove", "os.rmdir") and arguments[1] != -1:  # a folder that is being emptied
            paths = [Path(path_of(arguments[1])) / os.fsdecode(paths[0])]
        shown = [self.shown(path) for path in paths]
        if shown[0] is not None:
            self.reach(known.format(*shown))


EVENTS = {
    "open": "write {}",
    "os.mkdir": "make {}",
    "os.rename": "rename {} to {}",
    "os.remove": "remove {}",
    "os.rmdir": "remove folder {}",
}


def path_of(descriptor: int) -> str:
    """The path of an open file."""
    if sys.platform == "darwin":
        import fcntl

        return fcntl.fcntl(descriptor, F_GETPATH, bytes(1024)).rstrip(b"\0").decode()
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


def watch(points: Points, *, compiled: bool) -> None:
    """Make the program come past ``points``."""
    import mlx.core as mx

    import mlxtune.files
    from mlxtune.device.power import PowerReadings
    from mlxtune.iteration import opening, run
    from mlxtune.training import throttle

    def read() -> PowerReadings:
        return PowerReadings(on_battery=points.on_battery)

    flush, train, open_device = mlxtune.files.flush, run.train, opening.open_device

    def flush_at_point(descriptor: int) -> None:
        if (path := points.shown(path_of(descriptor))) is not None:
            points.reach(f"flush {path}")
        flush(descriptor)

    def train_past_points(state: Any, training: Any) -> Any:
        def record(line: dict[str, Any]) -> None:
            points.reach("half a line", first=lambda: write_half(json.dumps(line)))
            training.record(line)

        def make_batch(rows: Any) -> Any:
            points.reach("batch")
            return training.make_batch(rows)

        pause = replace(training.pause, wait=lambda: points.reach("wait"))
        points.has_begun = True
        return train(state, replace(training, record=record, make_batch=make_batch, pause=pause))

    def write_half(text: str) -> None:
        with (points.run_dir / "metrics.jsonl").open("a") as file:
            file.write(text[: len(text) // 2])

    def open_compiling_device(choice: str) -> Any:
        device = open_device(choice)
        mx.enable_compile()
        return replace(device, compiles=True)

    throttle.LOOK_EVERY_S = throttle.LOOK_SHARE = 0.0
    run.Throttle = partial(throttle.Throttle, read=read)
    mlxtune.files.flush = flush_at_point
    run.train = train_past_points
    if compiled:
        opening.open_device = open_compiling_device
    sys.addaudithook(points.audit)


if __name__ == "__main__":
    from mlxtune.cli import main

    asked, *arguments = sys.argv[1:]
    settings = json.loads(asked)
    trace = settings.get("trace")
    points = Points(Path(settings["run_dir"]), settings.get("signals", {}), Path(trace) if trace else None)
    watch(points, compiled=settings.get("compiled", False))
    main(arguments)
