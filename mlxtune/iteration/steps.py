"""The loop of a run on its own rows: what training is made of, and what a plan measures."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from mlxtune.data.batch import Batch, Shape, count_positions, make_batch, shape_of
from mlxtune.data.render import Rendered
from mlxtune.data.store.rows import places_of
from mlxtune.device.choose import Device
from mlxtune.device.distributed import ALONE, Ranks
from mlxtune.iteration.ready import Ready
from mlxtune.training.frozen_prefix import FrozenPrefix
from mlxtune.training.loop import Rows, Training
from mlxtune.training.objectives.sft import sft_loss_sum
from mlxtune.training.step import make_step

SHAPE_MULTIPLE = 16
"""Of a compiled batch's prefix, length and number of targets."""


def make_training(
    ready: Ready,
    rows: Sequence[Rendered],
    frozen: FrozenPrefix,
    *,
    record: Callable[[dict[str, Any]], None] = lambda _: None,
    validate: Callable[[], float] = lambda: 0.0,
    save: Callable[[], None] = lambda: None,
    should_stop: Callable[[], bool] = lambda: False,
    ranks: Ranks = ALONE,
) -> Training:
    """What the loop works with.

    Args:
        rows: to train on: the recipe's, or, to try steps out, some of them.
        frozen: from the same rows.
    """
    above, lift = frozen.reader, frozen.lift
    share_prefix, multiple = above.shares_prefixes, shape_multiple(ready.opened.device)

    @functools.lru_cache(maxsize=2)  # a batch is made ahead of time, and taken when it is next
    def batch_of(numbers: Rows) -> Batch:
        return lift(make_batch(rows, numbers, share_prefix=share_prefix, multiple=multiple))

    step = make_step(
        ready.state.network,
        ready.state.optimizer,
        lambda batch: sft_loss_sum(above, batch),
        max_grad_norm=ready.plan.max_grad_norm,
        compiled=ready.opened.device.compiles,
    )
    return Training(
        plan=ready.plan,
        order=ready.order,
        step=step,
        make_batch=batch_of,
        positions=functools.partial(count_positions, rows, share_prefix=share_prefix),
        places=places_of(rows),
        record=record,
        validate=validate,
        save=save,
        should_stop=should_stop,
        ranks=ranks,
    )


def training_shape(ready: Ready, rows: Rows) -> Shape:
    """The shape that training rows have when they go through the network together."""
    dataset = ready.opened.datasets["train"].rows
    return shape_of(
        dataset, rows, share_prefix=ready.reader.shares_prefixes, multiple=shape_multiple(ready.opened.device)
    )


def shape_multiple(device: Device) -> int:
    """What the dimensions of a run's batches are multiples of: more than 1 where each shape is compiled."""
    return SHAPE_MULTIPLE if device.compiles else 1
