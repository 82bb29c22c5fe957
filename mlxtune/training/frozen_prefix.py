"""The blocks below the lowest adapter, read once: a row's states there are the same in every epoch.

With adapters on the top N blocks only, nothing below them changes while training, and no gradient goes there. So each
row's states [L, D] between the two parts are worked out once, before the first step, and every step starts from them.
The price is 4 D bytes a token in float32, 2 D in bfloat16: in memory up to `MEMORY_BYTES`, beyond it in a file of the
cache that is mapped into memory, and that later runs on the same model and rows find there; runs that are known to have
others after them, as a sweep's trials, ask for the file whatever the size. Where the disk has no room
for that either, the whole network is read in every step.
"""

import contextlib
import hashlib
import importlib.metadata
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.utils import tree_flatten

from mlxtune.cache import cache_folder, make_room
from mlxtune.data.batch import Batch, reading_batches
from mlxtune.data.render import Rendered
from mlxtune.data.store.rows import facts_of
from mlxtune.errors import OutputExistsError
from mlxtune.evaluation.pace import reading_tokens
from mlxtune.files import new_folder
from mlxtune.inference.likelihood import Reader
from mlxtune.inference.shared_prefix import Forward, forward_both
from mlxtune.models.anatomy import Anatomy, split_backbone
from mlxtune.progress import Progress, silent

MEMORY_BYTES = 1 << 30
CACHE_BYTES = 32 << 30
"""Of all entries in the cache together; older ones make room."""
DISK_SHARE = 0.5
"""Of the free disk, that states may take."""
FOLDER, FILE = "frozen_states", "states.bin"


@dataclass(frozen=True)
class States:
    """Every row's states between two blocks, in the file's order, behind one another."""

    array: np.ndarray
    """[tokens, D]: float32, or bfloat16 as the uint16 that have its bits."""
    dtype: mx.Dtype
    starts: tuple[int, ...]
    """Of each row; and the end of the last."""

    def __getitem__(self, row: int) -> mx.array:
        """One row's states [L, D]."""
        states = mx.array(self.array[self.starts[row] : self.starts[row + 1]])
        return states if states.dtype == self.dtype else states.view(self.dtype)

    def put(self, row: int, states: mx.array) -> None:
        """Keep one row's states."""
        plain = states if self.array.dtype == np.float32 else states.view(mx.uint16)
        self.array[self.starts[row] : self.starts[row + 1]] = np.array(plain)


@dataclass(frozen=True)
class FrozenPrefix:
    """The part of a network above its frozen blocks, and every row's states below it; or the whole and no states."""

    reader: Reader
    """Reads what `lift` gives."""
    states: States | None

    def lift(self, batch: Batch) -> Batch:
        """The batch with states [P, D] and [B, L, D] in place of its token ids; unchanged where there are no states."""
        if self.states is None:
            return batch
        prefix, length = batch.prefix_ids.shape[0], batch.token_ids.shape[1]
        rows = [self.states[row] for row in batch.rows]
        own = [states[prefix : prefix + filled] for states, filled in zip(rows, batch.lengths, strict=True)]
        padded = [mx.pad(states, [(0, length - states.shape[0]), (0, 0)]) for states in own]
        return replace(batch, prefix_ids=rows[0][:prefix], token_ids=mx.stack(padded))


