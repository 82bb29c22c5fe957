"""What ``mlxtune runs`` tells a person: tables of runs, of what differs between them, and of what may go."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxtune.cli.sparkline import bars_here, sparkline
from mlxtune.printable import printable

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from mlxtune.iteration.compare import Comparison, MetricOfRuns
    from mlxtune.runs.listing import Headline, Listing, RunEntry
    from mlxtune.runs.prune import Candidate, Kept, Prunable

STATES = {"training": "bold cyan", "scoring": "bold cyan", "paused": "yellow", "stopped": "yellow"}
VERDICTS = {"better": "green", "worse": "bold red"}
SHA256_SHOWN = 12
LONGEST_VALUE = 40
LEAST_P = 0.001
"""Below it a p-value is told as that: resampling knows no more."""


def draw_list(listing: "Listing") -> "Group":
    """The runs, a line each, and below them what is broken."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table("run", "state", "steps", "loss", "", "valid", "scored", "look at", "started", box=None)
    for column in (table.columns[2], table.columns[4], table.columns[5]):
        column.justify = "right"
    bars = bars_here()
    for run in listing.runs:
        table.add_row(
            Text(printable(run.path.name), overflow="fold"),
            Text(run.state, style=STATES.get(run.state, "")),
            "" if run.steps is None else f"{run.steps:,}",
            sparkline(run.losses, bars),
            _loss(run.train_loss if run.train_loss is not None else (run.losses[-1] if run.losses else None)),
            _loss(run.valid_loss),
            _headline(run.headline),
            _look_at(run),
            _when(run.started),
        )
    broken = [
        Text(f"broken   {printable(one.path.name)}: {printable(one.why)}", style="yellow") for one in listing.broken
    ]
    return Group(table, *broken) if listing.runs else Group(Text(f"no runs in {listing.folder}"), *broken)


def draw_run(run: "RunEntry", more: Mapping[str, Any]) -> "Group":
    """One run: what it did, how far it came, its scores, what to look at, and what it takes on the disk.

    Args:
        more: ``device``, ``settings`` (some of its recipe's keys), ``scores``, ``findings``, ``disk_bytes`` by part.
    """
    from rich.console import Group
    from rich.table import Table

    from mlxtune.cli.evaluate import table as scores_table
    from mlxtune.cli.findings_view import findings_text

    facts = Table(box=None, show_header=False)
    told = {
        "run": str(run.path),
        "state": run.state if run.process is None else f"{run.state}, by process {run.process}",
        "started": _when(run.started),
        "model": run.model or "",
        "device": more["device"],
        **more["settings"],
        "steps": "" if run.steps is None else f"{run.steps:,}" + (f" in {run.seconds:,.0f} s" if run.seconds else ""),
        "loss": f"{sparkline(run.losses, bars_here())} {_loss(run.train_loss)}",
        "best valid loss": _loss(run.valid_loss),
        "on the disk": ", ".join(f"{name} {_size(size)}" for name, size in more["disk_bytes"].items()),
        "note": run.note or "",
    }
    for name, fact in told.items():
        if fact.strip():
            facts.add_row(name, printable(fact))
    parts: list[Any] = [facts]
    if more["scores"] is not None:
        parts += ["", scores_table(more["scores"], str(run.path))]
    if more["findings"]:
        parts += ["", findings_text(more["findings"])]
    return Group(*parts)


