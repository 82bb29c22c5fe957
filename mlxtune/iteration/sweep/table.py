"""The trials of a sweep as rows of plain text, and what it came to in sentences; for every view of it."""

import json
from typing import TYPE_CHECKING, Any

from mlxtune.iteration.sweep.data_sizes import SHARE, count_of
from mlxtune.iteration.sweep.study import Trial

if TYPE_CHECKING:
    from mlxtune.iteration.sweep.result import SweepResult


def headings(result: "SweepResult") -> list[str]:
    """Of the columns of `cells`."""
    return ["trial", *(one.key for one in result.plan.dimensions), "valid loss", "updates", "how it ended"]


def cells(result: "SweepResult") -> list[list[str]]:
    """A row a trial: the complete ones by their validation loss, then the others in order; sizes of data in order."""
    ordered = list(result.trials)
    if result.plan.kind == "settings":
        ordered.sort(key=lambda trial: (trial.valid_loss is None, trial.valid_loss or 0.0, trial.number))
    return [
        [
            str(trial.number),
            *(_setting(result, one.key, trial.point[one.key]) for one in result.plan.dimensions),
            "" if trial.valid_loss is None else f"{trial.valid_loss:.4f}",
            str(trial.facts.get("steps", "")),
            ending(result, trial),
        ]
        for trial in ordered
    ]


def _setting(result: "SweepResult", key: str, value: Any) -> str:
    if result.plan.kind == "data_sizes" and key == SHARE:
        return f"{100 * value:g} % ({count_of(value, result.plan.rows)} rows)"
    return shown(value)


def shown(value: Any) -> str:
    """A value as a command line has it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def ending(result: "SweepResult", trial: Trial) -> str:
    """How a trial ended, in words."""
    if trial.state == "complete":
        return "the winner" if result.winner is not None and trial.number == result.winner.number else "complete"
    if trial.state == "running":
        reached = f" at {max(trial.curve)} %" if trial.curve else ""
        return f"not finished{reached}"
    return str(trial.facts.get("why", trial.state))


def sentences(result: "SweepResult") -> list[str]:
    """What the sweep came to."""
    if result.answer is not None:
        return [result.answer.sentence]
    if result.plan.kind == "data_sizes":
        return ["No answer yet: two seeds or more have to be through with every share."]
    winner = result.winner
    if winner is None:
        return ["No winner yet: no trial is complete." if not result.others else "Other processes are still at work."]
    cut = sum(trial.state == "pruned" for trial in result.trials)
    settings = ", ".join(f"{key}={shown(value)}" for key, value in winner.point.items())
    count = f"{len(result.trials)} trials, {cut} of which were ended early"
    told = [f"Of {count}, trial {winner.number} has the lowest validation loss, {winner.valid_loss:.4f}: {settings}."]
    own = next((trial for trial in result.trials if trial.number == 0 and result.plan.first is not None), None)
    if own is not None and own != winner and own.valid_loss is not None and winner.valid_loss is not None:
        told.append(f"The recipe as it was (trial 0) has {own.valid_loss:.4f}.")
    if result.scores is None:
        told.append("There are no test rows to score it on; its validation loss is flattered by having been chosen.")
    else:
        told.append("The test rows were scored for the winner alone.")
    return told


def duration(seconds: float) -> str:
    """As in ``48 s``, ``12 min`` or ``3.5 hours``."""
    minutes = seconds / 60
    if minutes < 2:  # noqa: PLR2004 - below it minutes say too little
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} hours"  # noqa: PLR2004 - the same of hours
