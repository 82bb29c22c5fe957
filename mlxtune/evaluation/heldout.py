"""How well a network predicts rows that it was not trained on: sums and counts a row, from which means follow.

A mean of means would weigh a token by the length of its row, so sums and counts travel together. Bits per byte is the
one figure that compares across tokenizers: it spreads the same nats over the answer's UTF-8 bytes, not over tokens.
A row that is read in several parts is one row all the same.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import mlx.core as mx
import numpy as np

from mlxtune.data.batch import Batch, make_batch, reading_batches
from mlxtune.data.render import Rendered
from mlxtune.device.memory import is_out_of_memory
from mlxtune.errors import DeviceError
from mlxtune.evaluation.calibration import Calibration, calibration_of
from mlxtune.evaluation.pace import reading_tokens
from mlxtune.inference.likelihood import Reader, target_losses, target_states
from mlxtune.progress import Progress, silent

if TYPE_CHECKING:
    from mlx_lm.tokenizer_utils import TokenizerWrapper


@dataclass(frozen=True)
class HeldOut:
    """Of N rows: [N] nats, target tokens, targets that were the likeliest token, and bytes of the targets' text; and of
    all their tokens together, how far its confidence can be believed.
    """

    loss_sum: np.ndarray
    target_count: np.ndarray
    hit_count: np.ndarray
    byte_count: np.ndarray
    calibration: Calibration

    def take(self, rows: slice) -> "HeldOut":
        """Some of the rows; how far confidence can be believed is that of all."""
        return HeldOut(
            self.loss_sum[rows], self.target_count[rows], self.hit_count[rows], self.byte_count[rows], self.calibration
        )

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
    row_of: Sequence[int] | np.ndarray | None = None,
    max_tokens: int | None = None,
    lift: Callable[[Batch], Batch] = lambda batch: batch,
    progress: Progress = silent,
) -> HeldOut:
    """Read every row once, without gradients; where memory is short, fewer rows at once.

    Args:
        row_of: where ``dataset`` has rows in several parts: the number, from 0 and without a gap, of the row that each
            is a part of, its parts in their order.
        max_tokens: of the rows that are read at once; None is what the device reads in a second (`pace`).
        lift: makes of a batch what the reader is to be given, where that is not its token ids.

    Raises: DeviceError, if there is not enough memory for a single row.
    """
    max_tokens = reading_tokens(reader.network) if max_tokens is None else max_tokens
    owner_of = np.arange(len(dataset)) if row_of is None else np.asarray(row_of)
    rows = int(owner_of.max(initial=-1)) + 1
    loss_sum, hit_count = np.zeros(rows), np.zeros(rows)
    targets = [row.token_ids[1:][row.is_target[1:]] for row in dataset]
    top_probabilities, is_likeliest = [np.zeros(0)], [np.zeros(0, bool)]

    def read(batch: Batch) -> None:
        lifted = lift(batch)
        states = target_states(reader, lifted.prefix_ids, lifted.token_ids, batch.target_index)
        found = target_losses(reader, states, batch.target_id)
        owner = np.repeat(owner_of[list(batch.rows)], [len(targets[row]) for row in batch.rows])
        np.add.at(loss_sum, owner, np.array(found.nats, np.float64))
        is_likeliest.append(np.array(found.is_likeliest))
        np.add.at(hit_count, owner, is_likeliest[-1].astype(np.float64))
        top_probabilities.append(np.array(found.top_probability))

    done = 0
    for batch in _batches_that_fit(dataset, read, share_prefix=reader.shares_prefixes, max_tokens=max_tokens):
        done += len(batch.rows)
        progress("read held-out rows: rows", done, len(dataset))
    return HeldOut(
        loss_sum=loss_sum,
        target_count=np.bincount(owner_of, [len(ids) for ids in targets], minlength=rows).astype(np.int64),
        hit_count=hit_count,
        byte_count=np.array([max(1, count) for count in _text_bytes(tokenizer, targets, owner_of, rows)]),
        calibration=calibration_of(np.concatenate(top_probabilities), np.concatenate(is_likeliest)),
    )


def _text_bytes(
    tokenizer: "TokenizerWrapper", targets: Sequence[np.ndarray], owner_of: np.ndarray, rows: int
) -> list[int]:
    """The UTF-8 bytes of each row's targets as text. Parts are joined first: a character may lie across two of them."""
    ids: list[list[int]] = [[] for _ in range(rows)]
    for owner, part in zip(owner_of.tolist(), targets, strict=True):
        ids[owner] += part.tolist()
    texts = (tokenizer.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=False) for row in ids)
    return [len(text.encode("utf-8")) for text in texts]


def _batches_that_fit(
    dataset: Sequence[Rendered], read: Callable[[Batch], None], *, share_prefix: bool, max_tokens: int
) -> Iterator[Batch]:
    """Batches of all rows, each after it was read; one for which memory is short is read in halves, and so are those
    after it that are as large.
    """
    fits = math.inf
    for whole in reading_batches(dataset, share_prefix=share_prefix, max_tokens=max_tokens):
        ahead = [whole]
        while ahead:
            batch = ahead.pop()
            rows, positions = batch.rows, batch.prefix_ids.size + batch.token_ids.size
            if len(rows) > 1 and positions > fits:
                mx.clear_cache()
                middle = len(rows) // 2
                ahead += [
                    make_batch(dataset, half, share_prefix=share_prefix) for half in (rows[middle:], rows[:middle])
                ]
                continue
            try:
                read(batch)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if len(rows) == 1:
                    raise DeviceError(
                        "there is not enough memory to read this held-out row",
                        where=dataset[rows[0]].where,
                        remedy="close other programs and try again, or lower data.max_seq_length in a new run",
                    ) from error
                fits = positions // 2
                ahead.append(batch)
            else:
                yield batch
