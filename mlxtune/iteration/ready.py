"""A recipe that was opened, made ready to train: the network with its adapter, the order of its rows, the plan.

Nothing is written here but frozen blocks' states in the cache. What a run trains with, a plan tries out.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map

from mlxtune.adapters.attach import adapter_parameters
from mlxtune.data.order import BatchOrder
from mlxtune.data.pairs import rows_of
from mlxtune.data.render import Rendered
from mlxtune.data.store.rows import take_rows
from mlxtune.errors import AdapterError
from mlxtune.inference.likelihood import Reader, make_reader
from mlxtune.iteration.opening import Opened, make_order, make_plan, objective_of
from mlxtune.iteration.prompts import Prompts, prompts_of
from mlxtune.iteration.start import attach_start
from mlxtune.progress import Progress, silent
from mlxtune.recipe.method import FullSettings, LowRankSettings
from mlxtune.recipe.schema import EveryBlock
from mlxtune.training.frozen_prefix import FrozenPrefix, read_frozen_prefix
from mlxtune.training.masters import AtUse, as_they_are, brought_to, in_use, keep_masters
from mlxtune.training.objectives.objective import Objective
from mlxtune.training.optimizer import make_optimizer
from mlxtune.training.plan import Plan
from mlxtune.training.recompute import recompute_blocks
from mlxtune.training.state import TrainingState


@dataclass(frozen=True, eq=False)
class Elsewhere:
    """Answers under prompts that they do not belong to, one for each unit, and how likely they were before training."""

    rows: Sequence[Rendered]
    reference: np.ndarray
    """[units] float32, the log-probability of each row's targets, in nats."""

    def take(self, units: np.ndarray) -> "Elsewhere":
        """Those of some units."""
        return Elsewhere(take_rows(self.rows, units), self.reference[units])


@dataclass(frozen=True)
class Ready:
    """All that training needs, made of a recipe; nothing is written yet."""

    opened: Opened
    state: TrainingState
    reader: Reader
    order: BatchOrder
    """Of the units that the objective learns from: rows, or pairs of them."""
    plan: Plan
    objective: Objective
    references: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Of an objective that needs them, once they are read: by split, `reference.reference_of` its rows."""
    prompts: Mapping[str, Prompts] = field(default_factory=dict)
    """Of an objective that draws answers, by split: what is asked."""
    start: Mapping[str, Any] = field(default_factory=dict)
    """Of one that compares them with where training starts: the parameters that train, as they are there."""
    elsewhere: Mapping[str, Elsewhere] = field(default_factory=dict)
    """Of an objective that needs a reference point, likewise: what that is estimated from."""

    def rows_of(self, units: Sequence[int]) -> tuple[int, ...]:
        """The rows of some units, by number."""
        return rows_of(units) if self.objective.pairs else tuple(units)

    @property
    def at_use(self) -> AtUse:
        """What a step and a validation compute with, made of the parameters that train."""
        is_full = isinstance(self.opened.recipe.method, FullSettings)
        return brought_to(self.state.network, self.opened.device.precision.dtype) if is_full else as_they_are

    def computing(self) -> AbstractContextManager[None]:
        """While it lasts the network is as a step has it, for whoever reads rows with it between steps."""
        return in_use(self.state.network, self.at_use)

    @property
    def trainable_parameters(self) -> int:
        return sum(array.size for array in adapter_parameters(self.state.network).values())


def make_ready(opened: Opened) -> Ready:
    """The network with its adapter, and what goes with it. Raises: AdapterError, if the method does not fit it,
    or the objective.
    """
    opened = attach_start(opened)
    recipe, network = opened.recipe, opened.model.network
    network.train()  # by which families with recurrent layers leave Metal kernels aside that have no gradient
    if isinstance(recipe.training.grad_checkpoint, EveryBlock):
        recompute_blocks(network, recipe.training.grad_checkpoint.every)
    dropout = recipe.method.dropout if isinstance(recipe.method, LowRankSettings) else 0.0
    objective = objective_of(recipe)
    if dropout and objective.drawing is not None and objective.drawing.remembers:
        raise AdapterError(
            f"dropout ({dropout:g}) makes a token's likelihood another at each reading, so of several "
            "updates of the same answers (objective.num_iterations) none could say how far it has moved",
            remedy="set method.dropout: 0, or objective.num_iterations: 1",
        )
    reader = make_reader(network, in_pieces=not dropout)
    keep_masters(network)
    optimizer = make_optimizer(recipe.training.optimizer, weight_decay=recipe.training.weight_decay)
    optimizer.init(network.trainable_parameters())
    order = make_order(recipe, opened.datasets["train"].rows, share_prefix=reader.shares_prefixes)
    plan = make_plan(recipe, order, validates="valid" in opened.datasets)
    state = TrainingState(network, optimizer)
    ready = Ready(opened, state, reader, order, plan, objective)
    if objective.drawing is None:
        return ready
    prompts = {split: prompts_of(opened, split) for split in ("train", "valid") if split in opened.datasets}
    start = {}
    if objective.drawing.compares:  # in memory of its own from here on, so that a plan counts it
        start = tree_map(lambda array: array * 1.0, state.parameters()[0])
        mx.eval(start)
    return replace(ready, prompts=prompts, start=start)


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
    drawn = ready.objective.drawing is not None  # no answer is met in a later epoch
    if drawn or setting == "off" or (setting == "auto" and not again):
        return FrozenPrefix(ready.reader, None)
    return read_frozen_prefix(ready.reader, rows, model_sha256=opened.folder.sha256, keep=keep, progress=progress)
