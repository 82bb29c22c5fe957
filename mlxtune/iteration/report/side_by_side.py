"""Two models' answers to the same rows, in the order in which a sceptic reads them, with what is not as wanted.

Word by word: an answer's words that were not wanted, and wanted ones that it lacks. Knows samples as samples.jsonl has
them; nothing of HTML. Words are compared as they stand, so another order of JSON keys is a difference too, whatever a
scorer makes of it; and the comparison takes the square of the words, so a longer text than `MOST_WORDS` is not marked.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Literal

from mlxtune.evaluation.verdict import LOWER_IS_BETTER

MOST_WORDS = 600
LEAST_ALIKE = 0.3
"""Below this likeness (0 to 1) marks would cover all, and tell nothing."""

_WORDS = re.compile(  # characters of scripts that write no spaces between words stand alone
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|\\s+|\\w+|[^\\w\\s]"
)

Outcome = Literal["worse", "better", "wrong", "right", "same"]
OUTCOMES: tuple[Outcome, ...] = ("worse", "better", "wrong", "same", "right")
"""In the order in which they are shown. ``wrong`` and ``right``: before and after alike; ``same``: alike in between."""


@dataclass(frozen=True)
class Piece:
    """A run of an answer's words: as wanted, ``extra`` (not wanted), or ``missing`` (wanted, and not in the answer)."""

    text: str
    kind: Literal["as wanted", "extra", "missing"] = "as wanted"


@dataclass(frozen=True)
class Pair:
    """One row of a task with both models' values of the metric that the task is judged by."""

    sample: Mapping[str, Any]
    metric: str
    base: float
    tuned: float
    outcome: Outcome


def mark(answer: str, wanted: str) -> list[Piece]:
    """An answer in pieces, by what was wanted; one plain piece, where the two have little in common or are too long."""
    ours, theirs = _WORDS.findall(answer), _WORDS.findall(wanted)
    whole = [Piece(answer)] if answer else []
    if ours == theirs or max(len(ours), len(theirs)) > MOST_WORDS:
        return whole
    matcher = SequenceMatcher(None, theirs, ours, autojunk=False)
    if matcher.ratio() < LEAST_ALIKE:
        return whole
    pieces: list[Piece] = []
    for kind, start, end, from_, to in matcher.get_opcodes():
        if kind == "equal":
            pieces.append(Piece("".join(ours[from_:to])))
            continue
        if end > start:
            pieces.append(Piece("".join(theirs[start:end]), "missing"))
        if to > from_:
            pieces.append(Piece("".join(ours[from_:to]), "extra"))
    return pieces


def pair_up(samples: Sequence[Mapping[str, Any]], tasks: Sequence[Mapping[str, Any]]) -> list[Pair]:
    """The samples with their outcome: those that got worse first, the greatest losses before the others.

    Args:
        tasks: name and primary metric of each, as scores.json has them; a task that is not there, or whose metric a
            sample lacks, is judged by the sample's first metric.
    """
    primary = {task["name"]: task["primary"] for task in tasks}
    pairs = [pair for sample in samples if (pair := _pair(sample, primary.get(sample["task"]))) is not None]
    order = {outcome: place for place, outcome in enumerate(OUTCOMES)}
    return sorted(pairs, key=lambda pair: (order[pair.outcome], -abs(pair.tuned - pair.base)))


def _pair(sample: Mapping[str, Any], metric: str | None) -> Pair | None:
    scores = sample["scores"]
    shared = [name for name in scores["tuned"] if name in scores["base"]]
    if not shared:
        return None
    judged = metric if metric is not None and metric in shared else shared[0]
    base, tuned = float(scores["base"][judged]), float(scores["tuned"][judged])
    return Pair(sample, judged, base, tuned, _outcome(base, tuned, lower_is_better=judged in LOWER_IS_BETTER))


def _outcome(base: float, tuned: float, *, lower_is_better: bool) -> Outcome:
    if base != tuned:
        return "better" if (tuned > base) != lower_is_better else "worse"
    if lower_is_better:
        return "same"
    return "right" if tuned >= 1 else "wrong" if tuned <= 0 else "same"
