"""A run's loss as a few points, for a sparkline, read in a time that does not grow with the run.

A long metrics.jsonl is looked into at even distances and a few lines are averaged at each, so a run of a million steps
costs what one of a hundred does. The price: what lies between two looks is not seen. Findings and the report read all.
"""

import json
import math
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

POINTS = 16
LOOK_BYTES = 1024
"""Read at each point: about four lines."""


@dataclass(frozen=True)
class Curve:
    """The mean training loss around each of up to `POINTS` places, and the last step that the file tells of."""

    losses: tuple[float, ...] = ()
    last_step: int | None = None


def read_curve(path: Path) -> Curve:
    """The curve of metrics.jsonl; an empty one where there is no such file, or none that can be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return Curve()
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return Curve()
        looks = _looks(descriptor, found.st_size)
    except OSError:
        return Curve()
    finally:
        os.close(descriptor)
    losses = [own for look in looks if (own := [loss for _, loss in look if loss is not None])]
    steps = [step for look in looks for step, _ in look]
    return Curve(tuple(sum(own) / len(own) for own in losses), max(steps, default=None))


Line = tuple[int, float | None]
"""Its step, and the loss if it has one."""


def _looks(descriptor: int, size: int) -> list[Sequence[Line]]:
    """Up to `POINTS` groups of lines that follow each other in the file."""
    if size > POINTS * LOOK_BYTES:
        starts = [number * (size - LOOK_BYTES) // (POINTS - 1) for number in range(POINTS)]
        return [lines_in(os.pread(descriptor, LOOK_BYTES, start), begins=start == 0) for start in starts]
    lines = [line for line in lines_in(os.pread(descriptor, size, 0), begins=True) if line[1] is not None]
    each = max(1, math.ceil(len(lines) / POINTS))
    return [lines[start : start + each] for start in range(0, len(lines), each)]


def lines_in(content: bytes, *, begins: bool) -> list[Line]:
    """The whole lines in a piece of metrics.jsonl; what is none is passed over.

    Args:
        begins: whether the piece begins where a line does.
    """
    texts = content.split(b"\n")
    found: list[Line] = []
    for text in texts if begins else texts[1:]:
        try:
            line = json.loads(text)
            step, loss = line["step"], line.get("loss")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            continue
        if type(step) is int:
            has_loss = type(loss) in (int, float) and math.isfinite(loss)
            found.append((step, float(loss) if has_loss else None))
    return found
