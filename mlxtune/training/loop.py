"""The training loop: one window of batches, one update, until a limit is reached.

All that changes lives in the state, so saving it is resuming. What to do with a step (record it, validate, save) comes
in as functions; another objective is another function, never another loop.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from mlxtune.adapters.lora import set_dropout_keys
from mlxtune.data.batch import epoch_order, make_batch
from mlxtune.data.render import Rendered
from mlxtune.device.workers import ONE_WORKER, Workers
from mlxtune.errors import TrainingError
from mlxtune.training.plan import EndedBy, Plan
from mlxtune.training.state import TrainingState
from mlxtune.training.step import Objective, WindowGradient, accumulate, clip

Window = list[tuple[int, ...]]
"""The rows of the batches of one update."""


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
        validate: the mean loss a target on held-out rows; called where ``plan.validates_after`` says so.
        save: writes a checkpoint of the state; called where ``plan.saves_after`` says so, and after the best validation
            so far. Once a step and after its validation, so that a resumed run records each line once.
        should_stop: asked before each step.

    Raises: TrainingError, at a loss or gradient that is not finite; the last checkpoint is from before it.
    """
    lengths = [len(row.token_ids) for row in dataset]
    ended: EndedBy | None = None
    for window in windows(plan, lengths, epoch=state.epoch, first=state.window):
        ended = plan.ended(state) or ("stopped" if should_stop() else None)
        if ended:
            break
        record(update(state, plan, dataset, window, objective, share_prefix=share_prefix, workers=workers))
        improved = plan.validates_after(state) and validated(state, validate, record)
        if improved or plan.saves_after(state):
            state.saved_step = state.step
            save()
    assert ended is not None
    if state.saved_step != state.step:  # stopped between two checkpoints
        state.saved_step = state.step
        save()
    return ended


def windows(plan: Plan, lengths: Sequence[int], *, epoch: int, first: int) -> Iterator[Window]:
    """From window ``first`` of ``epoch`` on, for ever.

    Each row comes exactly once an epoch; the last window of an epoch may be smaller.
    """
    size = plan.gradient_accumulation_steps
    while True:
        order = epoch_order(lengths, plan.batch_size, seed=plan.seed, epoch=epoch)
        for start in range(first * size, len(order), size):
            yield order[start : start + size]
        epoch, first = epoch + 1, 0


def update(
    state: TrainingState,
    plan: Plan,
    dataset: Sequence[Rendered],
    window: Window,
    objective: Objective,
    *,
    share_prefix: bool,
    workers: Workers,
) -> dict[str, Any]:
    """Make one update and advance the state; what metrics.jsonl says of it."""
    started = time.perf_counter()
    learning_rate = plan.learning_rate_for(state)
    parts = [part for rows in window for part in cut(rows, workers.count)]
    batches = [make_batch(dataset, rows, share_prefix=share_prefix) for rows in parts]
    key = mx.random.key(int(np.random.SeedSequence([plan.seed, state.step]).generate_state(1)[0]))
    keys = mx.random.split(key, len(batches))
    mx.eval(keys)
    found = accumulate(
        state.network,
        objective,
        batches,
        before_batch=lambda i: set_dropout_keys(state.network, keys[i]),
        workers=workers,
    )
    set_dropout_keys(state.network, None)
    gradients, grad_norm = clip(found.gradients, plan.max_grad_norm)
    refuse_not_finite(found, grad_norm, state, [dataset[row].where for rows in window for row in rows])
    state.optimizer.learning_rate = learning_rate
    state.optimizer.update(state.network, gradients)
    mx.eval(state.network.trainable_parameters(), state.optimizer.state)
    seconds = time.perf_counter() - started
    tokens = sum(batch.tokens for batch in batches)
    state.advance(
        windows_per_epoch=plan.windows_per_epoch, tokens=tokens, target_tokens=found.target_count, seconds=seconds
    )
    return {
        "step": state.step,
        "loss": found.loss,
        "learning_rate": learning_rate,
        "grad_norm": grad_norm,
        "tokens": tokens,
        "target_tokens": found.target_count,
        "seconds": seconds,
        "tokens_per_s": tokens / seconds,
        "peak_memory_bytes": mx.get_peak_memory(),
    }


def cut(rows: tuple[int, ...], parts: int) -> Window:
    """A batch's rows in at most ``parts`` runs of about equal size, none empty."""
    return [tuple(part.tolist()) for part in np.array_split(np.array(rows), min(parts, len(rows)))]


def refuse_not_finite(found: WindowGradient, grad_norm: float, state: TrainingState, rows: Sequence[str]) -> None:
    """Raise TrainingError, before the update, for a loss or gradient that is infinite or not a number."""
    if not math.isfinite(found.loss_sum) or not math.isfinite(grad_norm):
        raise TrainingError(
            f"step {state.step + 1}: the loss is {found.loss}, its gradient {grad_norm}",
            where=", ".join(rows),
            remedy="lower training.learning_rate; the last checkpoint is from before this step",
        )


def validated(state: TrainingState, validate: Callable[[], float], record: Callable[[dict[str, Any]], None]) -> bool:
    """Read the held-out rows and note the result; whether it is the best so far. TrainingError if it is not finite."""
    started = time.perf_counter()
    valid_loss = validate()
    if not math.isfinite(valid_loss):
        raise TrainingError(
            f"after step {state.step} the loss on the validation rows is {valid_loss}",
            remedy="lower training.learning_rate; the last checkpoint is from before this step",
        )
    record({"step": state.step, "valid_loss": valid_loss, "valid_seconds": time.perf_counter() - started})
    return state.note_validation(valid_loss)
