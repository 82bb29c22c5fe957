"""What becomes of a row that is longer than the network is to see: cut, split or left out.

Knows lengths and arrays; what is told of it, and to whom, is for others.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mlxtune.data.render import Rendered
from mlxtune.recipe.choices import Overflow


class Part(NamedTuple):
    """Of a row: its first ``head`` tokens, then those from ``start`` to ``end``; ``seen``: the token at ``start`` was
    a target of the part before, and is none here.
    """

    start: int
    end: int
    head: int = 0
    seen: bool = False


def fit(row: Rendered, max_seq_length: int, overflow: Overflow, *, before: Sequence[int] = ()) -> list[Rendered]:
    """The row in parts of at most ``max_seq_length`` tokens: itself, what is left after cutting, or none if it may not
    be cut.

    What is left may hold no target. A first token is never one: it has no predecessor. Where a row is split each part
    begins with the last token of the part before, so that every target is learned once.

    Args:
        before: tokens that keep their place at the beginning if the row has them there (`Renderer.before`): families
            with BOS are lost without it.
    """
    if len(row.token_ids) <= max_seq_length:
        return [row]
    return [cut(row, part) for part in parts_of(row.token_ids, max_seq_length, overflow, before=before)]


def parts_of(token_ids: np.ndarray, max_seq_length: int, overflow: Overflow, *, before: Sequence[int]) -> list[Part]:
    """The parts that `fit` cuts from a row of more than ``max_seq_length`` tokens."""
    length = len(token_ids)
    head = len(before) if token_ids[: len(before)].tolist() == list(before) else 0
    if overflow == "truncate_right":
        return [Part(0, max_seq_length)]
    if overflow == "truncate_left":
        return [Part(length - max_seq_length + head, length, head)]
    if overflow == "split":
        room = max(2, max_seq_length - head)
        starts = range(max_seq_length - 1, length - 1, room - 1)
        rest = [Part(start, min(start + room, length), head, seen=True) for start in starts]
        return [Part(0, max_seq_length), *rest]
    return []


def cut(row: Rendered, part: Part) -> Rendered:
    """One part of a row."""
    kept = np.r_[: part.head, part.start : part.end]
    is_target = row.is_target[kept]
    is_target[0] = False
    if part.seen:
        is_target[part.head] = False
    weight = None if row.weight is None else row.weight[kept]
    return Rendered(row.token_ids[kept], is_target, row.where, weight)
