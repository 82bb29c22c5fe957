"""The before/after table: base and tuned model side by side, and a verdict in words.

Plain rows first, then two views of them, for the terminal and for Markdown. Knows metrics by name and intervals as
numbers; nothing of how either came about. The verdict reads the two intervals: where they overlap the models are called
not distinguishable, even where a paired test on the same rows might tell them apart. That errs on the side of doubt.
"""

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.table import Table
from rich.text import Text

from mlxtune.evaluation.statistics import Interval
from mlxtune.printable import printable

Verdict = Literal["better", "worse", "not distinguishable"]

LOWER_IS_BETTER = frozenset({"loss", "bits_per_byte"})
"""Metrics in units of their own. Every other one is a rate from 0 to 1, shown in percent: higher is better."""

FEWEST_ROWS = 6
"""With fewer rows no difference is called one: not even a sign test on 5 rows that all agree reaches 5 % (2 / 2^5)."""

_VERDICT_STYLES: dict[Verdict, str] = {"better": "bold green", "worse": "bold red", "not distinguishable": "dim"}


@dataclass(frozen=True)
class ComparisonRow:
    """One metric of both models."""

    metric: str
    base: Interval
    tuned: Interval
    verdict: Verdict


def compare(base: Mapping[str, Interval], tuned: Mapping[str, Interval]) -> list[ComparisonRow]:
    """Set the scores of two models on the same rows side by side, in the order of ``tuned``.

    Raises: ValueError, if the two were not scored alike: other metrics, or intervals of another confidence.
    """
    if unmatched := base.keys() ^ tuned.keys():
        raise ValueError(f"metrics of one model only: {', '.join(sorted(unmatched))}")
    if len({interval.confidence for scores in (base, tuned) for interval in scores.values()}) > 1:
        raise ValueError("the intervals have different confidences")
    return [
        ComparisonRow(metric, base[metric], tuned[metric], verdict(metric, base[metric], tuned[metric]))
        for metric in tuned
    ]


def verdict(metric: str, base: Interval, tuned: Interval) -> Verdict:
    """Whether the tuned model is better than the base; intervals that touch overlap."""
    if min(base.count, tuned.count) < FEWEST_ROWS:
        return "not distinguishable"
    if base.low <= tuned.high and tuned.low <= base.high:
        return "not distinguishable"
    return "better" if (tuned.mean < base.mean) == (metric in LOWER_IS_BETTER) else "worse"


def format_interval(metric: str, interval: Interval) -> str:
    """One cell, as ``"43.0 % [33.0, 53.0]"`` for a rate or ``"1.204 [1.102, 1.310]"``."""
    numbers = interval.mean, interval.low, interval.high
    if metric in LOWER_IS_BETTER:
        return "{:.3f} [{:.3f}, {:.3f}]".format(*numbers)
    return "{:.1f} % [{:.1f}, {:.1f}]".format(*(100 * number for number in numbers))


def to_rich(rows: Sequence[ComparisonRow], *, title: str | None = None) -> Table:
    """The table for a terminal. Metric names hold the user's own field names: they are shown, never read as markup."""
    table = Table(
        title=title and Text(title),
        caption=Text(caption(rows)),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    table.add_column("metric", overflow="fold")
    table.add_column("base", justify="right", no_wrap=True)
    table.add_column("tuned", justify="right", no_wrap=True)
    table.add_column("verdict", min_width=len("distinguishable"))
    for row in rows:
        table.add_row(
            Text(printable(row.metric)),
            format_interval(row.metric, row.base),
            format_interval(row.metric, row.tuned),
            Text(row.verdict, style=_VERDICT_STYLES[row.verdict]),
        )
    return table


def metrics_to_rich(metrics: Mapping[str, Interval], *, title: str) -> Table:
    """The scores of one model for a terminal."""
    table = Table(title=Text(printable(title)), box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("metric", overflow="fold")
    table.add_column("score", justify="right", no_wrap=True)
    for name, interval in metrics.items():
        table.add_row(Text(printable(name)), format_interval(name, interval))
    confidences = sorted({interval.confidence for interval in metrics.values()})
    table.caption = Text(f"In brackets: the {100 * confidences[0]:g} % bootstrap interval.") if confidences else None
    table.caption_justify = "left"
    return table


def to_markdown(rows: Sequence[ComparisonRow]) -> str:
    """The table for a README, with its caption below; ends with a line break."""
    lines = ["| metric | base | tuned | verdict |", "|---|---:|---:|---|"]
    for row in rows:
        base, tuned = format_interval(row.metric, row.base), format_interval(row.metric, row.tuned)
        lines.append(f"| {_markdown_text(row.metric)} | {base} | {tuned} | {row.verdict} |")
    return "\n".join([*lines, "", caption(rows), ""])


def caption(rows: Sequence[ComparisonRow]) -> str:
    """How to read the table, in a few sentences; empty without rows."""
    if not rows:
        return ""
    counts = sorted({interval.count for row in rows for interval in (row.base, row.tuned)})
    held_out = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    sentences = [
        f"In brackets: the {100 * rows[0].base.confidence:g} % bootstrap interval, from {held_out} rows.",
        f"Not distinguishable: the intervals overlap, or there are fewer than {FEWEST_ROWS} rows.",
    ]
    if lower := [row.metric for row in rows if row.metric in LOWER_IS_BETTER]:
        sentences.append(f"Lower is better for {' and '.join(lower)}.")
    return " ".join(sentences)


def _markdown_text(text: str) -> str:
    return html.escape(re.sub(r"([\\`*|\[\]])", r"\\\1", printable(text)), quote=False)
