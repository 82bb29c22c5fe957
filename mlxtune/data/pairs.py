"""A preference as two rows that stand beside each other: the better answer, and the other.

Everything that is done to rows is then done to both; what concerns the two together is here. Rows 2i and 2i + 1 of such
a data set are a pair, and an objective that learns from pairs is given both in one batch.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from mlxtune.data.example import Example
from mlxtune.data.faults import Fault
from mlxtune.data.rendering.chat_text import OTHER_TEMPLATE
from mlxtune.data.store.census import Stream
from mlxtune.data.store.rows import StoredRows

Pairs = Literal["refused", "better", "both"]
"""What preferences among rows become: an error; the better answer alone, to be looked at; or two rows each, where then
every row has to be a preference.
"""
SIDES = 2
KIND = "objective"
"""Of the faults of rows that are no fault of theirs."""


def sides(example: Example) -> tuple[Example, ...]:
    """The two rows of a preference, the better first; any other row alone."""
    if not example.rejected:
        return (example,)
    worse = (*example.messages[:-1], *example.rejected)
    return replace(example, rejected=()), replace(example, messages=worse, rejected=())


def fault_of(example: Example, pairs: Pairs) -> Fault | None:
    """Why a row cannot be taken so; None where it can."""
    if pairs == "refused" and example.kind == "preference":
        return Fault(
            example.where,
            "the rows are preferences, pairs of a better and a worse answer, and objective: sft learns one answer",
            kind=KIND,
            remedy="set objective: {type: dpo}, which learns from both; or, to learn the better answers alone, map "
            "them as completions: data.columns: {completion: chosen}",
        )
    if pairs == "both" and example.kind != "preference":
        return Fault(
            example.where,
            "the objective learns from pairs of a better and a worse answer, and the row has one answer alone",
            kind=KIND,
            remedy="give each row prompt, chosen and rejected, or set objective: {type: sft}",
        )
    return None


def begins_with_pair(stream: Stream) -> bool:
    """Whether a stream's first row is a preference."""
    first = next((item for file in stream.files for item in file.open()), None)
    return isinstance(first, Example) and first.kind == "preference"


def both_left(left: np.ndarray) -> np.ndarray:
    """[rows] bool: of rows that are pairs, those of which both sides have something left.

    Args:
        left: [rows], how much is left of each.
    """
    return np.repeat((left.reshape(-1, SIDES) > 0).all(axis=1), SIDES)


def odd_pairs(rows: StoredRows) -> list[Fault]:
    """Pairs whose two rows differ before the answers, as where a template treats an answer with thoughts otherwise."""
    first = rows.facts.first_target
    return [
        Fault(
            rows.places[number],
            "the chat template begins the two answers otherwise, as where one has thoughts and one has none",
            remedy=f"give both answers thoughts, or neither, or {OTHER_TEMPLATE}",
        )
        for number in range(0, len(rows), SIDES)
        if first[number] != first[number + 1]
        or not np.array_equal(
            rows.token_ids(number, 0, int(first[number])), rows.token_ids(number + 1, 0, int(first[number]))
        )
    ]


def rows_of(pairs: Sequence[int]) -> tuple[int, ...]:
    """The rows of some pairs, by number."""
    return tuple(row for pair in pairs for row in (SIDES * pair, SIDES * pair + 1))
