"""What a run's files say, for those who look for findings in it; read once, and never believed to be complete.

A run may be older than a file's form, not scored, or have no data.json: whatever is missing reads as None or empty, and
the finding that needs it is then not made. Nothing is computed from rows or weights here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxtune.runs.folder import RunFolder
from mlxtune.runs.listing import number_of, read_object
from mlxtune.runs.metrics import read_metrics


@dataclass(frozen=True)
class Evidence:
    """The contents of run.json, recipe.resolved.json, scores.json and data.json, and the lines of metrics.jsonl."""

    manifest: Mapping[str, Any]
    recipe: Mapping[str, Any]
    scores: Mapping[str, Any]
    data: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]
    adapter: Path

    @property
    def steps(self) -> list[tuple[int, float]]:
        """Each update that was made, and its training loss."""
        return _pairs(self.metrics, "loss")

    @property
    def validations(self) -> list[tuple[int, float]]:
        """Each look at the validation rows: after which update, and their loss."""
        return _pairs(self.metrics, "valid_loss")


def read_evidence(run: RunFolder) -> Evidence:
    """What the files of a run say."""
    manifest, recipe, scores, data = (_read(path) for path in (run.manifest, run.resolved, run.scores, run.data))
    metrics = [line for line in read_metrics(run.metrics) if isinstance(line, Mapping)]
    return Evidence(manifest, recipe, scores, data, metrics, run.adapter)


def at(content: Any, *keys: str) -> Any:
    """What stands in nested JSON objects at ``keys``; None where something on the way is not there."""
    for key in keys:
        content = content.get(key) if isinstance(content, Mapping) else None
    return content


def number(content: Any, *keys: str) -> float | None:
    """The finite number at ``keys``, or None."""
    return number_of(at(content, *keys))


def count(content: Any, *keys: str) -> int:
    """The whole number at ``keys``; 0 where there is none."""
    value = at(content, *keys)
    return value if type(value) is int else 0


def own_rows(train: Any) -> tuple[int, int]:
    """Of a split in data.json: its rows that were read, and those of them that were dropped; replay's left out."""
    files = at(train, "files")
    replay = [one for one in files if number(one, "share") is not None] if isinstance(files, list) else []
    read, dropped = count(train, "rows_read"), count(train, "dropped", "count")
    return read - sum(count(one, "rows_read") for one in replay), dropped - sum(count(one, "dropped") for one in replay)


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_object(path)
    except (OSError, ValueError):
        return {}


def _pairs(metrics: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    return [
        (line["step"], value)
        for line in metrics
        if type(line.get("step")) is int and (value := number_of(line.get(name))) is not None
    ]
