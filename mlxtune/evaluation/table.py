"""The tables of scores: before and after, beside other models, and what each model costs; as rows, then as two views.

Plain rows first, then views of them for the terminal and for Markdown. Knows metrics by name, intervals and differences
as numbers; nothing of how they came about. The verdicts are the paired tests' (`verdict`), so two intervals may overlap
where the test tells the models apart: they answered the same rows, and what is hard for both counts for neither.
"""

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from mlxtune.evaluation.cost import Cost
from mlxtune.evaluation.preferred import A_TOKEN, WHOLE
from mlxtune.evaluation.statistics import Difference, Interval
from mlxtune.evaluation.verdict import (
    FEWEST_ROWS,
    LOWER_IS_BETTER,
    OWN_UNITS,
    SIGNIFICANCE,
    Verdict,
    read_difference,
    verdict,
)
from mlxtune.printable import printable

NOT_COMPARED = "not compared"
UNKNOWN = "-"
SMALLEST_P = 0.001
BYTES = (" B", " kB", " MB", " GB", " TB")
VERDICT_WIDTH = len("better, p < 0.001")
COST_HEADS = ("parameters", "on disk", "memory", "tokens/s")
HOW_JUDGED = (
    f"Verdicts are those of a paired test on the same rows; not distinguishable: p is {SIGNIFICANCE} or more, the "
    f"difference's interval holds 0, or there are fewer than {FEWEST_ROWS} rows."
)
COST_CAPTION = (
    "Memory: the weights as opened here and what one answer takes; tokens/s: written one after the other, when the "
    "model was scored."
)
_VERDICT_STYLES: dict[str, str] = {"better": "bold green", "worse": "bold red"}


@dataclass(frozen=True)
class ComparisonRow:
    """One metric of two models, and the second less the first; None where they do not compare."""

    metric: str
    base: Interval
    tuned: Interval
    difference: Difference | None

    @property
    def verdict(self) -> Verdict | None:
        return None if self.difference is None else verdict(self.metric, self.difference)


@dataclass(frozen=True)
class ModelRow:
    """One metric of one model, and the first model's score less its own, where the two compare.

    The first is the tuned one, or the one that `evaluate MODEL` was asked about.
    """

    metric: str
    model: str
    score: Interval
    difference: Difference | None
    is_first: bool = False


def compare(
    base: Mapping[str, Interval], tuned: Mapping[str, Interval], differences: Mapping[str, Difference]
) -> list[ComparisonRow]:
    """Set the scores of two models on the same rows side by side, in the order of ``tuned``.

    Args:
        differences: tuned less base, of the metrics that compare.

    Raises: ValueError, if the two were not scored alike: other metrics, or intervals of another confidence.
    """
    if unmatched := base.keys() ^ tuned.keys():
        raise ValueError(f"metrics of one model only: {', '.join(sorted(unmatched))}")
    everything = [*base.values(), *tuned.values(), *differences.values()]
    if len({one.confidence for one in everything}) > 1:
        raise ValueError("the intervals have different confidences")
    return [ComparisonRow(metric, base[metric], tuned[metric], differences.get(metric)) for metric in tuned]


def comparison(scores: Mapping[str, Any]) -> list[ComparisonRow]:
    """scores.json as the rows of the before/after table."""
    base, tuned = (
        {name: Interval(**interval) for name, interval in scores[model].items()} for model in ("base", "tuned")
    )
    return compare(base, tuned, {name: read_difference(one) for name, one in scores["differences"].items()})


def beside_others(scores: Mapping[str, Any]) -> list[ModelRow]:
    """scores.json as the rows of the table of all models: each task's first metric, of pairs how often the better
    answer is likelier, and bits per byte, model by model.

    Of a model's own scores (`evaluate MODEL`) the model is the one that the others are set against.
    """
    name = "tuned" if "tuned" in scores else str(scores["model"])
    ours = scores.get("tuned", scores.get("metrics", {}))
    chosen = [f"{task['name']}.{task['primary']}" for task in scores["tasks"]]
    chosen += [A_TOKEN, WHOLE, "bits_per_byte"]
    rows = []
    for metric in (metric for metric in chosen if metric in ours):
        rows.append(ModelRow(metric, name, Interval(**ours[metric]), None, is_first=True))
        others = [("base", scores["base"], scores["differences"])] if "base" in scores else []
        others += [(one["label"], one["metrics"], one["differences"]) for one in scores["against"]]
        for label, metrics, differences in others:
            if metric in metrics:
                found = read_difference(differences[metric]) if metric in differences else None
                rows.append(ModelRow(metric, label, Interval(**metrics[metric]), found))
    return rows


