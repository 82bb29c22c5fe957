"""All that changes while a network is trained; saving it is resuming."""

from dataclasses import dataclass
from typing import Any

from mlx import nn, optimizers

COUNTERS = (
    "step",
    "epoch",
    "window",
    "tokens",
    "target_tokens",
    "seconds",
    "best_step",
    "best_valid_loss",
    "bad_validations",
)


@dataclass
class TrainingState:
    """The network's adapter and the optimizer's moments are in the first two; the rest are plain numbers.

    ``step`` counts updates made. ``epoch`` and ``window`` are the data cursor: the next window to be trained on.
    ``seconds`` sums the steps' wall time over all attempts. ``bad_validations`` counts those since the best one.
    """

    network: nn.Module
    optimizer: optimizers.Optimizer
    step: int = 0
    epoch: int = 0
    window: int = 0
    tokens: int = 0
    target_tokens: int = 0
    seconds: float = 0.0
    best_step: int | None = None
    best_valid_loss: float | None = None
    bad_validations: int = 0

    def counters(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in COUNTERS}

    def set_counters(self, counters: dict[str, Any]) -> None:
        for name in COUNTERS:
            setattr(self, name, counters[name])

    def advance(self, *, windows_per_epoch: int) -> None:
        """One update was made with the window at the cursor."""
        self.step += 1
        self.window += 1
        if self.window == windows_per_epoch:
            self.epoch, self.window = self.epoch + 1, 0

    def note_validation(self, valid_loss: float) -> bool:
        """Remember a validation; whether it is the best so far."""
        if self.best_valid_loss is None or valid_loss < self.best_valid_loss:
            self.best_step, self.best_valid_loss, self.bad_validations = self.step, valid_loss, 0
            return True
        self.bad_validations += 1
        return False
