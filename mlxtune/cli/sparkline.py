"""A curve in one line of signs, for a terminal; in plain ASCII where it cannot show others."""

import sys
from collections.abc import Sequence

BARS = "▁▂▃▄▅▆▇█"
ASCII_BARS = "_.-=+*#"
"""From low to high: the further up, or the more ink."""


def sparkline(values: Sequence[float], bars: str = BARS) -> str:
    """A sign a value, from the lowest to the highest; a level line in the middle where all are the same."""
    if not values:
        return ""
    lowest, highest = min(values), max(values)
    if highest == lowest:
        return bars[len(bars) // 2] * len(values)
    steps = len(bars) - 1
    return "".join(bars[round(steps * (value - lowest) / (highest - lowest))] for value in values)


def bars_for(encoding: str | None) -> str:
    """The signs that a stream of this encoding can show."""
    try:
        BARS.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII_BARS
    return BARS


def bars_here() -> str:
    """Those of standard output."""
    return bars_for(sys.stdout.encoding)
