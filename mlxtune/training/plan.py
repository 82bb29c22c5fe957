"""What the training loop needs of a recipe, in plain values: sizes, limits, the learning rate of each update."""

import math
from dataclasses import dataclass
from typing import Literal

from mlxtune.training.schedule import Schedule, learning_rate_at
from mlxtune.training.state import TrainingState

EndedBy = Literal["epochs", "max_steps", "max_minutes", "early_stopping", "stopped"]

CLOCK_STEPS = 1000  # the schedule's length where only time limits the run


@dataclass(frozen=True)
class Plan:
    """A limit that is None is not there; the first that is reached ends the run."""

    seed: int
    rows: int
    batch_size: int
    gradient_accumulation_steps: int
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

    @property
    def windows_per_epoch(self) -> int:
        """Updates in one pass over the rows; the last may have fewer rows."""
        batches = math.ceil(self.rows / self.batch_size)
        return math.ceil(batches / self.gradient_accumulation_steps)

    @property
    def total_steps(self) -> int | None:
        """The updates that epochs and max_steps allow; None if only time ends the run."""
        limits = [self.max_steps, None if self.epochs is None else self.epochs * self.windows_per_epoch]
        return min((limit for limit in limits if limit is not None), default=None)

    def learning_rate_for(self, state: TrainingState) -> float:
        """Of the next update. Where time is the nearer limit, the schedule follows the clock."""
        total = self.total_steps or CLOCK_STEPS
        position = float(state.step) if self.total_steps else 0.0
        if self.max_minutes is not None:
            position = max(position, total * state.seconds / (60 * self.max_minutes))
        warmup_steps = math.ceil(self.warmup_ratio * total)
        return learning_rate_at(
            position, total, peak=self.learning_rate, warmup_steps=warmup_steps, kind=self.lr_schedule
        )

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
        if self.max_minutes is not None and state.seconds >= 60 * self.max_minutes:
            return "max_minutes"
        return None
