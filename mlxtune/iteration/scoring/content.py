"""All that is kept of a scored run: scores.json, what each row adds, and the answers side by side.

The three are written together and read together; what does not fit together counts as not there, and is made anew.
Another model's scores join those that are there, and stay until the run's own are made anew.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mlxtune.errors import RunError
from mlxtune.evaluation.breakdown import RowFacts, breakdown
from mlxtune.evaluation.measured import Measured
from mlxtune.evaluation.preferred import A_TOKEN
from mlxtune.evaluation.score import BOOTSTRAP_SEED, Scores
from mlxtune.evaluation.scorers import SCORERS
from mlxtune.evaluation.statistics import CONFIDENCE
from mlxtune.evaluation.tasks import Task
from mlxtune.evaluation.verdict import judge
from mlxtune.files import write_together
from mlxtune.iteration.scoring.row_scores import pack_row_scores, read_row_scores
from mlxtune.runs.folder import RunFolder
from mlxtune.runs.manifest import versions

BITS_PER_BYTE = "bits_per_byte"
"""The one metric that every run has and that compares across tokenizers."""


@dataclass(frozen=True)
class Scored:
    """What is known of a run's models: the content of scores.json, what each row adds by model, and the samples."""

    content: dict[str, Any]
    rows: dict[str, Mapping[str, Measured]]
    samples: list[dict[str, Any]]


def run_scored(
    base: Scores, tuned: Scores, tasks: Sequence[Task], facts: RowFacts, *, split: str, basis: Mapping[str, Any]
) -> Scored:
    """A run's base and tuned model on the held-out rows of ``split``, side by side."""
    content = {
        "split": split,
        "rows": len(facts.where),
        "confidence": CONFIDENCE,
        **asked(tasks, tuned.measured),
        "base": plain(base),
        "tuned": plain(tuned),
        "differences": judge(tuned.measured, base.measured, seed=BOOTSTRAP_SEED),
        "cost": {"base": base.cost.to_json(), "tuned": tuned.cost.to_json()},
        "details": {"base": dict(base.details), "tuned": dict(tuned.details)},
        "breakdown": breakdown(base, tuned, facts),
        "against": [],
        "basis": dict(basis),
        "versions": versions(),
    }
    measured = {"base": base.measured, "tuned": tuned.measured}
    return Scored(content, measured, _side_by_side(base.samples, tuned.samples))


def asked(tasks: Sequence[Task], measured: Mapping[str, Measured]) -> dict[str, Any]:
    """The tasks with the metric that each is first judged by, and the metric that all is first judged by."""
    told = [{"name": task.name, "scorer": task.scorer, "primary": SCORERS[task.scorer].PRIMARY} for task in tasks]
    primaries = [f"{one['name']}.{one['primary']}" for one in told] + [A_TOKEN]
    return {"headline": next((name for name in primaries if name in measured), BITS_PER_BYTE), "tasks": told}


def plain(scores: Scores) -> dict[str, Any]:
    """Each metric with its interval, as plain values."""
    return {name: asdict(interval) for name, interval in scores.metrics.items()}


def add_rival(scored: Scored, entry: Mapping[str, Any], scores: Scores) -> Scored:
    """The same with another model beside the two, in the place of one that had its label."""
    label = entry["label"]
    others = [one for one in scored.content["against"] if one["label"] != label]
    samples = [
        {
            **ours,
            "against": {**ours["against"], label: theirs["output"]},
            "scores": {**ours["scores"], label: theirs["scores"]},
        }
        for ours, theirs in zip(scored.samples, scores.samples, strict=True)
    ]
    return Scored(
        {**scored.content, "against": [*others, dict(entry)]}, {**scored.rows, label: scores.measured}, samples
    )


def read_scored(run: RunFolder) -> Scored | None:
    """All that is kept of a scored run; None if something of it is missing, damaged or of another reading."""
    content = run.read_scores()
    if content is None:
        return None
    try:
        rows = read_row_scores(run)
        samples = [json.loads(line) for line in run.samples.read_text(encoding="utf-8").splitlines()]
        labels = {entry["label"] for entry in content["against"]}
    except (RunError, OSError, ValueError, KeyError, TypeError):
        return None
    fits = rows.keys() == labels | {"base", "tuned"} and all(one["against"].keys() == labels for one in samples)
    return Scored(content, {**rows}, samples) if fits else None


def write_scored(run: RunFolder, scored: Scored) -> None:
    """Write all that is kept of a scored run."""
    lines = "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in scored.samples)
    told = json.dumps(scored.content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    contents = {
        run.samples: lines.encode(),
        run.row_scores: pack_row_scores(scored.rows, scored.content["basis"]),
        run.scores: told.encode(),
    }
    write_together(contents)


def _side_by_side(base: Sequence[Mapping[str, Any]], tuned: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Both models' answers to each row of each task."""
    return [
        {
            "task": ours["task"],
            "where": ours["where"],
            "prompt": ours["prompt"],
            "reference": ours["reference"],
            "base": theirs["output"],
            "tuned": ours["output"],
            "against": {},
            "scores": {"base": theirs["scores"], "tuned": ours["scores"]},
        }
        for theirs, ours in zip(base, tuned, strict=True)
    ]
