"""What of a line of metrics.jsonl a tracker is told: its numbers, by names that trackers group, and nothing else.

Places of rows and words are left out, so that no tracker learns what the user's data say.
"""

from collections.abc import Mapping
from typing import Any


def scalars_of(line: Mapping[str, Any]) -> dict[str, float]:
    """``{"train/loss": ...}``, or ``{"valid/loss": ...}`` of a look at the validation rows; without the step."""
    if "valid_loss" in line:
        return {f"valid/{name.removeprefix('valid_')}": float(value) for name, value in line.items() if name != "step"}
    numbers = {f"train/{name}": float(value) for name, value in line.items() if _is_number(value) and name != "step"}
    return numbers | ({"train/skipped": 1.0} if "skipped" in line else {})


def seconds_of(line: Mapping[str, Any]) -> float:
    """What the line took, as it says itself; 0, where it says nothing."""
    return float(line.get("valid_seconds", line.get("seconds", 0.0))) + float(line.get("samples_seconds", 0.0))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
