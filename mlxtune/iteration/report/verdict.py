"""Whether the tuned model is better, in one sentence, and what speaks against believing it.

The sentence is about one metric, the headline that scores.json names, on rows that the model was not trained on; it
takes the verdict of the paired test as it stands there. Rows that train has too are no unseen rows: from
`LEAKED_SHARE` on the sentence says leaked before all else, below it a reservation does. Knows the run's evidence;
nothing of HTML.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mlxtune.evaluation.verdict import FEWEST_ROWS
from mlxtune.iteration.chosen import chosen_from
from mlxtune.iteration.report import wording
from mlxtune.iteration.report.evidence import Evidence
from mlxtune.iteration.started_from import started_from

LEAKED_SHARE = 0.05
"""Of the held-out rows, how many may say or ask what a training row does before the scores mean little."""
BITS_PER_BYTE = "bits_per_byte"
"""What the verdict is about where there is no task."""

Tone = Literal["better", "worse", "undecided", "leaked", "open"]

OPENINGS: Mapping[str, tuple[Tone, str]] = {
    "better": ("better", "Better"),
    "worse": ("worse", "Worse"),
    "not distinguishable": ("undecided", "Not distinguishable"),
}
"""By the verdict that scores.json has."""

ROWS = {"test": "test rows", "valid": "validation rows"}
VALID = "These are the validation rows, which chose the checkpoint: that flatters the tuned model."
LEAKED_SET = {"test": "leaked_test_set", "valid": "leaked_validation_set"}
"""The finding that says of a split what the sentence or a reservation says here."""


@dataclass(frozen=True)
class Verdict:
    """One sentence, its tone (``open``: nothing was measured), and reservations, a sentence each."""

    tone: Tone
    sentence: str
    reservations: Sequence[str] = ()


def make_verdict(evidence: Evidence) -> Verdict:
    """What a run's evidence comes to."""
    if evidence.scores is None:
        return Verdict("open", _not_measured(evidence))
    scores = evidence.scores
    metric = headline(scores)
    leaked, of = leaked_rows(evidence.data, scores["split"])
    if of and leaked / of >= LEAKED_SHARE:
        why = f"{wording.share(leaked, of)} {scores['split']} rows say or ask what a training row does"
        sentence = f"Leaked: {why}, so the scores prove little; {_told(metric, scores)}"
        return Verdict("leaked", sentence, _reservations(evidence, metric, leaked=0))
    found = scores["differences"].get(metric)
    tone, opening = OPENINGS["not distinguishable" if found is None else found["verdict"]]
    told = _told(metric, scores, unseen="" if leaked or scores["split"] == "valid" else "unseen ")
    return Verdict(tone, f"{opening}: {told}", _reservations(evidence, metric, leaked=leaked))


def headline(scores: Mapping[str, Any]) -> str:
    """The metric that the verdict is about."""
    return scores.get("headline", BITS_PER_BYTE)


def leaked_rows(data: Mapping[str, Any] | None, split: str) -> tuple[int, int]:
    """How many held-out rows say or ask exactly what a training row does, of how many."""
    found = (data or {}).get("leakage", {}).get(split)
    return (found["same"] + (found["asks_same"] or 0), found["rows"]) if found else (0, 0)


def _not_measured(evidence: Evidence) -> str:
    finished, (first, *_) = evidence.finished, evidence.missing
    way = f" ({first.command})" if first.command else ""
    if finished is None:
        done = evidence.steps[-1]["step"] if evidence.steps else 0
        made = f"{wording.count(done, 'update')} {'was' if done == 1 else 'were'} made"
        return f"Not finished: {made} so far, and nothing was measured{way}."
    return f"Not measured: {first.why}{way}."


def _told(metric: str, scores: Mapping[str, Any], *, unseen: str = "") -> str:
    """The headline's figures before and after, and how sure their difference is; ``unseen`` stands before the rows."""
    before, after, found = (scores[key].get(metric) for key in ("base", "tuned", "differences"))
    figures = f"from {wording.figure(metric, before['mean'])} to {wording.figure(metric, after['mean'])}"
    rows = f"on {after['count']:,} {unseen}{ROWS[scores['split']]}"
    if found is None:
        return f"{rows}, {metric} went {figures}, which was not measured on the same rows."
    if after["count"] < FEWEST_ROWS:
        sure = f"so few rows cannot tell; at least {FEWEST_ROWS} are needed"
    else:
        interval = f"{100 * found['confidence']:g} % interval {wording.bounds(metric, found)}"
        sure = f"{interval}, {wording.p_value(found['p_value'])}"
    return f"{rows}, {metric} went {figures} ({wording.difference(metric, found['mean'])}; {sure})."


def _reservations(evidence: Evidence, metric: str, *, leaked: int) -> list[str]:
    """What a reader should know before believing the sentence, the gravest first."""
    scores = evidence.scores
    assert scores is not None
    split, told = scores["split"], []
    found = ((evidence.data or {}).get("leakage") or {}).get(split)
    if found is not None and leaked:
        rows = wording.share(leaked, found["rows"])
        told.append(f"Leaked rows: {rows} {split} rows say or ask what a training row does.")
    if found is not None and found["near"]:
        rows = wording.share(found["near"], found["rows"])
        told.append(f"Near the training data: {rows} {split} rows are nearly training rows.")
    overlap = (evidence.data or {}).get("overlap")
    if split == "valid":
        told.append(VALID)
    elif overlap and (seen := overlap["same"] + (overlap["asks_same"] or 0)):
        rows = wording.share(seen, overlap["rows"])
        told.append(
            f"Not quite unseen: {rows} test rows say or ask what a validation row does; those chose the checkpoint."
        )
    told += _how_it_came_about(evidence)
    differences = scores["differences"]
    if worse := [name for name, one in differences.items() if one["verdict"] == "worse" and name != metric]:
        told.append(f"Worse than before: {', '.join(worse)}.")
    for model in scores["against"]:
        verdict = model["differences"].get(metric, {}).get("verdict", "better")
        if verdict != "better":
            how = "worse than" if verdict == "worse" else "not distinguishable from"
            told.append(f"By the same measure the tuned model is {how} {model['label']}, which was not tuned.")
    light = (scores.get("forgetting") or {}).get("light")
    if light in ("amber", "red"):
        told.append(f"It forgot: the light for general ability is {light}.")
    problems = [
        one for one in evidence.findings or () if one["severity"] == "problem" and one["kind"] != LEAKED_SET[split]
    ]
    return [*told, *(f"Problem: {one['sentence']}." for one in problems)]


def _how_it_came_about(evidence: Evidence) -> list[str]:
    """That the run was chosen among others, and that it went on from another."""
    chosen = chosen_from(evidence.manifest)
    told = (None if chosen is None else chosen.sentence, started_from(evidence.run, evidence.manifest))
    return [one for one in told if one is not None]
