"""metrics.jsonl: one line a step, appended; cut back to a checkpoint when a run is resumed."""

import json
from pathlib import Path
from typing import Any

from mlxtune.files import write_text


def append_metrics(path: Path, line: dict[str, Any]) -> None:
    """Add one line, handed to the system before this returns."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, allow_nan=False) + "\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole lines; one that a kill left half-written at the end is not a line."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").split("\n"):
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def cut_metrics(path: Path, step: int) -> None:
    """Drop what was recorded after ``step``: a resumed run records those steps again."""
    kept = [line for line in read_metrics(path) if line["step"] <= step]
    write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
