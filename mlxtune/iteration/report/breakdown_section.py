"""Where the two models differ: by length, by group, by how sure they are, and row by row at the worst end.

Knows the keys of scores.json's ``breakdown``. Of a part only the metrics that the task is judged by are shown, and bits
per byte: all others are in scores.json.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from mlxtune.evaluation.statistics import Difference
from mlxtune.evaluation.verdict import verdict
from mlxtune.iteration.report import wording
from mlxtune.iteration.report.cells import NONE, told_difference, verdict_word, with_bounds
from mlxtune.iteration.report.elements import facts, folded, quiet, table
from mlxtune.iteration.report.interval_mark import interval_mark
from mlxtune.page import Html, join, tag

Part = tuple[str, Mapping[str, Any]]
"""Its name, and its scores."""


def breakdown_parts(breakdown: Mapping[str, Any], metrics: Sequence[str]) -> list[Html]:
    """By length, by group, calibration and the worst rows, each folded."""
    parts = []
    if lengths := breakdown.get("by_length"):
        named = [(f"{part['low']:,} to {part['high']:,} tokens", part) for part in lengths]
        parts.append(folded("By length", *_parts(named, metrics, "rows of")))
    if (groups := breakdown.get("by_group")) is not None:
        column = groups["column"]
        named = [("no value" if part["group"] is None else part["group"], part) for part in groups["groups"]]
        if (others := groups.get("others")) is not None:
            named.append((f"{others['groups']:,} others", others))
        parts.append(folded(f"By group: {column}", *_parts(named, metrics, column)))
    if (calibration := breakdown.get("calibration")) is not None:
        parts.append(folded("Calibration", _calibration(calibration)))
    for key, title in (("worsened", "Rows whose loss rose most"), ("worst", "Rows with the highest loss")):
        if rows := breakdown.get(key):
            parts.append(folded(title, _worst(rows, title)))
    return parts


def _parts(named: Sequence[Part], metrics: Sequence[str], of: str) -> Iterable[Html]:
    """A table for each metric, a part a line."""
    yield quiet("The p-values are corrected for the number of parts, by Holm's method.")
    heads = [of, "verdict", "rows", "before", "after", "difference", "p", "intervals"]
    for metric in metrics:
        rows = [_part(metric, name, part) for name, part in named if metric in part["tuned"]]
        if rows:
            yield tag("h4", metric)
            yield table(heads, rows, label=f"{metric}, by part", words=[1, 7])


def _part(metric: str, name: str, part: Mapping[str, Any]) -> list[str]:
    before, after, found = (part[key][metric] for key in ("base", "tuned", "differences"))
    plain = {one.name: found[one.name] for one in fields(Difference)} | {"p_value": found["p_value_of_all"]}
    return [
        name,
        verdict_word(verdict(metric, Difference(**plain))),
        f"{after['count']:,}",
        with_bounds(metric, before),
        with_bounds(metric, after),
        told_difference(metric, found),
        wording.p_value(found["p_value_of_all"]),
        interval_mark(before, after, is_percent=wording.is_percent(metric)),
    ]


def _calibration(calibration: Mapping[str, Any]) -> Html:
    told = (
        "How often the likeliest token is right, beside how likely the model called it: the nearer, the more its "
        "probabilities can be believed. The expected calibration error is their mean distance."
    )
    named = (("error before", "base"), ("error after", "tuned"))
    errors = facts((name, wording.percent(calibration[model]["ece"])) for name, model in named)
    heads = ["called likely", "tokens before", "right before", "tokens after", "right after"]
    pairs = zip(calibration["base"]["bins"], calibration["tuned"]["bins"], strict=False)
    rows = [
        [f"{100 * ours['low']:.0f} to {100 * ours['high']:.0f} %", *_bin(ours), *_bin(theirs)]
        for ours, theirs in pairs
        if ours["count"] or theirs["count"]
    ]
    return join([quiet(told), errors, table(heads, rows, label="Calibration")])


def _bin(one: Mapping[str, Any]) -> tuple[str, str]:
    return f"{one['count']:,}", wording.percent(one["accuracy"]) if one["count"] else NONE


def _worst(rows: Sequence[Mapping[str, Any]], label: str) -> Html:
    heads = ["row", "loss before", "loss after", "target tokens"]
    cells = [
        [
            wording.place(row["where"]),
            f"{row['base_loss']:.3f}",
            f"{row['tuned_loss']:.3f}",
            f"{row['target_tokens']:,}",
        ]
        for row in rows
    ]
    return table(heads, cells, label=label)
