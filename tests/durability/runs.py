"""Runs in child processes that are struck at a point of their work, and what makes two runs the same."""

import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxtune.iteration.run import resume_run, run_recipe
from mlxtune.iteration.watch import Watch
from mlxtune.runs.metrics import read_metrics
from mlxtune.training.checkpoint import checkpoints, newest_checkpoint

CHILD = Path(__file__).with_name("child.py")
SETTINGS = (
    "training.batch_size=5",  # of 12 rows: the last batch and the last window of an epoch are smaller
    "training.gradient_accumulation_steps=2",
    "training.epochs=3",
    "method.dropout=0.3",
    "evaluation.every_steps=2",
    "evaluation.samples=1",
    "checkpoint.every_steps=3",
)
"""Of a run of six steps, with validations after 2, 4 and 6 and checkpoints after 2, 3, 4 and 6."""

TIMES = ("seconds", "valid_seconds", "samples_seconds", "tokens_per_s", "peak_memory_bytes")


@dataclass(frozen=True)
class Ended:
    """How a child process ended."""

    code: int
    """Its exit code, or the negative number of the signal that killed it."""
    stdout: str
    stderr: str
    points: list[tuple[str, str]]
    """The points it came to: a digest of what was on the disk, and the name. Only where they were asked for."""


def child(recipe: Path, run_dir: Path, *, trace: bool = False, compiled: bool = False, **signals: str) -> Ended:
    """Train ``recipe`` in ``run_dir``, or go on there, in a process of its own.

    Args:
        trace: whether to note the points that it comes to.
        compiled: whether steps are compiled.
        signals: the names of the points at which the process sends itself a signal, by the signal's name, or wishes
            something of itself through the run folder: PAUSE, GO_ON, STOP.
    """
    arguments = ["train", str(recipe), *SETTINGS, "--run-dir", str(run_dir)]
    if run_dir.exists():
        arguments = ["train", "--resume", str(run_dir)]
    noted = run_dir.parent.with_name(f"{run_dir.parent.name}.trace")
    settings = {
        "run_dir": str(run_dir),
        "compiled": compiled,
        "trace": str(noted) if trace else None,
        "signals": {point: name for name, point in signals.items()},
    }
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    noted.unlink(missing_ok=True)
    command = [sys.executable, str(CHILD), json.dumps(settings), *arguments, "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    points = [tuple(line.split(" ", 1)) for line in noted.read_text().splitlines()] if trace else []
    return Ended(done.returncode, done.stdout, done.stderr, points)  # pyright: ignore[reportArgumentType]


def kill(recipe: Path, run_dir: Path, point: str, *, compiled: bool = False, **signals: str) -> None:
    """Let a child process train until it comes to ``point``, and be killed there; ``signals`` as of `child`."""
    ended = child(recipe, run_dir, compiled=compiled, SIGKILL=point, **signals)
    assert ended.code == -signal.SIGKILL, f"it never came to {point}:\n{ended.stderr}"


def finish(recipe: Path, run_dir: Path, watch: Watch | None = None) -> None:
    """Go on with a run in this process, or begin it if it was killed before it had its folder, until it is scored."""
    watch = watch or Watch()
    if run_dir.exists():
        resume_run(run_dir, device="cpu", watch=watch)
    else:
        run_recipe(recipe, SETTINGS, device="cpu", run_dir=run_dir, watch=watch)


def contents(run_dir: Path) -> dict[str, Any]:
    """All that a run leaves, but for its logs, for times and memory, and for a window that one was stopped in."""
    found: dict[str, Any] = {}
    for path in sorted(run_dir.rglob("*")):
        name = str(path.relative_to(run_dir))
        if path.is_file() and not name.startswith("logs/") and path.name != "window.safetensors":
            found[name] = None
    for name in ("row_scores.json.gz", "samples.jsonl", "valid_samples.jsonl", "checkpoints/latest.json"):
        found[name] = (run_dir / name).read_bytes()
    scores = json.loads((run_dir / "scores.json").read_text())
    found["scores.json"] = scores | {"cost": {name: without_times(cost) for name, cost in scores["cost"].items()}}
    tensors = [name for name in found if name.startswith("adapter/") or name.endswith(".safetensors")]
    found |= {name: (run_dir / name).read_bytes() for name in tensors}
    found["metrics.jsonl"] = [without_times(line) for line in read_metrics(run_dir / "metrics.jsonl")]
    found["run.json"] = without_times(json.loads((run_dir / "run.json").read_text())["finished"])
    return found


def without_times(values: dict[str, Any]) -> dict[str, Any]:
    """``values``, but for what the clock and the memory say."""
    return {name: value for name, value in values.items() if name not in TIMES}


def assert_whole(run_dir: Path) -> None:
    """Whatever a killed process left under its final name is whole."""
    if not run_dir.exists():
        return
    for name in ("recipe.resolved.json", "run.json"):
        json.loads((run_dir / name).read_text())
    for name in ("checkpoints/latest.json", "scores.json"):
        if (run_dir / name).exists():
            json.loads((run_dir / name).read_text())
    if (run_dir / "valid_samples.jsonl").exists():
        assert json.loads((run_dir / "valid_samples.jsonl").read_text()).keys() >= {"step", "tuned"}
    found = checkpoints(run_dir / "checkpoints")
    assert newest_checkpoint(run_dir / "checkpoints") == (found[-1] if found else None)
    if (run_dir / "adapter").exists():
        assert len(list((run_dir / "adapter").iterdir())) == 4
