"""The README.md of a sweep's folder: what was tried, what it came to, how to go on, for whoever has nothing else."""

import html
import re
from typing import TYPE_CHECKING

from mlxtune.iteration.sweep.table import cells, duration, headings, sentences
from mlxtune.printable import printable

if TYPE_CHECKING:
    from mlxtune.iteration.sweep.result import SweepResult

TITLES = {"settings": "a sweep over settings", "data_sizes": "would more data help?"}
FOLDER = {
    "settings": [
        "- `trials/NNNN`: a run folder each, with adapter and metrics; only the winner keeps its checkpoints, so",
        "  `mlxtune train --resume` of another trial begins at step 0",
        "- `winner.yaml`: the winner's recipe, for `mlxtune train`",
    ],
    "data_sizes": [
        "- `trials/NNNN`: a run folder each, with adapter and metrics, but without checkpoints",
        "- `parts/`: the rows of each part, **copies of your own**; delete the folder with them when you are through",
    ],
}


def to_readme(result: "SweepResult") -> str:
    """The whole file."""
    plan = result.plan
    limits = [f"{plan.trials} trials"] if plan.trials is not None else []
    limits += [f"{plan.hours:g} hours"] if plan.hours is not None else []
    lines = [
        f"# {plan.name}: {TITLES[plan.kind]}",
        "",
        *sentences(result),
        "",
        _row(headings(result)),
        _row(["---"] * len(headings(result))),
        *map(_row, cells(result)),
        "",
        f"{len(result.trials)} trials in {duration(result.seconds)}"
        + (f"; at most {' or '.join(limits)} were allowed." if limits else "."),
        "",
        "## In this folder",
        "",
        *FOLDER[plan.kind],
        "- `study.db`: the trials as optuna keeps them; `sweep.json`: what is tried; `sweep.html`: this with a plot",
        "- go on, with more trials or hours if you like: `mlxtune sweep --resume .`",
        "",
    ]
    return "\n".join(lines)


def _row(values: list[str]) -> str:
    return f"| {' | '.join(map(_text, values))} |"


def _text(text: str) -> str:
    return html.escape(re.sub(r"([\\`*|\[\]])", r"\\\1", printable(text)), quote=False)
