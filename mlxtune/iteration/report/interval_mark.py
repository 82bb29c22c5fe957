"""One score's intervals as a small drawing beside its figures: two whiskers on a common scale.

Drawn by hand, since a dozen of them stand in a table; knows numbers alone.
"""

from collections.abc import Mapping
from typing import Any

from mlxtune.page import Html, tag

WIDTH, HEIGHT, EDGE = 180, 30, 6


def interval_mark(before: Mapping[str, Any], after: Mapping[str, Any], *, is_percent: bool) -> Html:
    """Both intervals, the one before in a quiet colour above the one after.

    Args:
        before, after: each with ``mean``, ``low`` and ``high``.
        is_percent: whether the scale is that from 0 to 1; else it is from 0 to the highest end.
    """
    ends = [value for interval in (before, after) for value in (interval["low"], interval["high"])]
    low, high = min(0.0, *ends), max(1.0, *ends) if is_percent else max(ends)
    span = (high - low) or 1.0

    def place(value: float) -> str:
        return f"{EDGE + (WIDTH - 2 * EDGE) * (value - low) / span:.1f}"

    inside = [tag("path", d=f"M{EDGE} {HEIGHT - 0.5}H{WIDTH - EDGE}", class_="s-rule")]
    for interval, role, y in ((before, "quiet", 8), (after, "accent", 20)):
        whisker = f"M{place(interval['low'])} {y}H{place(interval['high'])}"
        inside.append(tag("path", d=whisker, class_=f"s-{role}", stroke_width=3, stroke_linecap="round", opacity=0.55))
        inside.append(tag("circle", cx=place(interval["mean"]), cy=y, r=4, class_=f"f-{role}"))
    return tag("svg", *inside, class_="mark", viewBox=f"0 0 {WIDTH} {HEIGHT}", aria_hidden="true")
