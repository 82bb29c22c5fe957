"""All that changes while a network is trained; saving it is resuming."""

from dataclasses import dataclass, fields
from typing import Any

from mlx import nn, optimizers

TENSORS = ("network", "optimizer")


@dataclass
class TrainingState:
    """The network's adapter and the optimizer's moments are in the first two; the rest are plain numbers.

    ``step`` counts updates made. ``epoch`` and ``window`` are the data cursor: the next window to be trained on.
    ``seconds`` sums the steps' wall time over all attempts. ``bad_validations`` counts those since the best one.
    ``saved_step`` is the step of the last checkpoint.
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
    saved_step: int | None = None

    def counters(self) -> dict[str, Any]:
        """The plain numbers, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in TENSORS}

    def set_counters(self, counters: dict[str, Any]) -> None:
        """Put back what `counters` gave."""
        for name, value in counters.items():
            setattr(self, name, value)

    def advance(self, *, windows_per_epoch: int, tokens: int, target_tokens: int, seconds: float) -> None:
        """One update was made with the window at the cursor."""
        self.tokens += tokens
        self.target_tokens += target_tokens
        self.seconds += seconds
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
