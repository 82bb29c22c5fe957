"""The blocks below the lowest adapter, read once: a row's states there are the same in every epoch.

With adapters on the top N blocks only, nothing below them changes while training, and no gradient goes there. So each
row's states [L, D] between the two parts are worked out once, before the first step, and every step starts from them.
The price is memory, 4 D bytes a token in float32; where that would be more than `LIMIT_BYTES`, nothing is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import mlx.core as mx

from mlxtune.adapters.lora import LoRALinear
from mlxtune.data.batch import READING_TOKENS, Batch, reading_batches
from mlxtune.data.render import Rendered
from mlxtune.inference.likelihood import Reader
from mlxtune.inference.shared_prefix import forward_both
from mlxtune.models.anatomy import Anatomy, split_backbone
from mlxtune.progress import Progress, silent

LIMIT_BYTES = 1 << 30


@dataclass(frozen=True)
class FrozenPrefix:
    """The part of a network above its frozen blocks, and every row's states below it; or the whole and no states."""

    reader: Reader
    """Reads what `lift` gives."""
    states: Sequence[mx.array] | None
    """Of each row, [L, D], up to its last target."""

    def lift(self, batch: Batch) -> Batch:
        """The batch with states [P, D] and [B, L, D] in place of its token ids; unchanged where there are no states."""
        if self.states is None:
            return batch
        prefix, length = batch.prefix_ids.shape[0], batch.token_ids.shape[1]
        rows = [self.states[row][prefix:] for row in batch.rows]
        padded = [mx.pad(states, [(0, length - states.shape[0]), (0, 0)]) for states in rows]
        return replace(batch, prefix_ids=self.states[batch.rows[0]][:prefix], token_ids=mx.stack(padded))


def read_frozen_prefix(
    reader: Reader,
    dataset: Sequence[Rendered],
    *,
    max_tokens: int = READING_TOKENS,
    progress: Progress = silent,
) -> FrozenPrefix:
    """Read every row through the blocks below the lowest adapter, without gradients.

    There are no states, and the whole network is read in every step, where adapters start at the first block, nothing
    is known of the network's parts, it does not come apart, or the states would take more than `LIMIT_BYTES`.
    """
    whole = FrozenPrefix(reader, None)
    if reader.anatomy is None or reader.windows is None or not dataset:
        return whole
    windows, depth = reader.windows, frozen_depth(reader.anatomy)
    halves = split_backbone(reader.anatomy, depth) if depth else None
    if halves is None:
        return whole
    lower, upper = halves
    one_position = lower(mx.array(dataset[0].token_ids[None, :1]))
    if one_position.nbytes * sum(len(row.token_ids) for row in dataset) > LIMIT_BYTES:
        return whole
    states: list[mx.array] = [one_position] * len(dataset)

    done = 0
    for batch in reading_batches(dataset, share_prefix=True, max_tokens=max_tokens):
        prefix, rows = forward_both(lower, windows[:depth], batch.prefix_ids, batch.token_ids)
        for number, row in enumerate(batch.rows):
            own = rows[number, : batch.lengths[number]]
            states[row] = own if prefix is None else mx.concatenate([prefix[0], own])
        mx.eval([states[row] for row in batch.rows])
        done += len(batch.rows)
        progress("read the frozen blocks: rows", done, len(dataset))
    above = Reader(reader.network, replace(reader.anatomy, backbone=upper), windows[depth:])
    return FrozenPrefix(above, states)


def frozen_depth(anatomy: Anatomy) -> int:
    """How many blocks, from the first on, have no adapter in them."""
    for depth, block in enumerate(anatomy.blocks):
        if any(isinstance(module, LoRALinear) for module in block.modules()):
            return depth
    return len(anatomy.blocks)
