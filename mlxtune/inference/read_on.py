"""Places in texts from which a network reads on, more than once: what stands before is read a single time.

A place is what every layer keeps of the rows read so far, all of one length, so that no padding has to be hidden and
each family's own masks and positions are right as they are (shared_prefix.py says how). Rows that read on from a place
may be several for one row of it. The price is that rows of different lengths do not meet in one place.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from mlxtune.inference.likelihood import Reader
from mlxtune.inference.shared_prefix import Contents, for_rows, new_caches, pieces


@dataclass(frozen=True, eq=False)
class Place:
    """Where a network is after B rows of ``length`` positions each; ``contents`` are its layers', evaluated."""

    contents: tuple[Contents, ...]
    rows: int
    length: int

    def of(self, rows: Sequence[int]) -> "Place":
        """The place of so many rows, each as one of this place's is, by number."""
        if self.rows == 1:  # one row's keys and values are made as many where they are joined to others
            contents = self.contents
        else:
            numbers = mx.array(list(rows))
            contents = tuple([None if one is None else one[numbers] for one in layer] for layer in self.contents)
        return Place(contents, len(rows), self.length)


def read_on(reader: Reader, token_ids: mx.array, after: Place | None = None) -> tuple[mx.array, Place]:
    """Read ``token_ids`` after a place, or from the beginning.

    Args:
        reader: one that shares prefixes.
        token_ids: [B, L], with L > 0; a place of one row stands before every one of them.

    Returns: the last hidden states (or, without an anatomy, the logits), [B, L, ...], and the place after the last
        position; lazy, both.
    """
    assert reader.windows is not None
    count, added = token_ids.shape
    states: list[mx.array] = []
    caches = new_caches(reader.windows)
    contents = None if after is None else after.contents
    for part in pieces(added, reader.piece):
        if contents is not None:
            caches = [cache.holding(for_rows(cache, own, count)) for cache, own in zip(caches, contents, strict=True)]
        states.append(reader.forward(token_ids[:, part], cache=caches))
        contents = tuple(cache.contents for cache in caches)
    assert contents is not None
    length = added + (0 if after is None else after.length)
    return mx.concatenate(states, axis=1) if len(states) > 1 else states[0], Place(contents, count, length)


def evaluate(states: mx.array, place: Place) -> None:
    """Work both out, so that what is read on from the place does not read it again."""
    mx.eval(states, *(one for layer in place.contents for one in layer if one is not None))
