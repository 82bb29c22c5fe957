"""What the training loop needs of a recipe, in plain values: limits, the learning rate of each update, what is due."""

import math
from dataclasses import dataclass, field
from typing import Literal

from mlxtune.recipe.choices import Schedule
from mlxtune.training.schedule import learning_rate_at
from mlxtune.training.state import TrainingState

EndedBy = Literal["epochs", "max_steps", "max_minutes", "early_stopping", "stopped"]

TIMED_STEPS = 5
"""Updates after which a limit in minutes becomes one in steps; the first of them is not timed."""
UNKNOWN_STEPS = 1000
"""The schedule's length until then, where nothing but time limits the run: the rate only warms up meanwhile."""


@dataclass(frozen=True)
class Plan:
    """A limit that is None is not there; the first that is reached ends the run."""

    seed: int
    gradient_accumulation_steps: int
    total_steps: int | None
    """The updates that ``epochs`` and ``max_steps`` allow; None if only time ends the run."""
    epochs: int | None
    max_steps: int | None
    max_minutes: float | None
    learning_rate: float
    lr_schedule: Schedule
    warmup_ratio: float
    max_grad_norm: float | None
    validate_every: int | None
    save_every: int
    early_stopping_patience: int | None
    updates_a_window: int = field(default=1, kw_only=True)
    """That are made of the same rows, one after another."""

    def learning_rate_for(self, state: TrainingState) -> float:
        """Of the next update."""
        total = state.horizon or self.total_steps or UNKNOWN_STEPS
        return learning_rate_at(
            state.step,
            total,
            peak=self.learning_rate,
            warmup_steps=math.ceil(self.warmup_ratio * total),
            kind=self.lr_schedule,
        )

    def horizon_after(self, state: TrainingState) -> int | None:
        """How many updates the run will have, if that is known from now on: the minutes left, at the rate so far.

        It is fixed once, so that the schedule of a resumed run is the one it would have had. Where several updates are
        made of the same rows, the first of them may take far longer than the others, so whole rounds of them are timed.
        """
        timed = state.step - 1
        if self.max_minutes is None or state.horizon is not None or state.step < TIMED_STEPS:
            return None
        if timed % self.updates_a_window:
            return None
        seconds_a_step = state.later_seconds / timed
        left = max(0.0, 60 * self.max_minutes - state.seconds)
        steps = state.step + max(1, int(left / seconds_a_step))
        return steps if self.total_steps is None else min(steps, self.total_steps)

    def validates_after(self, state: TrainingState) -> bool:
        """Every ``validate_every`` steps and at the end, if at all."""
        every = self.validate_every
        return every is not None and (state.step % every == 0 or self.ended(state) is not None)

    def saves_after(self, state: TrainingState) -> bool:
        """Every ``save_every`` steps and at the end; asked after the validation, which may be what ends a run."""
        return state.step % self.save_every == 0 or self.ended(state) is not None

    def ended(self, state: TrainingState) -> EndedBy | None:
        """Which limit, if any, has been reached."""
        if self.early_stopping_patience is not None and state.bad_validations >= self.early_stopping_patience:
            return "early_stopping"
        if self.max_steps is not None and state.step >= self.max_steps:
            return "max_steps"
        if self.epochs is not None and state.epoch >= self.epochs:
            return "epochs"
        if self.max_minutes is not None:
            by_steps = state.horizon is not None and state.step >= state.horizon
            return "max_minutes" if by_steps or state.seconds >= 60 * self.max_minutes else None
        return None