def draw_comparison(comparison: "Comparison") -> "Group":
    """Which runs, what was set otherwise, and the metrics with their differences."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from mlxtune.iteration.compare import letters_of

    letters = letters_of(len(comparison.runs))
    bars = bars_here()
    runs = Table("", "run", "model", "steps", "loss", "", box=None)
    for letter, run in zip(letters, comparison.runs, strict=True):
        steps = "" if run.steps is None else f"{run.steps:,}"
        curve = sparkline(run.losses, bars)
        runs.add_row(letter, printable(str(run.path)), printable(run.model or ""), steps, curve, _loss(run.train_loss))
    parts: list[Any] = [runs, ""]
    if comparison.settings:
        settings = Table("set otherwise", *letters, box=None)
        for setting in comparison.settings:
            settings.add_row(setting.key, *(printable(value_told(value)) for value in setting.values))
        parts += [settings, ""]
    else:
        parts += ["nothing was set otherwise", ""]
    if comparison.metrics:
        parts += [_metrics_table(comparison.metrics, letters), ""]
        parts.append(Text("In brackets: the bootstrap interval. A difference is the run's score less A's, row by row."))
    parts += [Text(f"note: {printable(note)}", style="yellow") for note in comparison.notes]
    return Group(*parts)


def _metrics_table(metrics: "Sequence[MetricOfRuns]", letters: Sequence[str]) -> "Table":
    """A line a metric and run, so that any number of runs fits a terminal."""
    from rich.table import Table
    from rich.text import Text

    from mlxtune.evaluation.statistics import Interval
    from mlxtune.evaluation.table import format_interval

    table = Table("metric", "", "score", f"less {letters[0]}", "p", "verdict", box=None)
    for metric in metrics:
        rows = zip(letters, metric.intervals, metric.differences, strict=True)
        for number, (letter, interval, found) in enumerate(rows):
            name = Text(printable(metric.metric) if not number else "", overflow="fold")
            score = "" if interval is None else format_interval(metric.metric, Interval(**interval))
            table.add_row(name, letter, score, *_difference_cells(metric.metric, found))
    return table


def _difference_cells(metric: str, found: Mapping[str, Any] | None) -> "tuple[str, str, Text]":
    """A difference with its interval, how often chance makes one as large, and the verdict."""
    from rich.text import Text

    from mlxtune.evaluation.verdict import OWN_UNITS

    if found is None:
        return "", "", Text("")
    numbers = [found["mean"], found["low"], found["high"]]
    if metric in OWN_UNITS:
        told = "{:+.3f} [{:+.3f}, {:+.3f}]".format(*numbers)
    else:
        told = "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * number for number in numbers))
    chance = f"{found['p_value']:.3f}" if found["p_value"] >= LEAST_P else f"< {LEAST_P}"
    return told, chance, Text(found["verdict"], style=VERDICTS.get(found["verdict"], "dim"))


def draw_prunable(prunable: "Prunable") -> "Group":
    """What would go, and what would stay though it was asked for; that nothing is gone yet."""
    from rich.console import Group
    from rich.text import Text

    if not prunable.candidates:
        return Group(*_kept_lines(prunable.kept), Text("nothing would go"))
    total = f"{len(prunable.candidates)} would go, {_size(prunable.bytes)}; nothing is gone yet"
    return Group(
        _candidates_table(prunable.candidates),
        *_kept_lines(prunable.kept),
        Text(f"{total}. Take them away: the same command with --yes", style="bold"),
    )


def draw_pruned(gone: "Sequence[Candidate]", kept: "Sequence[Kept]") -> "Group":
    """What is gone."""
    from rich.console import Group
    from rich.text import Text

    freed = _size(sum(candidate.bytes for candidate in gone))
    table = [_candidates_table(gone)] if gone else []
    return Group(*table, *_kept_lines(kept), Text(f"{len(gone)} gone, {freed} freed", style="bold"))


def _candidates_table(candidates: "Sequence[Candidate]") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table("what", "where", "state", "size", "why", box=None)
    table.columns[3].justify = "right"
    for one in candidates:
        state = "" if one.entry is None else one.entry.state
        table.add_row(one.what, Text(printable(one.path.name), overflow="fold"), state, _size(one.bytes), one.why)
    return table


def _kept_lines(kept: "Sequence[Kept]") -> "list[Text]":
    from rich.text import Text

    return [Text(f"stays    {printable(one.path.name)}: {printable(one.why)}", style="yellow") for one in kept]


def value_told(value: Any) -> str:
    """A setting's value in a cell; of a hash, enough to tell it from another."""
    if value is None:
        return "-"
    text = str(value)
    if len(text) == 64 and all(sign in "0123456789abcdef" for sign in text):  # noqa: PLR2004 - a SHA-256 in hexadecimal
        return text[:SHA256_SHOWN]
    if len(text) > LONGEST_VALUE and Path(text).is_absolute():
        return f"...{text[-LONGEST_VALUE:]}"
    return text


def _headline(headline: "Headline | None") -> "Text":
    from rich.text import Text

    if headline is None:
        return Text("")
    from mlxtune.evaluation.verdict import OWN_UNITS

    if headline.metric in OWN_UNITS:
        base, tuned = f"{headline.base:.3f}", f"{headline.tuned:.3f}"
    else:
        base, tuned = f"{100 * headline.base:.1f}", f"{100 * headline.tuned:.1f} %"
    text = Text(f"{printable(headline.metric)} {base} -> ", overflow="fold")
    return text.append(tuned, style=VERDICTS.get(headline.verdict or "", ""))


def _look_at(run: "RunEntry") -> "Text":
    from rich.text import Text

    told = [f"{run.problems} problem{'s' if run.problems > 1 else ''}"] if run.problems else []
    told += [run.note] if run.note else []
    return Text(printable(", ".join(told)), style="yellow")


def _loss(loss: float | None) -> str:
    return "" if loss is None else f"{loss:.3f}"


def _when(started: str | None) -> str:
    """A time as it is here."""
    try:
        return "" if started is None else f"{datetime.fromisoformat(started).astimezone():%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError):
        return ""


def _size(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:,.1f} MB"
