"""A comparison of runs as one page, in the look of a run's report: no network, no scripts, nothing else needed.

Knows a comparison and the report's elements. All runs are told by letters, since their names are long; the first is A,
and every difference is a run's score less A's.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlxtune.iteration import report
from mlxtune.iteration.compare import Comparison, MetricOfRuns, letters_of
from mlxtune.iteration.report import wording
from mlxtune.iteration.report.cells import verdict_word, with_bounds
from mlxtune.iteration.report.elements import quiet, section, sentences, table
from mlxtune.iteration.report.interval_mark import interval_mark
from mlxtune.page import Html, document, join, tag

STYLE = Path(report.__file__).with_name("style.css")
NONE = "\N{EN DASH}"
CURVE_WIDTH, CURVE_HEIGHT = 120, 28
WIDE_CELLS = "\ntd { min-width: 5rem; }\n.mark { min-width: 7rem; }\n"
"""A table here has many columns of short cells; a phone would break each letter by letter, and it scrolls instead."""


def comparison_page(comparison: Comparison) -> str:
    """The page."""
    letters = letters_of(len(comparison.runs))
    named = [run.path.name for run in comparison.runs]
    body = join(
        [
            tag("header", quiet("Runs compared"), tag("h1", " / ".join(named)), _verdicts(comparison, letters)),
            tag("main", _runs(comparison, letters), _settings(comparison, letters), _scores(comparison, letters)),
            tag("footer", tag("p", "Made from the runs' folders alone: mlxtune runs compare")),
        ]
    )
    return document(title=f"{named[0]} and others, compared", style=STYLE.read_text("utf-8") + WIDE_CELLS, body=body)


def _verdicts(comparison: Comparison, letters: Sequence[str]) -> Html:
    """A sentence a run, on the metric that all are first judged by; and what is to be known besides."""
    told = []
    if comparison.metrics:
        first = comparison.metrics[0]
        told = [
            _sentence(first, letter, found, letters[0])
            for letter, found in zip(letters[1:], first.differences[1:], strict=True)
            if found is not None
        ]
    inside = [tag("p", one, class_="sentence") for one in told]
    inside += [sentences(comparison.notes, class_="reservations")] if comparison.notes else []
    return tag("div", *inside, class_="verdict-box", role="note", aria_label="Verdict") if inside else Html()


def _sentence(metric: MetricOfRuns, letter: str, found: Mapping[str, Any], first: str) -> str:
    verdict = found["verdict"]
    what = (
        f"{letter} is {verdict} than {first}"
        if verdict in ("better", "worse")
        else f"{letter} and {first} are {verdict}"
    )
    return (
        f"{what} by {metric.metric}: {wording.difference(metric.metric, found['mean'])} "
        f"({wording.bounds(metric.metric, found)}; {wording.p_value(found['p_value'])})."
    )


def _runs(comparison: Comparison, letters: Sequence[str]) -> Html:
    rows = [
        [
            f"{letter}: {run.path}",
            run.model or NONE,
            NONE if run.steps is None else f"{run.steps:,}",
            _curve(run.losses),
            NONE if run.train_loss is None else f"{run.train_loss:.3f}",
            NONE if run.valid_loss is None else f"{run.valid_loss:.3f}",
        ]
        for letter, run in zip(letters, comparison.runs, strict=True)
    ]
    heads = ["run", "model", "steps", "loss", "at the end", "best on validation rows"]
    return section("runs", "Runs", table(heads, rows, label="Runs", words=[1, 3]))


def _curve(losses: Sequence[float]) -> Html | str:
    """The training loss as a small line."""
    if len(losses) < 2:  # noqa: PLR2004 - a line has two ends
        return NONE
    lowest, span = min(losses), (max(losses) - min(losses)) or 1.0
    step = (CURVE_WIDTH - 4) / (len(losses) - 1)
    points = [
        f"{2 + i * step:.1f} {2 + (CURVE_HEIGHT - 4) * (1 - (loss - lowest) / span):.1f}"
        for i, loss in enumerate(losses)
    ]
    line = tag("path", d=f"M{'L'.join(points)}", class_="s-accent", fill="none", stroke_width=1.5)
    told = f"training loss from {losses[0]:.3f} to {losses[-1]:.3f}"
    return tag("svg", line, class_="mark", viewBox=f"0 0 {CURVE_WIDTH} {CURVE_HEIGHT}", role="img", aria_label=told)


def _settings(comparison: Comparison, letters: Sequence[str]) -> Html:
    if not comparison.settings:
        return section("settings", "Set otherwise", quiet("Nothing: the same recipe, model, data and versions."))
    rows = [
        [setting.key, *(NONE if value is None else str(value) for value in setting.values)]
        for setting in comparison.settings
    ]
    words = range(1, len(letters) + 1)
    return section("settings", "Set otherwise", table(["key", *letters], rows, label="Settings", words=words))


def _scores(comparison: Comparison, letters: Sequence[str]) -> Html:
    if not comparison.metrics:
        return Html()
    told = (
        f"The tuned models' scores. The bars are bootstrap intervals: grey {letters[0]}'s, coloured the run's own. "
        f"Differences are the run's score less {letters[0]}'s, row by row, with the verdict of a paired test."
    )
    heads = ["metric", "run", "score", "intervals", f"less {letters[0]}", "p", "verdict"]
    rows = [row for metric in comparison.metrics for row in _rows_of(metric, letters)]
    return section("scores", "Scores", quiet(told), table(heads, rows, label="Scores", words=[1, 3, 6]))


def _rows_of(metric: MetricOfRuns, letters: Sequence[str]) -> list[list[str]]:
    """A row a run."""
    first, name = metric.intervals[0], metric.metric
    rows = []
    for letter, own, found in zip(letters, metric.intervals, metric.differences, strict=True):
        score = NONE if own is None else with_bounds(name, own)
        mark = NONE if first is None or own is None else interval_mark(first, own, is_percent=wording.is_percent(name))
        cells = [name, letter, score, mark]
        if found is None:
            rows.append([*cells, NONE, NONE, NONE])
            continue
        told = join([tag("b", wording.difference(name, found["mean"])), tag("small", wording.bounds(name, found))])
        chance = join([wording.p_value(found["p_value"]), tag("small", found["test"])])
        rows.append([*cells, told, chance, verdict_word(found["verdict"])])
    return rows
