"""Before and after: every metric with its interval, difference and verdict; other models beside it; parts of it.

Knows the keys of scores.json.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mlxtune.evaluation.verdict import FEWEST_ROWS, LOWER_IS_BETTER, SIGNIFICANCE
from mlxtune.iteration.report import wording
from mlxtune.iteration.report.breakdown_section import breakdown_parts
from mlxtune.iteration.report.cells import NONE, told_difference, verdict_word, with_bounds
from mlxtune.iteration.report.elements import folded, quiet, section, sentences, table
from mlxtune.iteration.report.interval_mark import interval_mark
from mlxtune.iteration.report.verdict import BITS_PER_BYTE, headline
from mlxtune.page import Html, join, tag

MISTAKES = 20
MOST_LABELS = 30
"""A confusion matrix of more is no table to be read."""


def scores_section(scores: Mapping[str, Any]) -> Html:
    """The whole section."""
    split = scores["split"]
    confidence = f"{100 * scores['confidence']:g} %"
    lower = " and ".join(name for name in scores["tuned"] if name in LOWER_IS_BETTER)
    told = (
        f"{wording.count(scores['rows'], f'{split} row')}, the same for both models, as are prompts, template, limits "
        f"and sampling. The bars are {confidence} bootstrap intervals: grey before, coloured after. "
        f"{f'Lower is better for {lower}. ' if lower else ''}"
        f"A difference is called one where a paired test on the same rows gives p < {SIGNIFICANCE}, its interval "
        f"leaves 0 out, and there are at least {FEWEST_ROWS} rows."
    )
    parts = [quiet(told), _before_and_after(scores)]
    if scores["against"]:
        parts += [tag("h3", "Beside models that were not tuned"), _against(scores)]
    judged = [f"{task['name']}.{task['primary']}" for task in scores.get("tasks") or ()]
    metrics = [name for name in dict.fromkeys([headline(scores), *judged, BITS_PER_BYTE]) if name in scores["tuned"]]
    parts += [*breakdown_parts(scores.get("breakdown") or {}, metrics), *_details(scores.get("details") or {})]
    return section("scores", "Before and after", *parts)


def _before_and_after(scores: Mapping[str, Any]) -> Html:
    """Every metric of both models, the headline first."""
    heads = ["metric", "verdict", "before", "after", "difference", "p", "intervals"]
    names = [name for name in dict.fromkeys([headline(scores), *scores["tuned"]]) if name in scores["base"]]
    rows = [
        _metric(name, scores["base"][name], scores["tuned"][name], scores["differences"].get(name)) for name in names
    ]
    return table(heads, rows, label="Before and after, by metric", words=[1, 6])


def _metric(
    name: str, before: Mapping[str, Any], after: Mapping[str, Any], found: Mapping[str, Any] | None
) -> list[str]:
    mark = interval_mark(before, after, is_percent=wording.is_percent(name))
    figures = with_bounds(name, before), with_bounds(name, after)
    if found is None:
        return [name, NONE, *figures, NONE, NONE, mark]
    p_value = join([wording.p_value(found["p_value"]), tag("small", found["test"])])
    return [name, verdict_word(found["verdict"]), *figures, told_difference(name, found), p_value, mark]


def _against(scores: Mapping[str, Any]) -> Html:
    """The tuned model's figures, and every other model's with what the tuned one has over it."""
    names = [name for name in scores["tuned"] if any(name in model["metrics"] for model in scores["against"])]
    if (first := headline(scores)) in names:
        names = [first, *(name for name in names if name != first)]
    heads = ["model", *names]
    rows: list[Sequence[str]] = [["tuned", *(with_bounds(name, scores["tuned"][name]) for name in names)]]
    rows += [[model["label"], *(_other(name, model) for name in names)] for model in scores["against"]]
    words = (
        "Below each figure: whether the tuned model is better or worse than this one, by the paired test. Loss and "
        "token accuracy are of tokens, and compare only where both models cut the text alike; bits per byte always do."
    )
    notes = [f"{model['label']}: {note}" for model in scores["against"] for note in model["notes"]]
    parts = [quiet(words), table(heads, rows, label="The tuned model beside others")]
    return join([*parts, sentences(notes, class_="quiet")] if notes else parts)


def _other(metric: str, model: Mapping[str, Any]) -> Html | str:
    if metric not in model["metrics"]:
        return NONE
    found = model["differences"].get(metric)
    cells = [with_bounds(metric, model["metrics"][metric])]
    if found:
        cells.append(tag("small", f"tuned: {found['verdict']}, {wording.p_value(found['p_value'])}"))
    return join(cells)


def _details(details: Mapping[str, Any]) -> list[Html]:
    """Of each task with labels, which the tuned model took for which."""
    return [
        folded(f"Which label was taken for which: {task}", _confusion(found["labels"], found["confusion"]))
        for task, found in (details.get("tuned") or {}).items()
        if "confusion" in found
    ]


def _confusion(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> Html:
    """The commonest mistakes, and the whole matrix where there are few labels."""
    pairs = [(counts[i][j], i, j) for i in range(len(labels)) for j in range(len(labels)) if i != j and counts[i][j]]
    mistakes = [
        [labels[i], labels[j], f"{count:,}", f"{sum(counts[i]):,}"]
        for count, i, j in sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2]))[:MISTAKES]
    ]
    heads = ["label", "taken for", "rows", "of its rows"]
    parts = [table(heads, mistakes, label="Commonest mistakes", words=[1])] if mistakes else [quiet("No mistakes.")]
    if len(labels) <= MOST_LABELS:
        rows = [
            [label, *(f"{count:,}" if count else "" for count in row)]
            for label, row in zip(labels, counts, strict=True)
        ]
        parts += [
            quiet("All rows: their label to the left, the one that was chosen above."),
            table(["", *labels], rows, label="Confusion matrix"),
        ]
    return join(parts)
