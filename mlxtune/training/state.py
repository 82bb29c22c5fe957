"""All that changes while a network is trained; saving it is resuming."""

from dataclasses import dataclass, field, fields
from typing import Any

import mlx.core as mx
from mlx import nn, optimizers
from mlx.utils import tree_map

PART_POSITIONS = 832
"""Enough to keep a processor busy; more at once only takes more memory."""

TENSORS = ("network", "optimizer", "window_sum", "drawn")


@dataclass
class WindowSum:
    """What the batches of a window that were read so far say: sums over all that the loss is a mean of."""

    batches: int = 0
    loss_sum: float = 0.0
    weight_sum: float = 0.0
    tokens: int = 0
    target_tokens: int = 0
    seconds: float = 0.0
    figures: list[float] = field(default_factory=list)
    """The objective's own, in its order; none before the first batch."""
    gradients: dict[str, Any] | None = None
    """Of the loss sum; None before the first batch."""

    def counters(self) -> dict[str, Any]:
        """The plain numbers, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "gradients"}


@dataclass
class TrainingState:
    """The network's adapter, the optimizer's moments, a window begun and what was drawn for it are tensors; the rest
    are plain numbers.

    ``step`` counts updates. ``epoch`` and ``window`` are the data cursor: the next window to be trained on, of which
    ``window_sum`` has read some batches; ``drawn`` are the answers to its prompts, arrays by name, where an objective
    draws some. ``part_positions`` is how many of a batch go through the network at once; it
    shrinks where memory is short. ``skipped`` counts the updates in a row that were left out, since loss or gradient
    was not finite. ``horizon`` is the step at which a run limited by time is to end, once it is known. ``seconds`` sums
    the steps' wall time over all attempts, ``later_seconds`` without the first step's, which also warms up.
    ``bad_validations`` counts those since the best one. ``saved_step`` is the step of the last checkpoint.
    """

    network: nn.Module
    optimizer: optimizers.Optimizer
    window_sum: WindowSum | None = None
    drawn: dict[str, mx.array] | None = None
    step: int = 0
    epoch: int = 0
    window: int = 0
    part_positions: int = PART_POSITIONS
    skipped: int = 0
    horizon: int | None = None
    tokens: int = 0
    target_tokens: int = 0
    seconds: float = 0.0
    later_seconds: float = 0.0
    best_step: int | None = None
    best_valid_loss: float | None = None
    bad_validations: int = 0
    saved_step: int | None = None

    def counters(self) -> dict[str, Any]:
        """The plain numbers, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in TENSORS}

    def set_counters(self, counters: dict[str, Any]) -> None:
        """Put back what `counters` gave."""
        for name, value in counters.items():
            setattr(self, name, value)

    def parameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The trainable parameters and the optimizer's state, as trees of their own, which no later step changes."""
        return self.network.trainable_parameters(), tree_map(lambda array: array, self.optimizer.state)

    def set_parameters(self, parameters: dict[str, Any], optimizer_state: dict[str, Any]) -> None:
        """Put back what `parameters` gave, or what an update made of it."""
        self.network.update(parameters)
        self.optimizer.state = optimizer_state

    def advance(self, found: WindowSum, *, last_of_epoch: bool) -> None:
        """The window at the cursor is done."""
        self.tokens += found.tokens
        self.target_tokens += found.target_tokens
        self.seconds += found.seconds
        self.later_seconds += found.seconds if self.step else 0.0
        self.step += 1
        self.window += 1
        self.window_sum = None
        if last_of_epoch:
            self.epoch, self.window = self.epoch + 1, 0

    def note_validation(self, valid_loss: float) -> bool:
        """Remember a validation; whether it is the best so far."""
        if self.best_valid_loss is None or valid_loss < self.best_valid_loss:
            self.best_step, self.best_valid_loss, self.bad_validations = self.step, valid_loss, 0
            return True
        self.bad_validations += 1
        return False
