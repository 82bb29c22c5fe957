"""Where two models differ on the same held-out rows: by length, by group, and row by row at the worst end.

Every part is measured as the whole is, from what its rows add to each metric, so a part's interval is as wide as its
few rows make it, and many parts give many comparisons: of twenty groups that are all alike one differs with p < 0.05.
So each part's difference carries a p-value that is corrected for their number, per metric. Knows rows by number;
nothing of models, and of texts only a group's name.

Source of the correction: Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of
Statistics 6 (1979), https://www.jstor.org/stable/4615733.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from mlxtune.data.dataset import Dataset
from mlxtune.data.example import Example
from mlxtune.data.pairs import SIDES
from mlxtune.data.store.rows import facts_of
from mlxtune.evaluation.measured import Measured
from mlxtune.evaluation.score import BOOTSTRAP_SEED, Scores
from mlxtune.evaluation.verdict import judge, read_difference, verdict

LENGTHS = 4
"""Parts by length, at most."""
LENGTH_ROWS = 10
"""Rows that a part by length is to have at least."""
GROUPS = 80
"""Groups told apart, the largest; the rows of all others are one part. With 100 parts the smallest p-value of a paired
bootstrap, 1 / (RESAMPLES + 1), would no longer be a small one once it is corrected for their number."""
WORST = 20
"""Rows of each list of worst ones."""


@dataclass(frozen=True, eq=False)
class RowFacts:
    """Of the N rows of a split, by their number: where each came from, how many tokens of it the network reads (of a
    pair those of both answers, each with its prompt), and the group that it belongs to, which is None where it has no
    value in ``column``; no groups without one.
    """

    where: Sequence[str]
    tokens: np.ndarray
    column: str | None = None
    groups: Sequence[str | None] = ()


def row_facts(dataset: Dataset, examples: Sequence[Example], column: str | None = None) -> RowFacts:
    """Of the rows of ``dataset``, whose `Dataset.examples` are ``examples``.

    Args:
        column: by whose values rows are grouped, one of those that `Example.kept` has.
    """
    parts, row_of = dataset.once()
    row_of = row_of // SIDES if dataset.pairs else row_of
    tokens = np.bincount(row_of, facts_of(parts).length, minlength=len(examples)).astype(np.int64)
    groups = () if column is None else tuple(_name_of(example.kept.get(column)) for example in examples)
    return RowFacts([example.where for example in examples], tokens, column, groups)


def breakdown(base: Scores, tuned: Scores, rows: RowFacts) -> dict[str, Any]:
    """Both models' scores in parts, as plain values.

    Returns: ``calibration``: of each model (`Calibration.summary`). ``by_length``: parts by the rows' tokens, from
        ``low`` to ``high``, both included. ``by_group``: None without a column, else ``column``, ``groups``, the
        largest first, and ``others``, the part of all smaller ones and how many ``groups`` that is, or None. Each part
        has ``rows``, their number, and by metric what its rows say: ``base`` and ``tuned``, intervals, and
        ``differences``, tuned less base, with ``p_value_of_all`` beside ``p_value``, corrected for the number of parts,
        and the ``verdict`` by it.
        ``worst``: rows by the tuned model's loss a token, highest first. ``worsened``: rows by how far it rose above
        the base's.
    """
    return {
        "calibration": {"base": base.calibration.summary(), "tuned": tuned.calibration.summary()},
        "by_length": _by_length(base, tuned, rows.tokens),
        "by_group": None if rows.column is None else _by_group(base, tuned, rows.column, rows.groups),
        **_worst_rows(base.measured["loss"], tuned.measured["loss"], rows.where),
    }


def correct_for_several(p_values: Sequence[float]) -> list[float]:
    """Holm's: as p-values of one test each, but holding for all at once, in the order in which they come."""
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, number in enumerate(np.argsort(p_values, kind="stable").tolist()):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[number]))
        corrected[number] = highest
    return corrected


