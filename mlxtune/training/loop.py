"""The training loop: one window of batches, one update, until a limit is reached.

All that changes lives in the state, so saving it is resuming. What to do with a step (record it, validate, save) comes
in as functions; another objective is another function, never another loop.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import mlx.core as mx
import numpy as np

from mlxtune.adapters.lora import set_dropout_keys
from mlxtune.data.batch import epoch_order, make_batch
from mlxtune.data.render import Rendered
from mlxtune.device.workers import ONE_WORKER, Workers
from mlxtune.errors import TrainingError
from mlxtune.training.schedule import Schedule, learning_rate_at
from mlxtune.training.state import TrainingState
from mlxtune.training.step import Objective, accumulate, clip

VIRTUAL_STEPS = 1000  # the schedule's length where only time limits the run
EndedBy = Literal["epochs", "max_steps", "max_minutes", "early_stopping", "stopped"]


@dataclass(frozen=True)
class Plan:
    """What the loop needs of a recipe, in plain values. A limit that is None is not there."""

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
        return -(-self.rows // (self.batch_size * self.gradient_accumulation_steps))

    @property
    def total_steps(self) -> int | None:
        """The updates that epochs and max_steps allow; None if only time ends the run."""
        limits = [self.max_steps, None if self.epochs is None else self.epochs * self.windows_per_epoch]
        return min((limit for limit in limits if limit is not None), default=None)

    def learning_rate_for(self, state: TrainingState) -> float:
        """Of the next update. Where time is the nearer limit, the schedule follows the clock."""
        total = self.total_steps or VIRTUAL_STEPS
        position = float(state.step) if self.total_steps else 0.0
        if self.max_minutes is not None:
            position = max(position, total * state.seconds / (60 * self.max_minutes))
        warmup_steps = int(np.ceil(self.warmup_ratio * total))
        return learning_rate_at(
            position, total, peak=self.learning_rate, warmup_steps=warmup_steps, kind=self.lr_schedule
        )

    def ended(self, state: TrainingState) -> EndedBy | None:
        """Which limit, if any, has been reached."""
        if self.early_stopping_patience is not None and state.bad_validations > self.early_stopping_patience:
            return "early_stopping"
        if self.max_steps is not None and state.step >= self.max_steps:
            return "max_steps"
        if self.epochs is not None and state.epoch >= self.epochs:
            return "epochs"
        if self.max_minutes is not None and state.seconds >= 60 * self.max_minutes:
            return "max_minutes"
        return None


def windows(state: TrainingState, plan: Plan, lengths: Sequence[int]) -> Iterator[list[tuple[int, ...]]]:
    """From the state's cursor on, for ever: the rows of the batches of one update.

    Each row comes exactly once an epoch; the last window of an epoch may be smaller.
    """
    while True:
        order = epoch_order(lengths, plan.batch_size, seed=plan.seed, epoch=state.epoch)
        first = state.window * plan.gradient_accumulation_steps
        for start in range(first, len(order), plan.gradient_accumulation_steps):
            yield order[start : start + plan.gradient_accumulation_steps]


def train(
    state: TrainingState,
    plan: Plan,
    dataset: Sequence[Rendered],
    objective: Objective,
    *,
    share_prefix: bool,
    workers: Workers = ONE_WORKER,
    record: Callable[[dict[str, Any]], None],
    validate: Callable[[], float],
    save: Callable[[], None],
    should_stop: Callable[[], bool],
) -> EndedBy:
    """Train until a limit is reached or ``should_stop``; the state is saved at the end either way.

    Args:
        workers: threads; each batch is cut into a part for each.
        record: given one dict a step, and one a validation (the fields of metrics.jsonl).
        validate: the mean loss a target on held-out rows; called every ``plan.validate_every`` steps and at the end.
        save: writes a checkpoint of the state.

    Raises: TrainingError, at a loss or gradient that is not finite; the last checkpoint is from before it.
    """
    lengths = [len(row.token_ids) for row in dataset]
    saved_step = validated_step = state.step
    for window in windows(state, plan, lengths):
        if ended := plan.ended(state):
            break
        started = time.perf_counter()
        learning_rate = plan.learning_rate_for(state)
        parts = [part for rows in window for part in cut(rows, workers.count)]
        batches = [make_batch(dataset, rows, share_prefix=share_prefix) for rows in parts]
        step_key = mx.random.key(int(np.random.SeedSequence([plan.seed, state.step]).generate_state(1)[0]))
        found = accumulate(
            state.network,
            objective,
            batches,
            before_batch=lambda i, key=step_key: set_dropout_keys(state.network, mx.random.split(key, i + 1)[i]),
            workers=workers,
        )
        gradients, grad_norm = clip(found.gradients, plan.max_grad_norm)
        if not np.isfinite(found.loss_sum) or not np.isfinite(grad_norm):
            raise TrainingError(
                f"step {state.step + 1}: the loss is {found.loss_sum / found.target_count}, the gradient {grad_norm}",
                where=f"batch of rows {', '.join(dataset[row].where for rows in window for row in rows)}",
                remedy="lower training.learning_rate; the last checkpoint is from before this step",
            )
        state.optimizer.learning_rate = learning_rate
        state.optimizer.update(state.network, gradients)
        mx.eval(state.network.trainable_parameters(), state.optimizer.state)
        set_dropout_keys(state.network, None)
        state.advance(windows_per_epoch=plan.windows_per_epoch)
        seconds = time.perf_counter() - started
        tokens = sum(batch.tokens for batch in batches)
        state.tokens, state.target_tokens = state.tokens + tokens, state.target_tokens + found.target_count
        state.seconds += seconds
        record(
            {
                "step": state.step,
                "loss": found.loss_sum / found.target_count,
                "learning_rate": learning_rate,
                "grad_norm": grad_norm,
                "tokens": tokens,
                "target_tokens": found.target_count,
                "seconds": seconds,
                "tokens_per_s": tokens / seconds,
                "peak_memory_bytes": mx.get_peak_memory(),
            }
        )
        improved = False
        if plan.validate_every and state.step % plan.validate_every == 0:
            improved, validated_step = _validate(state, validate, record), state.step
        if improved or state.step % plan.save_every == 0:
            save()
            saved_step = state.step
        if should_stop():
            ended = "stopped"
            break
    assert ended is not None
    if ended != "stopped" and plan.validate_every and validated_step != state.step:
        _validate(state, validate, record)
        saved_step = -1
    if saved_step != state.step:
        save()
    return ended


def cut(rows: tuple[int, ...], parts: int) -> list[tuple[int, ...]]:
    """A batch's rows in at most ``parts`` runs of about equal size, none empty."""
    return [tuple(part.tolist()) for part in np.array_split(np.array(rows), min(parts, len(rows)))]


def _validate(state: TrainingState, validate: Callable[[], float], record: Callable[[dict[str, Any]], None]) -> bool:
    started = time.perf_counter()
    valid_loss = validate()
    record({"step": state.step, "valid_loss": valid_loss, "valid_seconds": time.perf_counter() - started})
    return state.note_validation(valid_loss)
