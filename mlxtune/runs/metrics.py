"""metrics.jsonl: one line a step, appended; cut back to a checkpoint when a run is resumed."""

import json
from pathlib import Path
from typing import Any

from mlxtune.errors import RunError
from mlxtune.files import flush_path, naming


def append_metrics(path: Path, line: dict[str, Any]) -> None:
    """Add one line, handed to the system before this returns."""
    with naming(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, allow_nan=False) + "\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole lines; one that a kill left half-written at the end is not a line."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_bytes().split(b"\n"):
        try:
            lines.append(json.loads(text.decode("utf-8")))
        except (ValueError, RecursionError):
            continue
    return lines


def metrics_bytes(path: Path) -> int:
    """How long the file is, brought to the medium: what a checkpoint notes, to be cut back to."""
    if not path.exists():
        return 0
    flush_path(path)
    return path.stat().st_size


def cut_metrics(path: Path, size: int) -> None:
    """Drop what was recorded since the file was ``size`` bytes long: a resumed run records those steps again.

    Raises: RunError, if it is shorter: lines were lost that no step will write again.
    """
    found = path.stat().st_size if path.exists() else 0
    if found < size:
        remedy = "put the file back as it was, or start a new run"
        raise RunError(f"is {found} bytes long, and was {size} at the last checkpoint", where=path, remedy=remedy)
    if found > size:
        with path.open("r+b") as file:
            file.truncate(size)
