"""A recipe that was opened, made ready to train: the network with its adapter, the order of its rows, the plan.

Nothing is written here but frozen blocks' states in the cache. What a run trains with, a plan tries out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mlxtune.adapters.attach import adapter_parameters
from mlxtune.data.order import BatchOrder
from mlxtune.data.render import Rendered
from mlxtune.inference.likelihood import Reader, make_reader
from mlxtune.iteration.opening import Opened, make_order, make_plan
from mlxtune.iteration.start import attach_start
from mlxtune.progress import Progress, silent
from mlxtune.recipe.schema import EveryBlock
from mlxtune.training.frozen_prefix import FrozenPrefix, read_frozen_prefix
from mlxtune.training.optimizer import make_optimizer
from mlxtune.training.plan import Plan
from mlxtune.training.recompute import recompute_blocks
from mlxtune.training.state import TrainingState


@dataclass(frozen=True)
class Ready:
    """All that training needs, made of a recipe; nothing is written yet."""

    opened: Opened
    state: TrainingState
    reader: Reader
    order: BatchOrder
    plan: Plan

    @property
    def trainable_parameters(self) -> int:
        return sum(array.size for array in adapter_parameters(self.state.network).values())


def make_ready(opened: Opened) -> Ready:
    """The network with its adapter, and what goes with it. Raises: AdapterError, if the method does not fit it."""
    opened = attach_start(opened)
    recipe, network = opened.recipe, opened.model.network
    network.train()  # by which families with recurrent layers leave Metal kernels aside that have no gradient
    if isinstance(recipe.training.grad_checkpoint, EveryBlock):
        recompute_blocks(network, recipe.training.grad_checkpoint.every)
    optimizer = make_optimizer(recipe.training.optimizer, weight_decay=recipe.training.weight_decay)
    optimizer.init(network.trainable_parameters())
    reader = make_reader(network, in_pieces=recipe.method.dropout == 0.0)
    order = make_order(recipe, opened.datasets["train"].rows, share_prefix=reader.shares_prefixes)
    plan = make_plan(recipe, order, validates="valid" in opened.datasets)
    return Ready(opened, TrainingState(network, optimizer), reader, order, plan)


def frozen_prefix(
    ready: Ready, split: str, *, rows: Sequence[Rendered] | None = None, progress: Progress = silent
) -> FrozenPrefix:
    """The frozen blocks' states of a split, where the recipe wants them or the rows are met more than once.

    Args:
        rows: of the split, if it is not to be all of them.
    """
    opened, plan = ready.opened, ready.plan
    setting = opened.recipe.training.cache_frozen_prefix
    keep = setting == "kept" and rows is None  # of a few rows, tried by a forecast, no other run asks
    rows = opened.datasets[split].rows if rows is None else rows
    steps_an_epoch = math.ceil(ready.order.count_batches(0) / plan.gradient_accumulation_steps)
    a_pass = steps_an_epoch if split == "train" else plan.validate_every or 1
    again = plan.total_steps is None or plan.total_steps > a_pass
    if setting == "off" or (setting == "auto" and not again):
        return FrozenPrefix(ready.reader, None)
    return read_frozen_prefix(ready.reader, rows, model_sha256=opened.folder.sha256, keep=keep, progress=progress)
