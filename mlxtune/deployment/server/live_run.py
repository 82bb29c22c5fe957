"""What the live view tells of a run, looked up again whenever somebody asks, from the run's files alone.

The process that trains is never in the way, nor is it waited for: nothing is locked, and nothing is written but wishes.
A look reads what is new in metrics.jsonl and a few small files, so it costs the same however long the run is. Knows
what a folder holds; nothing of browsers. The price: what no file says, such as how far a validation is, is not shown.
"""

import secrets
import shlex
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlxtune.deployment.server.live_curves import Curves
from mlxtune.deployment.server.live_samples import Samples
from mlxtune.errors import RunError
from mlxtune.iteration.diagnose import findings_so_far
from mlxtune.iteration.diagnose.evidence import read_evidence
from mlxtune.runs.control import Wish, ask, pause_of, wish_of
from mlxtune.runs.folder import RunFolder
from mlxtune.runs.listing import RunEntry, number_of, read_entry, read_list, read_object
from mlxtune.runs.tail import Tail

READS_FOR_S = 0.5
"""Seconds of one look that go into what is new in metrics.jsonl; of a long file the rest comes with the next looks."""
FINDINGS_EVERY_S = 30.0
MOST_BYTES_FOR_FINDINGS = 16 << 20
"""Of metrics.jsonl: findings before the end read all of it, and of more they are left for the end."""
AT_WORK = ("training", "paused")


class LiveRun:
    """A run that is watched; any thread may look."""

    def __init__(self, path: Path) -> None:
        self._run = RunFolder(path)
        self._tail = Tail(self._run.metrics)
        self._curves = Curves()
        self._samples = Samples(self._run.samples, self._run.valid_samples)
        self._lines = 0
        self._began = secrets.token_hex(4)
        self._findings: list[dict[str, Any]] = []
        self._findings_at = float("-inf")
        self._lock = threading.Lock()

    def ask(self, wish: Wish | None) -> None:
        """As `control.ask`."""
        ask(self._run, wish)

    def look(self, seen: str = "") -> dict[str, Any]:
        """What is to be told, as JSON values.

        Args:
            seen: the ``version`` of the last look; curves and samples are left out where they are the same.
        """
        with self._lock:
            try:
                entry = read_entry(self._run.path)
                manifest = read_object(self._run.manifest)
            except (RunError, OSError, ValueError) as error:
                state = "broken" if self._run.path.is_dir() else "gone"
                return {"state": state, "path": str(self._run.path), "why": _why(error)}
            is_behind = self._read_on()
            self._samples.read()
            version = f"{self._began}-{self._lines}-{self._samples.version}"
            told = self._told(entry, manifest) | {"version": version, "is_behind": is_behind}
            if version != seen:
                told |= {
                    "curves": self._drawn(),
                    "samples": self._samples.to_json(),
                    "samples_step": self._samples.step,
                }
            return told

    def _read_on(self) -> bool:
        """Take in what is new in metrics.jsonl; whether more is there."""
        until = time.monotonic() + READS_FOR_S
        is_more = True
        while is_more and time.monotonic() < until:
            lines, anew, is_more = self._tail.look()
            if anew:
                self._curves, self._began = Curves(), secrets.token_hex(4)
            for line in lines:
                self._curves.add(line)
            self._lines += len(lines)
        return is_more

    def _told(self, entry: RunEntry, manifest: Mapping[str, Any]) -> dict[str, Any]:
        curves, limits, device = self._curves, _mapping(manifest.get("plan")), _mapping(manifest["device"])
        total_steps, max_minutes = number_of(limits.get("total_steps")), number_of(limits.get("max_minutes"))
        total_steps = None if total_steps is None else int(total_steps)
        is_at_work = entry.state in AT_WORK
        paused, finished = pause_of(self._run), _mapping(manifest.get("finished"))
        headline = entry.headline
        return {
            "state": entry.state,
            "path": str(entry.path),
            "name": entry.name,
            "model": entry.model,
            "started": entry.started,
            "device": f"{device.get('kind')}, {device.get('precision')}: {device.get('reason')}",
            "note": entry.note,
            "resume": shlex.join(["mlxtune", "train", "--resume", str(entry.path)]),
            "report": str(self._run.report) if self._run.report.is_file() else None,
            "wish": wish_of(self._run) if is_at_work else None,
            "paused_after": paused.step if paused is not None and entry.state == "paused" else None,
            "paused_since": paused.since if paused is not None and entry.state == "paused" else None,
            "paused_why": paused.why if paused is not None and entry.state == "paused" else None,
            "step": curves.step,
            "total_steps": total_steps,
            "max_minutes": max_minutes,
            "ended_by": finished.get("ended_by"),
            "share": curves.share_done(total_steps, max_minutes) if is_at_work or not finished else 1.0,
            "seconds": curves.seconds,
            "seconds_left": curves.seconds_left(total_steps, max_minutes) if is_at_work else None,
            "tokens": curves.tokens,
            "latest": {name: curve.last[1] for name, curve in curves.curves.items() if curve.last is not None},
            "best": None if curves.best is None else {"step": curves.best[0], "valid_loss": curves.best[1]},
            "skipped": curves.skipped,
            "was_short_of_memory": curves.was_short_of_memory,
            "headline": None
            if headline is None
            else {
                "metric": headline.metric,
                "base": headline.base,
                "tuned": headline.tuned,
                "verdict": headline.verdict,
            },
            "findings": self._look_at_findings(is_at_work=is_at_work),
        }

    def _look_at_findings(self, *, is_at_work: bool) -> list[dict[str, Any]]:
        if not is_at_work:
            return [_finding(one) for one in read_list(self._run.findings)]
        if time.monotonic() >= self._findings_at + FINDINGS_EVERY_S:
            self._findings_at = time.monotonic()
            try:
                if self._run.metrics.stat().st_size <= MOST_BYTES_FOR_FINDINGS:
                    found = findings_so_far(read_evidence(self._run))
                    self._findings = [_finding(one.to_json()) for one in found]
            except OSError:  # no step was made, or the folder is going
                self._findings = []
        return self._findings

    def _drawn(self) -> dict[str, Any]:
        """Of each curve its points, in few digits: a chart shows no more."""
        return {
            name: [[_short(number) for number in point] for point in curve.points()]
            for name, curve in self._curves.curves.items()
            if curve.last is not None
        }


def _finding(one: Mapping[str, Any]) -> dict[str, Any]:
    return {key: str(one[key]) if one.get(key) else None for key in ("severity", "sentence", "key", "remedy")}


def _short(number: float) -> float:
    return float(f"{number:.6g}")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _why(error: Exception) -> str:
    return error.message if isinstance(error, RunError) else str(error)
