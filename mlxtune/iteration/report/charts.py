"""Curves of a run, drawn by matplotlib for an inline SVG.

One size for all, so that letters are as large in each: four inches wide, which a phone shows whole. Thousands of
updates become `POINTS` means with the range around them: a spike stays visible as range, and a file small. Knows
numbers by update; nothing of what they mean. matplotlib alone is heavy here: it is loaded when the first chart is
drawn.
"""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlxtune.iteration.report.inline_svg import COLOURS, inline_svg
from mlxtune.page import Html

POINTS = 240
SIZE = (4.0, 2.5)
"""Inches, of 72 units each."""


@dataclass(frozen=True)
class Curve:
    """Values by update. ``role`` is its colour; ``dots`` marks each value, for curves of few."""

    steps: Sequence[float]
    values: Sequence[float]
    role: str = "accent"
    dots: bool = False


@dataclass(frozen=True, eq=False)
class Thinned:
    """Of each of up to `POINTS` runs of updates: the middle step, the mean, the lowest and the highest value."""

    steps: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def thin(steps: Sequence[float], values: Sequence[float], points: int = POINTS) -> Thinned:
    """At most so many points; few are left as they are."""
    x, y = np.asarray(steps, np.float64), np.asarray(values, np.float64)
    edges = np.unique(np.linspace(0, len(x), min(points, len(x)) + 1).astype(int))[:-1]
    counts = np.diff([*edges, len(x)])
    return Thinned(
        np.add.reduceat(x, edges) / counts,
        np.add.reduceat(y, edges) / counts,
        np.minimum.reduceat(y, edges),
        np.maximum.reduceat(y, edges),
    )


def draw(
    name: str,
    curves: Sequence[Curve],
    *,
    label: str,
    tick: Callable[[float], str] = "{:g}".format,
    from_zero: bool = False,
    ring: tuple[float, float] | None = None,
) -> Html:
    """A chart of one or more curves over the same updates.

    Args:
        name, label: as of `inline_svg`.
        tick: a value as it stands at the axis.
        from_zero: whether the axis begins at 0.
        ring: a point to be ringed.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 10, "path.simplify": True}):
        figure = Figure(figsize=SIZE, layout="constrained")
        figure.patch.set_visible(False)
        axes = figure.add_subplot()
        for curve in curves:
            _draw_curve(axes, curve)
        if ring is not None:
            axes.plot(*ring, "o", markersize=9, markerfacecolor="none", markeredgecolor=COLOURS["accent"])
        _set_scale(axes, curves, from_zero=from_zero)
        axes.set_xlabel("update", loc="right")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        if axes.get_yscale() == "linear":
            axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
        _quieten(axes)
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None})
    return inline_svg(written.getvalue(), name=name, label=label)


STEEP = 100
"""A curve whose highest value is so many times its lowest is drawn on a logarithmic axis."""


def _draw_curve(axes: Any, curve: Curve) -> None:
    points = thin(curve.steps, curve.values)
    colour = COLOURS[curve.role]
    if len(points.steps) < len(curve.steps):
        axes.fill_between(points.steps, points.low, points.high, color=colour, alpha=0.22, linewidth=0)
    style = {"marker": "o", "markersize": 4, "markeredgewidth": 0} if curve.dots or len(points.steps) == 1 else {}
    axes.plot(points.steps, points.mean, color=colour, linewidth=1.5, **style)


def _set_scale(axes: Any, curves: Sequence[Curve], *, from_zero: bool) -> None:
    values = [value for curve in curves for value in curve.values]
    lowest, highest = min(values), max(values)
    if from_zero:
        axes.set_ylim(0, highest * 1.08 or 1)
    elif lowest > 0 and highest / lowest > STEEP:
        axes.set_yscale("log")
        axes.minorticks_off()
    elif math.isclose(lowest, highest):
        around = abs(highest) * 0.1 or 1
        axes.set_ylim(lowest - around, highest + around)


def _quieten(axes: Any) -> None:
    """Leave the curve, its ticks' words and thin lines across."""
    axes.patch.set_visible(False)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(COLOURS["rule"])
    axes.tick_params(length=0, pad=5)
    axes.grid(axis="y", color=COLOURS["rule"], linewidth=0.6)
    axes.set_axisbelow(True)
