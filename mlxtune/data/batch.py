"""Rows into the arrays of a batch: shared prefix, padding, targets.

Knows token ids and masks; nothing of text, chat templates or the network. What no target depends on is left out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np

from mlxtune.data.render import Rendered
from mlxtune.data.store.rows import facts_of, token_ids_of
from mlxtune.data.store.token_store import Facts
from mlxtune.inference.shared_prefix import common_prefix_length

READING_TOKENS = 4096
"""Of a batch that is only read: enough to use the machine well, at little memory without gradients."""


@dataclass(frozen=True)
class Batch:
    """Rows that go through the network together: five arrays and those that an objective needs besides, and plain
    values about them.

    ``prefix_ids`` [P] stand before every row of ``token_ids`` [B, L]. ``target_index`` [T] points, in the flattened
    [B * L], to the position that predicts ``target_id`` [T], which counts ``target_weight`` [T] in the loss.
    ``rows`` are the examples' numbers, ``lengths`` how many of the L positions each fills; ``tokens`` counts each row
    in full, prefix and all, without padding; ``weight_sum`` is that of the targets' weights.
    """

    prefix_ids: mx.array
    token_ids: mx.array
    target_index: mx.array
    target_id: mx.array
    target_weight: mx.array
    beside: tuple[mx.array, ...] = ()
    rows: tuple[int, ...] = ()
    lengths: tuple[int, ...] = ()
    tokens: int = 0
    target_count: int = 0
    weight_sum: float = 0.0

    def arrays(self) -> tuple[mx.array, ...]:
        """The arrays alone: all that a compiled function is given."""
        return self.prefix_ids, self.token_ids, self.target_index, self.target_id, self.target_weight, *self.beside

    @classmethod
    def of_arrays(cls, arrays: Sequence[mx.array]) -> "Batch":
        """A batch of which nothing but the arrays is known."""
        prefix_ids, token_ids, target_index, target_id, target_weight, *beside = arrays
        return cls(prefix_ids, token_ids, target_index, target_id, target_weight, tuple(beside))


@dataclass(frozen=True)
class Shape:
    """Of a batch: P prefix positions, B rows of L positions, T targets; ``filled`` positions are no padding."""

    prefix: int
    rows: int
    length: int
    targets: int
    filled: int = field(default=0, compare=False)

    @property
    def positions(self) -> int:
        """That go through the network: P + B L."""
        return self.prefix + self.rows * self.length

    @property
    def saved(self) -> int:
        """Tokens that the rows begin with and that do not go through the network again: (B - 1) P."""
        return (self.rows - 1) * self.prefix

    @property
    def pairs(self) -> int:
        """Of positions, that attention scores: every one with all of its row, masked or not."""
        return self.prefix**2 + self.rows * self.length * (self.prefix + self.length)

    @property
    def size(self) -> tuple[int, int, int]:
        """To order shapes by, roughly as they take time and memory."""
        return self.positions, self.pairs, self.targets


def make_batch(dataset: Sequence[Rendered], rows: Sequence[int], *, share_prefix: bool, multiple: int = 1) -> Batch:
    """Put ``rows`` of ``dataset`` into arrays.

    What follows a row's last target is left out: nothing depends on it. A prefix ends at least one token before the
    first target of every row, so that each target is predicted from a position of its own row.

    Args:
        share_prefix: whether the network shares prefixes (`inference.likelihood.Reader.shares_prefixes`).
        multiple: P, L and T are multiples of it, by a shorter prefix, padding, and targets of weight 0, so that there
            are few shapes to compile.
    """
    own = [dataset[row] for row in rows]
    shape = shape_of(own, range(len(own)), share_prefix=share_prefix, multiple=multiple)
    targets = [np.flatnonzero(row.is_target) for row in own]
    inputs = [row.token_ids[: at[-1]] for row, at in zip(own, targets, strict=True)]
    prefix_length, length = shape.prefix, shape.length
    token_ids = np.zeros((len(rows), length), np.int32)
    for i, ids in enumerate(inputs):
        token_ids[i, : len(ids) - prefix_length] = ids[prefix_length:]
    index = [i * length + positions - 1 - prefix_length for i, positions in enumerate(targets)]
    ids = [row.token_ids[positions] for row, positions in zip(own, targets, strict=True)]
    weights = np.concatenate([_weights(row, positions) for row, positions in zip(own, targets, strict=True)])
    target_count = len(weights)
    unused = (0, shape.targets - target_count)
    return Batch(
        prefix_ids=mx.array(inputs[0][:prefix_length].astype(np.int32)),
        token_ids=mx.array(token_ids),
        target_index=mx.array(np.pad(np.concatenate(index).astype(np.int32), unused)),
        target_id=mx.array(np.pad(np.concatenate(ids).astype(np.int32), unused)),
        target_weight=mx.array(np.pad(weights, unused)),
        rows=tuple(rows),
        lengths=tuple(len(ids) - prefix_length for ids in inputs),
        tokens=sum(len(row.token_ids) for row in own),
        target_count=target_count,
        weight_sum=float(weights.sum(dtype=np.float64)),
    )


def _weights(row: Rendered, positions: np.ndarray) -> np.ndarray:
    """Of a row's targets."""
    return np.ones(len(positions), np.float32) if row.weight is None else row.weight[positions]


def shape_of(dataset: Sequence[Rendered], rows: Sequence[int], *, share_prefix: bool, multiple: int = 1) -> Shape:
    """The shape that `make_batch` would give ``rows``, of which no more is read than what they may share."""
    facts = facts_of(dataset, rows)
    prefix = _shared_length(dataset, rows, facts) if share_prefix else 0
    prefix -= prefix % multiple
    return Shape(
        prefix=prefix,
        rows=len(rows),
        length=_up(int(facts.last_target.max()) - prefix, multiple),
        targets=_up(int(facts.target_count.sum()), multiple),
        filled=int(facts.last_target.sum()) - (len(rows) - 1) * prefix,
    )


def count_positions(dataset: Sequence[Rendered], rows: Sequence[int], *, share_prefix: bool) -> int:
    """How many positions a batch of ``rows`` would take through the network: P + B L."""
    return shape_of(dataset, rows, share_prefix=share_prefix).positions


def _shared_length(dataset: Sequence[Rendered], rows: Sequence[int], facts: Facts) -> int:
    """P of these rows: each target is predicted from a position of its own row."""
    most = int(facts.first_target.min()) - 1
    if len(rows) < 2 or most < 1:  # noqa: PLR2004 - a row alone shares nothing
        return 0
    return common_prefix_length([token_ids_of(dataset, row, 0, most) for row in rows])


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def reading_batches(
    dataset: Sequence[Rendered], *, share_prefix: bool, max_tokens: int = READING_TOKENS
) -> Iterator[Batch]:
    """All rows, sorted by length: for reading, where order does not matter.

    Args:
        max_tokens: B * (P + L) of a batch, at most; a row that is longer goes alone.
    """
    lengths = facts_of(dataset).length
    batch: list[int] = []
    for row in np.argsort(lengths, kind="stable").tolist():
        if batch and (len(batch) + 1) * int(lengths[row]) > max_tokens:
            yield make_batch(dataset, batch, share_prefix=share_prefix)
            batch = []
        batch.append(row)
    if batch:
        yield make_batch(dataset, batch, share_prefix=share_prefix)