def _by_length(base: Scores, tuned: Scores, tokens: np.ndarray) -> list[dict[str, Any]]:
    bounds = _length_bounds(tokens)
    part_of = np.searchsorted(bounds, tokens)
    parts = [np.flatnonzero(part_of == i) for i in range(len(bounds))]
    found = _measure(base, tuned, parts)
    spans = [{"low": int(tokens[part].min()), "high": int(tokens[part].max())} for part in parts]
    return [span | part for span, part in zip(spans, found, strict=True)]


def _length_bounds(tokens: np.ndarray) -> list[int]:
    """The longest row of each part, rising. Rows of one length stay together; those left are shared out evenly again,
    so that many short ones leave no part that is nearly empty.
    """
    wanted = max(1, min(LENGTHS, len(tokens) // LENGTH_ROWS))
    bounds: list[int] = []
    left, taken = len(tokens), 0
    for length, count in zip(*np.unique(tokens, return_counts=True), strict=True):
        taken += int(count)
        if taken * (wanted - len(bounds)) >= left:
            bounds.append(int(length))
            left, taken = left - taken, 0
    return bounds


def _by_group(base: Scores, tuned: Scores, column: str, groups: Sequence[str | None]) -> dict[str, Any]:
    members: dict[str | None, list[int]] = {}
    for number, group in enumerate(groups):
        members.setdefault(group, []).append(number)
    names = sorted(members, key=lambda name: (-len(members[name]), name is None, name or ""))
    parts = [np.array(members[name]) for name in names[:GROUPS]]
    if rest := names[GROUPS:]:
        parts.append(np.sort(np.concatenate([members[name] for name in rest])))
    found = _measure(base, tuned, parts)
    return {
        "column": column,
        "groups": [{"group": name} | part for name, part in zip(names[:GROUPS], found, strict=False)],
        "others": {"groups": len(rest)} | found[-1] if rest else None,
    }


def _measure(base: Scores, tuned: Scores, parts: Sequence[np.ndarray]) -> list[dict[str, Any]]:
    """What both models' rows in each part say of every metric that any of them has."""
    found: list[dict[str, Any]] = []
    for part in parts:
        models = [
            {name: only for name, measured in scores.measured.items() if len((only := _only(measured, part)).rows)}
            for scores in (base, tuned)
        ]
        before, after = (
            {name: asdict(measured.interval(seed=BOOTSTRAP_SEED)) for name, measured in model.items()}
            for model in models
        )
        differences = judge(models[1], models[0], seed=BOOTSTRAP_SEED)
        found.append({"rows": len(part), "base": before, "tuned": after, "differences": differences})
    for name in base.measured:
        differences = [part["differences"][name] for part in found if name in part["differences"]]
        corrected = correct_for_several([difference["p_value"] for difference in differences])
        for difference, p_value in zip(differences, corrected, strict=True):
            among_all = replace(read_difference(difference), p_value=p_value)
            difference |= {"p_value_of_all": p_value, "verdict": verdict(name, among_all)}
    return found


def _only(measured: Measured, rows: np.ndarray) -> Measured:
    """The same of some rows alone."""
    kept = np.isin(measured.rows, rows)
    return Measured(measured.rows[kept], measured.sums[kept], measured.figure)


def _worst_rows(base: Measured, tuned: Measured, where: Sequence[str]) -> Mapping[str, list[dict[str, Any]]]:
    """Of two losses: the rows of the highest one, and of those that rose the rows that rose most."""
    before, after = (measured.sums[:, 0] / measured.sums[:, 1] for measured in (base, tuned))

    def row(i: int) -> dict[str, Any]:
        number = int(tuned.rows[i])
        return {
            "where": where[number],
            "row": number,
            "base_loss": float(before[i]),
            "tuned_loss": float(after[i]),
            "target_tokens": int(tuned.sums[i, 1]),
        }

    worst = np.argsort(-after, kind="stable")[:WORST].tolist()
    risen = np.argsort(before - after, kind="stable")[:WORST].tolist()
    return {"worst": [row(i) for i in worst], "worsened": [row(i) for i in risen if after[i] > before[i]]}


def _name_of(value: Any) -> str | None:
    """A group's name: a text as it is, None for no value, all else as JSON."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
