"""Answers that stand under other prompts: what a network says of them tells how far it has moved as a whole.

Row i has the prompt of pair i and an answer of another pair: the better and the other one by turns, of the pair half of
all pairs away, since pairs of one prompt stand near each other. Which answer meets which prompt is the same in every
epoch, so that how likely each was before training need be read but once; the price is that no others ever meet. Of a
single pair the answer is its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from mlxtune.data.pairs import SIDES
from mlxtune.data.render import Rendered


@dataclass(frozen=True, eq=False)
class Mismatched(Sequence[Rendered]):
    """One row a pair, each made when it is asked for."""

    pairs: Sequence[Rendered]
    """Rows 2i and 2i + 1 are a pair, with the same tokens before the first target."""
    max_seq_length: int
    """What is beyond it of a long answer under a long prompt is left out."""

    def __len__(self) -> int:
        return len(self.pairs) // SIDES

    @overload
    def __getitem__(self, number: int) -> Rendered: ...
    @overload
    def __getitem__(self, number: slice) -> list[Rendered]: ...
    def __getitem__(self, number: int | slice) -> "Rendered | list[Rendered]":
        count = len(self)
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(count))]
        if not 0 <= number < count:
            raise IndexError(number)
        other = (number + count // 2) % count
        asked, answered = self.pairs[SIDES * number], self.pairs[SIDES * other + number % SIDES]
        prompt, answer = int(asked.is_target.argmax()), int(answered.is_target.argmax())
        ids = np.concatenate([asked.token_ids[:prompt], answered.token_ids[answer:]])
        is_target = np.concatenate([asked.is_target[:prompt], answered.is_target[answer:]])
        return Rendered(ids[: self.max_seq_length], is_target[: self.max_seq_length], asked.where)
