"""How well a network predicts rows that it was not trained on: sums and counts a row, from which means follow.

A mean of means would weigh a token by the length of its row, so sums and counts travel together. Bits per byte is the
one figure that compares across tokenizers: it spreads the same nats over the answer's UTF-8 bytes, not over tokens.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlxtune.data.batch import READING_TOKENS, Batch, reading_batches
from mlxtune.data.render import Rendered
from mlxtune.inference.likelihood import Reader, target_losses, target_states
from mlxtune.progress import Progress, silent

if TYPE_CHECKING:
    from mlx_lm.tokenizer_utils import TokenizerWrapper


@dataclass(frozen=True)
class HeldOut:
    """Of N rows: [N] nats, target tokens, targets that were the likeliest token, and bytes of the targets' text."""

    loss_sum: np.ndarray
    target_count: np.ndarray
    hit_count: np.ndarray
    byte_count: np.ndarray

    @property
    def loss(self) -> float:
        """Nats a target token."""
        return float(self.loss_sum.sum() / self.target_count.sum())

    @property
    def token_accuracy(self) -> float:
        return float(self.hit_count.sum() / self.target_count.sum())

    @property
    def bits_per_byte(self) -> float:
        return float(self.loss_sum.sum() / math.log(2) / self.byte_count.sum())


def read_heldout(
    reader: Reader,
    tokenizer: "TokenizerWrapper",
    dataset: Sequence[Rendered],
    *,
    max_tokens: int = READING_TOKENS,
    lift: Callable[[Batch], Batch] = lambda batch: batch,
    progress: Progress = silent,
) -> HeldOut:
    """Read every row once, without gradients."""
    rows = len(dataset)
    loss_sum, hit_count = np.zeros(rows), np.zeros(rows)
    targets = [row.token_ids[1:][row.is_target[1:]] for row in dataset]

    done = 0
    for batch in reading_batches(dataset, share_prefix=reader.shares_prefixes, max_tokens=max_tokens):
        lifted = lift(batch)
        states = target_states(reader, lifted.prefix_ids, lifted.token_ids, batch.target_index)
        losses, hits = target_losses(reader, states, batch.target_id)
        owner = np.repeat(batch.rows, [len(targets[row]) for row in batch.rows])
        np.add.at(loss_sum, owner, np.array(losses, np.float64))
        np.add.at(hit_count, owner, np.array(hits, np.float64))
        done += len(batch.rows)
        progress("read held-out rows: rows", done, rows)
    texts = [
        tokenizer.decode(ids.tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=False) for ids in targets
    ]
    return HeldOut(
        loss_sum=loss_sum,
        target_count=np.array([len(ids) for ids in targets]),
        hit_count=hit_count,
        byte_count=np.array([max(1, len(text.encode("utf-8"))) for text in texts]),
    )