def read_frozen_prefix(
    reader: Reader,
    dataset: Sequence[Rendered],
    *,
    model_sha256: str,
    max_tokens: int | None = None,
    keep: bool = False,
    progress: Progress = silent,
) -> FrozenPrefix:
    """Read every row through the blocks below the lowest adapter, without gradients, or find that in the cache.

    There are no states, and the whole network is read in every step, where adapters start at the first block, nothing
    is known of the network's parts, blocks have windows or states of their own, it does not come apart, or there is no
    room.

    Args:
        model_sha256: names the base, for the cache.
        max_tokens: of a batch of rows that are read together; None is what the device reads in a second (`pace`).
        keep: also what would fit into memory in the cache, for other runs; where the disk has no room, in memory.
    """
    whole = FrozenPrefix(reader, None)
    parts = _parts(reader) if dataset else None
    if parts is None:
        return whole
    depth, lower, above = parts
    max_tokens = reading_tokens(reader.network) if max_tokens is None else max_tokens
    one_position = lower(mx.array(dataset[0].token_ids[None, :1]))
    starts = np.concatenate([[0], np.cumsum(facts_of(dataset).length, dtype=np.int64)])
    shape = (int(starts[-1]), one_position.shape[-1])
    plain = np.float32 if one_position.dtype == mx.float32 else np.uint16

    def read_into(array: np.ndarray) -> States:
        states = States(array, one_position.dtype, tuple(starts.tolist()))
        done = 0
        for batch in reading_batches(dataset, share_prefix=True, max_tokens=max_tokens):
            prefix, rows = forward_both(lower, (reader.windows or [])[:depth], batch.prefix_ids, batch.token_ids)
            mx.eval(rows)
            for number, row in enumerate(batch.rows):
                own = rows[number, : batch.lengths[number]]
                known = own if prefix is None else mx.concatenate([prefix[0], own])
                missing = int(starts[row + 1] - starts[row]) - known.shape[0]  # what follows the last target
                states.put(row, mx.pad(known, [(0, missing), (0, 0)]))
            done += len(batch.rows)
            progress("read the frozen blocks: rows", done, len(dataset))
        return states

    size = int(np.prod(shape)) * np.dtype(plain).itemsize
    fits = size <= MEMORY_BYTES
    if fits and not keep:
        return FrozenPrefix(above, read_into(np.empty(shape, plain)))
    folder = cache_folder(FOLDER)
    path = folder / _key(model_sha256, depth, one_position.dtype, dataset)
    if not path.is_dir():
        if size > DISK_SHARE * shutil.disk_usage(folder).free:
            return FrozenPrefix(above, read_into(np.empty(shape, plain))) if fits else whole
        with contextlib.suppress(OutputExistsError), new_folder(path) as part:  # where another process was faster
            read_into(np.memmap(part / FILE, plain, "w+", shape=shape)).array.flush()  # type: ignore[attr-defined]
        make_room(FOLDER, CACHE_BYTES)
    states = States(np.memmap(path / FILE, plain, "r", shape=shape), one_position.dtype, tuple(starts.tolist()))
    return FrozenPrefix(above, states)


def _parts(reader: Reader) -> tuple[int, Forward, Reader] | None:
    """How many blocks are frozen, what they make of token ids, and a reader of what is above; None, if none are."""
    if reader.anatomy is None or reader.windows is None:
        return None
    if any(reader.windows) or len(reader.windows) != len(reader.anatomy.blocks):
        return None
    depth = frozen_depth(reader.anatomy)
    halves = split_backbone(reader.anatomy, depth) if depth else None
    if halves is None:
        return None
    lower, upper = halves
    return (
        depth,
        lower,
        replace(reader, anatomy=replace(reader.anatomy, backbone=upper), windows=reader.windows[depth:]),
    )


def _key(model_sha256: str, depth: int, dtype: mx.Dtype, dataset: Sequence[Rendered]) -> str:
    """All that the states depend on: the base, where it is cut, the number format, and the rows' tokens, which
    tokenizer, template and data have gone into.
    """
    digest = hashlib.sha256(f"{model_sha256} {depth} {dtype} {importlib.metadata.version('mlx')}".encode())
    for row in dataset:
        digest.update(len(row.token_ids).to_bytes(8, "little"))
        digest.update(row.token_ids.tobytes())
        digest.update(row.is_target.tobytes())
    return digest.hexdigest()[:32]


def frozen_depth(anatomy: Anatomy) -> int:
    """How many blocks, from the first on, have nothing that trains in them or, as an embedding does, below them."""
    if any(not name.startswith(f"{anatomy.names.blocks}.") for name, _ in _trainable(anatomy.backbone)):
        return 0
    for depth, block in enumerate(anatomy.blocks):
        if trains(block):
            return depth
    return len(anatomy.blocks)


def trains(block: Any) -> bool:
    """Whether a block has trainable parameters."""
    return bool(_trainable(block))


def _trainable(module: Any) -> Any:
    assert isinstance(module, nn.Module)
    return tree_flatten(module.trainable_parameters())
