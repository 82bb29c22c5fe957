"""The step of a run on its own rows: what training makes its updates with, and what a plan measures."""

import functools
from collections.abc import Callable, Sequence

from mlxtune.data.batch import Batch, make_batch
from mlxtune.data.render import Rendered
from mlxtune.training.frozen_prefix import FrozenPrefix
from mlxtune.training.loop import Rows
from mlxtune.training.objectives.sft import sft_loss_sum
from mlxtune.training.state import TrainingState
from mlxtune.training.step import Step, make_step

SHAPE_MULTIPLE = 16
"""Of a compiled batch's prefix, length and number of targets."""


def make_run_step(
    state: TrainingState,
    rows: Sequence[Rendered],
    frozen: FrozenPrefix,
    *,
    max_grad_norm: float | None,
    compiled: bool,
) -> tuple[Step, Callable[[Rows], Batch]]:
    """The arithmetic of a run's updates, and what makes its batches.

    Args:
        rows: the training rows.
        frozen: from the same rows.
        compiled: whether the device compiles steps; batches then come in few shapes.
    """
    above, lift = frozen.reader, frozen.lift
    share_prefix, multiple = above.shares_prefixes, shape_multiple(compiled=compiled)

    @functools.lru_cache(maxsize=2)  # a batch is made ahead of time, and taken when it is next
    def batch_of(numbers: Rows) -> Batch:
        return lift(make_batch(rows, numbers, share_prefix=share_prefix, multiple=multiple))

    step = make_step(
        state.network,
        state.optimizer,
        lambda batch: sft_loss_sum(above, batch),
        max_grad_norm=max_grad_norm,
        compiled=compiled,
    )
    return step, batch_of


def shape_multiple(*, compiled: bool) -> int:
    """What the dimensions of a run's batches are multiples of."""
    return SHAPE_MULTIPLE if compiled else 1
