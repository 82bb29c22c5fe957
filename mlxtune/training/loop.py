"""The training loop: one window of batches, one update, until a limit is reached.

All that changes lives in the state, so saving it is resuming. What to do with a step (record it, validate, save) comes
in as functions; another objective is another function, never another loop.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map

from mlxtune.data.batch import Batch
from mlxtune.data.order import BatchOrder, halved
from mlxtune.device.distributed import ALONE, Ranks
from mlxtune.device.memory import is_out_of_memory
from mlxtune.errors import TrainingError
from mlxtune.training.plan import EndedBy, Plan
from mlxtune.training.state import TrainingState, WindowSum
from mlxtune.training.step import Step
from mlxtune.training.together import joined

Rows = tuple[int, ...]
"""Of one batch."""

SKIPPED_AT_MOST = 2
"""Updates in a row that may be left out; at the next one the run stops."""


@dataclass(frozen=True)
class Training:
    """What the loop works with, beside the state.

    ``make_batch`` may be asked for the same rows twice: ahead of time, and when they are next. ``positions`` says how
    many positions rows take through the network together; ``places`` names each row for people. ``record`` is given the
    lines of metrics.jsonl. ``validate`` gives the mean loss a target on held-out rows. ``save`` writes a checkpoint of
    the state. ``should_stop`` is asked before each batch; where there are several ``ranks``, before each window, and
    one's wish stops them all.
    """

    plan: Plan
    order: BatchOrder
    step: Step
    make_batch: Callable[[Rows], Batch]
    positions: Callable[[Rows], int]
    places: Sequence[str]
    record: Callable[[dict[str, Any]], None]
    validate: Callable[[], float]
    save: Callable[[], None]
    should_stop: Callable[[], bool]
    ranks: Ranks = ALONE

    def parts(self, window: Sequence[Rows], positions: int) -> list[Rows]:
        """This rank's rows of a window's batches, in parts of at most so many positions; a longer row goes alone.

        The sums over the parts are those over the batch: memory is that of a part, and there is less padding.
        """
        own = [tuple(self.ranks.share(rows)) for rows in window]
        return [part for rows in own if rows for part in halved(rows, self.positions, positions)]


def train(state: TrainingState, training: Training) -> EndedBy:
    """Train until a limit is reached or ``should_stop``; the state is saved at the end either way.

    A checkpoint is written where ``plan.saves_after`` says so and after the best validation so far: once a step and
    after its validation, so that a resumed run records each line once.

    Raises: TrainingError, where loss or gradient are not finite too often, or memory is short for a single row; the
        last checkpoint is from before that.
    """
    plan = training.plan
    ended: EndedBy | None = None
    for window, following, last_of_epoch in windows(training.order, plan.gradient_accumulation_steps, state):
        ended = plan.ended(state)
        if ended:
            break
        if not update(state, training, window, following, last_of_epoch=last_of_epoch):
            ended = "stopped"
            break
        improved = plan.validates_after(state) and validated(state, training)
        if improved or plan.saves_after(state):
            state.saved_step = state.step
            training.save()
    assert ended is not None
    if state.saved_step != state.step or state.window_sum is not None:  # stopped between two checkpoints
        state.saved_step = state.step
        training.save()
    return ended


def windows(order: BatchOrder, size: int, state: TrainingState) -> Iterator[tuple[list[Rows], Rows | None, bool]]:
    """From the state's cursor on, for ever: the batches of an update, the first batch after them, and whether the
    epoch ends with them. Each row comes exactly once an epoch; the last window of an epoch may be smaller.
    """
    epoch, first = state.epoch, state.window
    while True:
        batches = epoch_windows(order, size, epoch)
        for number in range(first, len(batches)):
            last = number == len(batches) - 1
            yield batches[number], None if last else batches[number + 1][0], last
        epoch, first = epoch + 1, 0


def epoch_windows(order: BatchOrder, size: int, epoch: int) -> list[list[Rows]]:
    """An epoch's batches, ``size`` an update."""
    batches = order.epoch(epoch)
    return [batches[start : start + size] for start in range(0, len(batches), size)]


def update(
    state: TrainingState, training: Training, window: list[Rows], following: Rows | None, *, last_of_epoch: bool
) -> bool:
    """Make one update, record it and advance the state; False if it was asked to stop on the way.

    Where memory is short the batches are read in smaller parts, from the window's beginning.
    """
    ranks = training.ranks
    if not ranks.is_alone and ranks.any(training.should_stop()):  # here, since parts are read at each rank's own pace
        return False
    while True:
        parameters, found = state.parameters(), None
        try:
            found = read_window(state, training, window)
            if found is None:
                return False
            line = finish(state, training, found, window, following, last_of_epoch=last_of_epoch)
        except RuntimeError as error:
            # What several ranks have done together, one of them cannot do again.
            if not is_out_of_memory(error) or not (found is None or ranks.is_alone):
                raise
            state.set_parameters(*parameters)
            state.window_sum = None
            mx.clear_cache()
            parts = training.parts(window, state.part_positions)
            if all(len(part) == 1 for part in parts):
                raise TrainingError(
                    f"step {state.step + 1}: there is not enough memory for a single row",
                    where=", ".join(training.places[row] for rows in window for row in rows),
                    remedy="lower data.max_seq_length, or train fewer layers: method.layers: {top: N}",
                ) from error
            state.part_positions = max(training.positions(part) for part in parts if len(part) > 1) // 2
            training.record({"step": state.step + 1, "out_of_memory": True, "part_positions": state.part_positions})
        else:
            training.record(line)
            return True


