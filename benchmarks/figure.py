"""A grid of small line charts as one SVG file: text that any browser draws, without a plotting library.

Knows numbers and titles. The horizontal axis is logarithmic, since what grows doubles; the vertical one starts at zero,
so that heights compare.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

PLOT_WIDTH, PLOT_HEIGHT = 220, 110
LEFT, TOP, RIGHT, BOTTOM = 60, 30, 20, 36
LINE, GRID, TEXT = "#1f5fa8", "#d9d9d9", "#222222"
TICKS = 4


@dataclass(frozen=True)
class Panel:
    """One chart: a line through the points (x, y)."""

    x_title: str
    title: str
    x: Sequence[float]
    y: Sequence[float]


def write_figure(path: Path, grid: Sequence[Sequence[Panel]]) -> None:
    """Draw rows of panels to ``path``."""
    width = max(len(row) for row in grid) * (LEFT + PLOT_WIDTH + RIGHT)
    height = len(grid) * (TOP + PLOT_HEIGHT + BOTTOM)
    drawn = [
        f'<g transform="translate({i * (LEFT + PLOT_WIDTH + RIGHT) + LEFT},{j * (TOP + PLOT_HEIGHT + BOTTOM) + TOP})">'
        f"{_draw(panel)}</g>"
        for j, row in enumerate(grid)
        for i, panel in enumerate(row)
    ]
    size = f'width="{width}" height="{height}"'
    font = f'font-family="sans-serif" font-size="11" fill="{TEXT}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {size} {font}>',
        f'<rect {size} fill="white"/>',
        *drawn,
        "</svg>",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _draw(panel: Panel) -> str:
    low, high = math.log(min(panel.x)), math.log(max(panel.x))
    top = nice_ceiling(max(panel.y))
    points = [
        (PLOT_WIDTH * (math.log(x) - low) / ((high - low) or 1), PLOT_HEIGHT * (1 - y / top))
        for x, y in zip(panel.x, panel.y, strict=True)
    ]
    parts = [f'<text x="0" y="-10" font-weight="bold">{escape(panel.title)}</text>']
    for tick in range(TICKS + 1):
        y = PLOT_HEIGHT * (1 - tick / TICKS)
        parts.append(f'<line x1="0" x2="{PLOT_WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}"/>')
        parts.append(f'<text x="-6" y="{y + 4:.1f}" text-anchor="end">{top * tick / TICKS:.4g}</text>')
    for (x, _), value in zip(points, panel.x, strict=True):
        parts.append(f'<text x="{x:.1f}" y="{PLOT_HEIGHT + 14}" text-anchor="middle">{value:g}</text>')
    below = f'x="{PLOT_WIDTH / 2}" y="{PLOT_HEIGHT + 28}" text-anchor="middle"'
    parts.append(f"<text {below}>{escape(panel.x_title)}</text>")
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    parts.append(f'<polyline points="{line}" fill="none" stroke="{LINE}" stroke-width="2"/>')
    parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{LINE}"/>' for x, y in points]
    return "".join(parts)


def nice_ceiling(value: float) -> float:
    """The least of 1, 2, 2.5, 5 and 10 times a power of ten that is not below ``value``; 1 for nothing."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value)