def costs(scores: Mapping[str, Any]) -> dict[str, Cost]:
    """What each model of a scores.json costs, by its name."""
    own = scores["cost"] if "tuned" in scores else {str(scores["model"]): scores["cost"]}
    found = {**own, **{one["label"]: one["cost"] for one in scores["against"]}}
    return {label: Cost.from_json(cost) for label, cost in found.items()}


def format_interval(metric: str, interval: Interval) -> str:
    """One cell, as ``"43.0 % [33.0, 53.0]"`` for a rate or ``"1.204 [1.102, 1.310]"``."""
    numbers = interval.mean, interval.low, interval.high
    if metric in OWN_UNITS:
        return "{:.3f} [{:.3f}, {:.3f}]".format(*numbers)
    return "{:.1f} % [{:.1f}, {:.1f}]".format(*(100 * number for number in numbers))


def format_difference(metric: str, difference: Difference | None) -> str:
    """One cell, as ``"+57.0 [47.0, 67.0]"``, in percentage points for a rate."""
    if difference is None:
        return UNKNOWN
    numbers = difference.mean, difference.low, difference.high
    if metric in OWN_UNITS:
        return "{:+.3f} [{:.3f}, {:.3f}]".format(*numbers)
    return "{:+.1f} [{:.1f}, {:.1f}]".format(*(100 * number for number in numbers))


def format_p(p_value: float) -> str:
    """As ``"p = 0.031"`` or ``"p < 0.001"``."""
    return f"p < {SMALLEST_P}" if p_value < SMALLEST_P else f"p = {p_value:.3f}"


def format_verdict(metric: str, difference: Difference | None) -> str:
    """One cell, as ``"better, p < 0.001"``."""
    if difference is None:
        return NOT_COMPARED
    return f"{verdict(metric, difference)}, {format_p(difference.p_value)}"


def format_cost(cost: Cost) -> tuple[str, str, str, str]:
    """Four cells: parameters, bytes on disk, memory, tokens a second."""
    return (
        _in_thousands(cost.parameters, ("", " K", " M", " B", " T")),
        _in_thousands(cost.disk_bytes, BYTES),
        _in_thousands(cost.peak_memory_bytes, BYTES),
        UNKNOWN if cost.tokens_per_s is None else _three_digits(cost.tokens_per_s),
    )


def _in_thousands(count: float | None, units: Sequence[str]) -> str:
    """Three digits and the unit that suits."""
    if count is None:
        return UNKNOWN
    rank = 0
    while count >= 999.5 and rank + 1 < len(units):  # noqa: PLR2004 - what three digits no longer hold
        count, rank = count / 1000, rank + 1
    return f"{_three_digits(count)}{units[rank]}"


