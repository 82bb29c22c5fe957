"""sweep.html: the trials of a sweep with a plot, on one page that asks for nothing, in the clothes of a run's report.

The plot is an SVG made by hand: two kinds of points need no library. Validation loss by trial, or by the number of rows
with its band. Knows the result; nothing of how it came about.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlxtune.iteration.report.elements import quiet, section, table
from mlxtune.iteration.sweep.answer import Answer
from mlxtune.iteration.sweep.readme import TITLES
from mlxtune.iteration.sweep.study import Trial
from mlxtune.iteration.sweep.table import cells, duration, headings, sentences
from mlxtune.page import Html, document, join, tag

if TYPE_CHECKING:
    from mlxtune.iteration.sweep.result import SweepResult

REPORT_STYLE = Path(__file__).parents[1] / "report" / "style.css"
WIDTH, HEIGHT = 380, 220
LEFT, RIGHT, TOP, BOTTOM = 42, 12, 12, 34
TICKS = 4
NUMBERS_SHOWN = 10
STYLE = """
.sweep .chart { max-width: 46rem; } .sweep .open { fill: var(--back); stroke: var(--quiet); }
.sweep .winner { fill: var(--accent); stroke: var(--ink); stroke-width: 2; } .sweep .band { fill: var(--accent-back); }
.sweep .mean { fill: none; stroke: var(--accent); stroke-width: 2; } .sweep figcaption { font-weight: 400; }
"""


def to_page(result: "SweepResult") -> str:
    """The whole file."""
    title = f"{result.plan.name}: {TITLES[result.plan.kind]}"
    told = sentences(result)
    heads, rows = headings(result), cells(result)
    tone = "better" if result.winner is not None or result.answer is not None else "open"
    first, *others = (tag("p", one, class_=None if number else "sentence") for number, one in enumerate(told))
    spent = f"{len(result.trials)} trials in {duration(result.seconds)}."
    body = join(
        [
            tag("header", tag("h1", title), tag("div", first, *others, class_=f"verdict-box {tone}", role="note")),
            tag(
                "main",
                section("plot", "Validation loss", _figure_of(result)),
                section("trials", "Trials", table(heads, rows, label="trials", words=[len(heads) - 1]), quiet(spent)),
            ),
        ]
    )
    style = REPORT_STYLE.read_text("utf-8") + STYLE
    return document(title=title, style=style, body=body, body_class="sweep")


def _figure_of(result: "SweepResult") -> Html:
    return _sizes(result.answer) if result.answer is not None else _trials(result)


def _trials(result: "SweepResult") -> Html:
    """Validation loss by trial, in their order; those that were ended early where they ended."""
    points = [(trial, loss) for trial in result.trials if (loss := _last_loss(trial)) is not None]
    if not points:
        return quiet("There is nothing to draw yet.")
    numbers = [trial.number for trial, _ in points]
    plot = _Plot(0.0, max(1.0, float(max(numbers))), [loss for _, loss in points])
    marks = [
        tag("circle", cx=plot.x(trial.number), cy=plot.y(loss), r=4.5, class_=_class(result, trial))
        for trial, loss in points
    ]
    shown = numbers[:: math.ceil(len(numbers) / NUMBERS_SHOWN)]
    caption = "The lowest validation loss of each trial. Open circles: ended early, its last. Outlined: the winner."
    return _figure(plot, [(number, str(number)) for number in shown], "trial", marks, caption)


def _last_loss(trial: Trial) -> float | None:
    if trial.valid_loss is not None or not trial.curve:
        return trial.valid_loss
    return trial.curve[max(trial.curve)]


def _class(result: "SweepResult", trial: Trial) -> str:
    if result.winner is not None and trial.number == result.winner.number:
        return "winner"
    return "f-quiet" if trial.valid_loss is not None else "open"


def _sizes(answer: Answer) -> Html:
    """Validation loss by the number of rows, on a logarithmic scale, with the band over seeds."""
    sizes = answer.sizes
    places = [math.log2(size.rows) for size in sizes]
    plot = _Plot(places[0], places[-1], [loss for size in sizes for loss in (*size.losses, size.low, size.high)])
    placed = [(plot.x(place), size) for place, size in zip(places, sizes, strict=True)]
    upper = [(x, plot.y(size.high)) for x, size in placed]
    lower = [(x, plot.y(size.low)) for x, size in reversed(placed)]
    marks = [
        tag("polygon", points=_path([*upper, *lower]), class_="band"),
        tag("polyline", points=_path([(x, plot.y(size.mean)) for x, size in placed]), class_="mean"),
        *(tag("circle", cx=x, cy=plot.y(loss), r=3.5, class_="f-quiet") for x, size in placed for loss in size.losses),
    ]
    caption = (
        "By training rows, on a logarithmic scale: a point a seed, their mean, and its 95 % interval over "
        f"{answer.seeds} seeds. The validation rows are the same throughout: what others would say is not in the band."
    )
    ticks = [(place, str(size.rows)) for place, size in zip(places, sizes, strict=True)]
    return _figure(plot, ticks, "training rows", marks, caption)


@dataclass(frozen=True)
class _Plot:
    """From figures to places in the drawing."""

    low_x: float
    high_x: float
    losses: Sequence[float]

    def x(self, value: float) -> float:
        return round(LEFT + (value - self.low_x) / (self.high_x - self.low_x) * (WIDTH - LEFT - RIGHT), 1)

    def y(self, loss: float) -> float:
        low, high = self.range
        return round(TOP + (high - loss) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)

    @property
    def range(self) -> tuple[float, float]:
        low, high = min(self.losses), max(self.losses)
        margin = 0.05 * (high - low) or 0.5
        return low - margin, high + margin


def _path(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x},{y}" for x, y in places)


def _figure(plot: _Plot, ticks: Sequence[tuple[float, str]], name: str, marks: Sequence[Html], caption: str) -> Html:
    low, high = plot.range
    losses = [low + (high - low) * part / TICKS for part in range(TICKS + 1)]
    axes = [
        *(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=plot.y(loss), y2=plot.y(loss), class_="s-rule") for loss in losses),
        *(tag("text", f"{loss:.3f}", x=LEFT - 6, y=plot.y(loss) + 3, text_anchor="end") for loss in losses),
        *(tag("text", text, x=plot.x(at), y=HEIGHT - BOTTOM + 15, text_anchor="middle") for at, text in ticks),
        tag("text", name, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 5, text_anchor="middle"),
    ]
    view = f"0 0 {WIDTH} {HEIGHT}"
    drawing = tag("svg", *axes, *marks, class_="chart", viewBox=view, role="img", aria_label=caption)
    return tag("figure", drawing, tag("figcaption", caption))