def read_window(state: TrainingState, training: Training, window: list[Rows]) -> WindowSum | None:
    """The sums over all of this rank's parts of a window, of which the state may have read some; None if asked to stop.

    What was read until then stays in the state, and in its checkpoint.
    """
    found = state.window_sum or WindowSum()
    parts = training.parts(window, state.part_positions)
    for number in range(found.batches, len(parts)):
        if training.ranks.is_alone and training.should_stop():
            state.window_sum = found if found.batches else None
            return None
        started = time.perf_counter()
        batch = training.make_batch(parts[number])
        key = dropout_key(training.plan.seed, state.step, number, training.ranks.rank)
        loss, gradients = training.step.gradient(batch, key)
        if found.gradients is not None:
            gradients = tree_map(mx.add, found.gradients, gradients)
        mx.async_eval(loss, gradients)
        if number + 1 < len(parts):
            training.make_batch(parts[number + 1])  # while this one is being worked on
        mx.eval(loss, gradients)
        found.gradients = gradients
        found.batches += 1
        found.loss_sum += float(loss)
        found.weight_sum += batch.weight_sum
        found.tokens += batch.tokens
        found.target_tokens += batch.target_count
        found.seconds += time.perf_counter() - started
    return found


def finish(
    state: TrainingState,
    training: Training,
    found: WindowSum,
    window: list[Rows],
    following: Rows | None,
    *,
    last_of_epoch: bool,
) -> dict[str, Any]:
    """Apply a window's gradient, of all ranks, and advance the state; the line that metrics.jsonl gets.

    Where loss or gradient is not finite the parameters stay as they were, and the line names the rows.
    Raises: TrainingError, if that happens too often in a row.
    """
    started = time.perf_counter()
    plan, found = training.plan, joined(found, state, training.ranks)
    learning_rate = plan.learning_rate_for(state)
    before = state.parameters()
    state.optimizer.learning_rate = learning_rate
    *after, norm = training.step.apply(*state.parameters(), found.gradients or {}, mx.array(found.weight_sum))
    mx.async_eval(*after, norm)
    if following is not None:
        for part in training.parts([following], state.part_positions)[:1]:
            training.make_batch(part)
    mx.eval(*after, norm)
    grad_norm = float(norm)
    loss = found.loss_sum / found.weight_sum
    is_finite = math.isfinite(loss) and math.isfinite(grad_norm)
    state.set_parameters(*(after if is_finite else before))
    state.skipped = 0 if is_finite else state.skipped + 1
    if not is_finite:
        found.tokens = found.target_tokens = 0  # nothing was learned from them
    found.seconds = float(training.ranks.gather([found.seconds + time.perf_counter() - started])[0, 0])
    state.advance(found, last_of_epoch=last_of_epoch)
    if is_finite:
        if horizon := plan.horizon_after(state):
            state.horizon = horizon
        return {
            "step": state.step,
            "loss": loss,
            "learning_rate": learning_rate,
            "grad_norm": grad_norm,
            "tokens": found.tokens,
            "target_tokens": found.target_tokens,
            "seconds": found.seconds,
            "tokens_per_s": found.tokens / found.seconds,
            "peak_memory_bytes": mx.get_peak_memory(),
        }
    line = {"step": state.step, "skipped": "gradient" if math.isfinite(loss) else "loss", "seconds": found.seconds}
    line["rows"] = [training.places[row] for rows in window for row in rows]
    if state.skipped > SKIPPED_AT_MOST:
        training.record(line)
        raise not_finite(line)
    return line


def not_finite(line: dict[str, Any]) -> TrainingError:
    """What is told when too many updates in a row had to be left out."""
    steps = SKIPPED_AT_MOST + 1
    what = f"the {line['skipped']} was not a finite number in {steps} steps in a row, up to step {line['step']}"
    remedy = "lower training.learning_rate and start again; the last checkpoint is from before these steps"
    if line["step"] <= steps:
        remedy = "no step was good: look at these rows, and whether the base model itself answers (mlxtune generate)"
    return TrainingError(what, where=", ".join(line["rows"]), remedy=remedy)


def validated(state: TrainingState, training: Training) -> bool:
    """Read the held-out rows and record the result; whether it is the best so far.

    Raises: TrainingError, if it is not finite.
    """
    started = time.perf_counter()
    valid_loss = training.validate()
    if not math.isfinite(valid_loss):
        raise TrainingError(
            f"after step {state.step} the loss on the validation rows is {valid_loss}",
            remedy="lower training.learning_rate; the last checkpoint is from before this step",
        )
    training.record({"step": state.step, "valid_loss": valid_loss, "valid_seconds": time.perf_counter() - started})
    return state.note_validation(valid_loss)


def dropout_key(seed: int, step: int, batch: int, rank: int = 0) -> mx.array:
    """What the dropout of one rank's part of one update draws from; each layer splits its own part off."""
    entropy = [seed, step, batch, rank] if rank else [seed, step, batch]
    return mx.random.key(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