def _three_digits(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"  # noqa: PLR2004 - what has three digits already


def to_rich(rows: Sequence[ComparisonRow], *, title: str | None = None) -> Table:
    """The before/after table for a terminal. Metric names hold the user's own field names: they are shown, never read
    as markup.
    """
    table = _table(title, caption(rows))
    table.add_column("metric", overflow="fold")
    table.add_column("base", justify="right", no_wrap=True)
    table.add_column("tuned", justify="right", no_wrap=True)
    table.add_column("verdict", min_width=VERDICT_WIDTH)
    for row in rows:
        table.add_row(
            Text(printable(row.metric)),
            format_interval(row.metric, row.base),
            format_interval(row.metric, row.tuned),
            _verdict_text(row.metric, row.difference),
        )
    return table


def others_to_rich(rows: Sequence[ModelRow], *, title: str | None = None) -> Table:
    """The table of all models for a terminal."""
    table = _table(title, others_caption(rows))
    table.add_column("metric", overflow="fold", min_width=8)
    table.add_column("model", overflow="fold", min_width=8)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column(Text(f"{_first(rows)} is"), min_width=VERDICT_WIDTH)
    for row, is_first in _grouped(rows):
        table.add_row(
            Text(printable(row.metric) if is_first else ""),
            Text(printable(row.model)),
            format_interval(row.metric, row.score),
            "" if row.is_first else _verdict_text(row.metric, row.difference),
        )
    return table


def costs_to_rich(costs: Mapping[str, Cost]) -> Table:
    """What each model costs, for a terminal."""
    table = _table(None, COST_CAPTION)
    table.add_column("model", overflow="fold", min_width=8)
    for head in COST_HEADS:
        table.add_column(head, justify="right", no_wrap=True)
    for label, cost in costs.items():
        table.add_row(Text(printable(label)), *format_cost(cost))
    return table


def metrics_to_rich(metrics: Mapping[str, Interval], *, title: str) -> Table:
    """The scores of one model for a terminal."""
    confidences = sorted({interval.confidence for interval in metrics.values()})
    table = _table(title, f"In brackets: the {100 * confidences[0]:g} % bootstrap interval." if confidences else "")
    table.add_column("metric", overflow="fold")
    table.add_column("score", justify="right", no_wrap=True)
    for name, interval in metrics.items():
        table.add_row(Text(printable(name)), format_interval(name, interval))
    return table


def to_markdown(rows: Sequence[ComparisonRow]) -> str:
    """The before/after table for a README, with its caption below; ends with a line break."""
    lines = ["| metric | base | tuned | tuned less base | verdict |", "|---|---:|---:|---:|---|"]
    for row in rows:
        cells = [
            markdown_text(row.metric),
            format_interval(row.metric, row.base),
            format_interval(row.metric, row.tuned),
            format_difference(row.metric, row.difference),
            format_verdict(row.metric, row.difference),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", caption(rows), ""])


def others_to_markdown(rows: Sequence[ModelRow], costs: Mapping[str, Cost]) -> str:
    """The table of all models with what each costs, for a README, with its caption below; ends with a line break."""
    first = markdown_text(_first(rows))
    heads = ["metric", "model", "score", f"{first} less it", f"{first} is", *COST_HEADS]
    lines = [f"| {' | '.join(heads)} |", "|---|---|---:|---:|---|---:|---:|---:|---:|"]
    for row, _ in _grouped(rows):
        compared = ["", ""]
        if not row.is_first:
            compared = [format_difference(row.metric, row.difference), format_verdict(row.metric, row.difference)]
        cells = [
            markdown_text(row.metric),
            markdown_text(row.model),
            format_interval(row.metric, row.score),
            *compared,
            *format_cost(costs.get(row.model, Cost())),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"{others_caption(rows)} {COST_CAPTION}", ""])


def costs_to_markdown(costs: Mapping[str, Cost]) -> str:
    """What each model costs, for a README, with the caption below; ends with a line break."""
    lines = [f"| {' | '.join(['model', *COST_HEADS])} |", "|---|---:|---:|---:|---:|"]
    lines += [f"| {' | '.join([markdown_text(label), *format_cost(cost)])} |" for label, cost in costs.items()]
    return "\n".join([*lines, "", COST_CAPTION, ""])


def caption(rows: Sequence[ComparisonRow]) -> str:
    """How to read the before/after table, in a few sentences; empty without rows."""
    if not rows:
        return ""
    counts = sorted({interval.count for row in rows for interval in (row.base, row.tuned)})
    held_out = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    sentences = [
        f"In brackets: the {100 * rows[0].base.confidence:g} % bootstrap interval, from {held_out} rows.",
        HOW_JUDGED,
    ]
    if lower := [row.metric for row in rows if row.metric in LOWER_IS_BETTER]:
        sentences.append(f"Lower is better for {' and '.join(lower)}.")
    return " ".join(sentences)


def others_caption(rows: Sequence[ModelRow]) -> str:
    """How to read the table of all models; empty without rows."""
    if not rows:
        return ""
    return (
        f"In brackets: the {100 * rows[0].score.confidence:g} % bootstrap interval. {HOW_JUDGED} Bits per byte, lower "
        "being better, compares across tokenizers; loss and token accuracy do not, and are left out here."
    )


def markdown_text(text: str) -> str:
    """``text`` as a cell shows it, whatever is in it."""
    return html.escape(re.sub(r"([\\`*|\[\]])", r"\\\1", printable(text)), quote=False)


def _table(title: str | None, caption: str) -> Table:
    return Table(
        title=title and Text(printable(title)),
        caption=Text(caption) if caption else None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )


def _verdict_text(metric: str, difference: Difference | None) -> Text:
    told = None if difference is None else verdict(metric, difference)
    return Text(format_verdict(metric, difference), style=_VERDICT_STYLES.get(told or "", "dim"))


def _first(rows: Sequence[ModelRow]) -> str:
    """What the model is called that the others are set against."""
    return printable(next((row.model for row in rows if row.is_first), "tuned"))


def _grouped(rows: Sequence[ModelRow]) -> Iterator[tuple[ModelRow, bool]]:
    """Each row, and whether it is the first of its metric."""
    before = None
    for row in rows:
        yield row, row.metric != before
        before = row.metric
