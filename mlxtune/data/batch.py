"""Rendered examples into batches: order, length buckets, shared prefix, padding.

Knows token ids and lengths; nothing of text, chat templates or the network. The order is a function of (seed, epoch)
alone, so a resumed run meets the batch it would have met. Batches are cut from a shuffled pool sorted by length, which
saves padding, at the price of batches that are not independent draws.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mlxtune.data.render import Rendered
from mlxtune.inference.shared_prefix import common_prefix_length

POOL_BATCHES = 16
"""Batches of like lengths are cut from this many batches' worth of shuffled rows."""


@dataclass(frozen=True)
class Batch:
    """Rows that go through the network together.

    ``prefix_ids`` [P] stand before every row of ``token_ids`` [B, L]. ``target_index`` [T] points, in the flattened
    [B * L], to the position that predicts ``target_id`` [T], which counts ``target_weight`` [T] in the loss.
    ``rows`` are the examples' numbers, ``lengths`` how many of the L positions each fills; ``tokens`` counts each row
    in full, prefix and all, without padding.
    """

    prefix_ids: mx.array
    token_ids: mx.array
    target_index: mx.array
    target_id: mx.array
    target_weight: mx.array
    rows: tuple[int, ...]
    lengths: tuple[int, ...]
    tokens: int

    @property
    def target_count(self) -> int:
        return self.target_id.shape[0]

    @property
    def positions(self) -> int:
        """How many positions the network computes: P + B * L."""
        return self.prefix_ids.shape[0] + self.token_ids.size


def epoch_order(lengths: Sequence[int], batch_size: int, *, seed: int, epoch: int) -> list[tuple[int, ...]]:
    """The rows of each batch of one epoch: every row once, the last partial batch included.

    Args:
        lengths: tokens of each row.
        batch_size: B, of all batches but perhaps one.
        seed, epoch: all that the order depends on, beside the lengths.
    """
    generator = np.random.default_rng([seed, epoch])
    shuffled = generator.permutation(len(lengths))
    batches = []
    for start in range(0, len(lengths), POOL_BATCHES * batch_size):
        pool = sorted(shuffled[start : start + POOL_BATCHES * batch_size].tolist(), key=lambda row: lengths[row])
        batches += [tuple(pool[i : i + batch_size]) for i in range(0, len(pool), batch_size)]
    return [batches[i] for i in generator.permutation(len(batches))]


def make_batch(dataset: Sequence[Rendered], rows: Sequence[int], *, share_prefix: bool) -> Batch:
    """Put ``rows`` of ``dataset`` into arrays.

    What follows a row's last target is left out: nothing depends on it. A prefix ends at least one token before the
    first target of every row, so that each target is predicted from a position of its own row.

    Args:
        share_prefix: whether the network shares prefixes (`inference.likelihood.Reader.shares_prefixes`).
    """
    inputs, targets = [], []
    for row in rows:
        positions = np.flatnonzero(dataset[row].is_target[1:]) + 1
        targets.append(positions)
        inputs.append(dataset[row].token_ids[: positions[-1]])
    prefix_length = 0
    if share_prefix and len(rows) > 1:
        prefix_length = min(common_prefix_length(inputs), min(int(positions[0]) for positions in targets) - 1)
    length = max(len(ids) for ids in inputs) - prefix_length
    token_ids = np.zeros((len(rows), length), np.int32)
    for i, ids in enumerate(inputs):
        token_ids[i, : len(ids) - prefix_length] = ids[prefix_length:]
    index = [i * length + positions - 1 - prefix_length for i, positions in enumerate(targets)]
    ids = [dataset[row].token_ids[positions] for row, positions in zip(rows, targets, strict=True)]
    target_id = np.concatenate(ids).astype(np.int32)
    return Batch(
        prefix_ids=mx.array(inputs[0][:prefix_length].astype(np.int32)),
        token_ids=mx.array(token_ids),
        target_index=mx.array(np.concatenate(index).astype(np.int32)),
        target_id=mx.array(target_id),
        target_weight=mx.array(np.ones(len(target_id), np.float32)),
        rows=tuple(rows),
        lengths=tuple(len(ids) - prefix_length for ids in inputs),
        tokens=sum(len(dataset[row].token_ids) for row in rows),
    )


def reading_batches(dataset: Sequence[Rendered], batch_size: int, *, share_prefix: bool) -> Iterator[Batch]:
    """All rows, sorted by length: for reading, where order does not matter."""
    order = sorted(range(len(dataset)), key=lambda row: len(dataset[row].token_ids))
    for start in range(0, len(order), batch_size):
        yield make_batch(dataset, order[start : start + batch_size], share_prefix=share_prefix)
