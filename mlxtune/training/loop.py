"""The training loop: one window of batches, one update, until a limit is reached.

All that changes lives in the state, so saving it is resuming. What to do with a step (record it, validate, save) comes
in as functions; another objective is another function, never another loop.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map

from mlxtune.data.batch import Batch
from mlxtune.data.order import BatchOrder, halved
from mlxtune.device.distributed import ALONE, Ranks
from mlxtune.device.memory import is_out_of_memory
from mlxtune.errors import TrainingError
from mlxtune.training.pause import NEVER, Pause, stops_here
from mlxtune.training.plan import EndedBy, Plan
from mlxtune.training.state import TrainingState, WindowSum
from mlxtune.training.step import Step
from mlxtune.training.together import joined

Rows = tuple[int, ...]
"""Of one batch, by number: rows, or what an objective learns from in their place, as pairs of them."""

SKIPPED_AT_MOST = 2
"""Updates in a row that may be left out; at the next one the run stops."""


@dataclass(frozen=True)
class Training:
    """What the loop works with, beside the state.

    ``make_batch`` may be asked for the same rows twice: ahead of time, and when they are next. ``positions`` says how
    many positions rows take through the network together; ``places`` names each row for people. ``record`` is given the
    lines of metrics.jsonl. ``validate`` gives the mean loss a target on held-out rows. ``save`` writes a checkpoint of
    the state. ``should_stop`` is asked before each batch; where there are several ``ranks``, before each window, and
    one's wish stops them all. ``pause`` is asked before each window. ``figures`` are the names of what the step tells
    besides the loss. ``before_window`` gives the arrays that all of a window's batches are given beside their own, once
    for each window that is begun or gone on with. ``draw`` makes of a window's own prompts the rows that are read in
    their place, which ``make_batch`` and ``positions`` are asked of from then on.
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
    pause: Pause = NEVER
    figures: tuple[str, ...] = ()
    before_window: Callable[[Sequence[Rows]], tuple[mx.array, ...]] | None = None
    draw: Callable[[TrainingState, Sequence[Rows]], list[Rows]] | None = None

    def own(self, window: Sequence[Rows]) -> list[Rows]:
        """This rank's rows of a window's batches."""
        return [tuple(self.ranks.share(rows)) for rows in window]

    def parts(self, own: Sequence[Rows], positions: int) -> list[Rows]:
        """Batches in parts of at most so many positions; a longer row goes alone.

        The sums over the parts are those over the batch: memory is that of a part, and there is less padding.
        """
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
    rested_at = state.seconds

    def save() -> None:
        state.saved_step = state.step
        training.save()

    def save_if_due() -> None:
        if state.saved_step != state.step:
            save()

    for window, following, last_of_epoch in windows(
        training.order, plan.gradient_accumulation_steps, state, times=plan.updates_a_window
    ):
        ended = plan.ended(state)
        if ended:
            break
        training.pause.rest(state.seconds - rested_at)
        rested_at = state.seconds
        if stops_here(training.pause, training.ranks, training.should_stop, step=state.step, save=save_if_due) or (
            not update(state, training, window, following, last_of_epoch=last_of_epoch)
        ):
            ended = "stopped"
            break
        improved = plan.validates_after(state) and validated(state, training)
        if improved or plan.saves_after(state):
            save()
    assert ended is not None
    if state.saved_step != state.step or state.window_sum is not None:  # stopped between two checkpoints
        save()
    return ended


def windows(
    order: BatchOrder, size: int, state: TrainingState, *, times: int = 1
) -> Iterator[tuple[list[Rows], Rows | None, bool]]:
    """From the state's cursor on, for ever: the batches of an update, the first batch after them, and whether the
    epoch ends with them. Each row comes exactly once an epoch, in ``times`` updates in a row; the last window of an
    epoch may be smaller.
    """
    epoch, first = state.epoch, state.window
    while True:
        batches = epoch_windows(order, size, epoch, times=times)
        for number in range(first, len(batches)):
            last = number == len(batches) - 1
            yield batches[number], None if last else batches[number + 1][0], last
        epoch, first = epoch + 1, 0


def epoch_windows(order: BatchOrder, size: int, epoch: int, *, times: int = 1) -> list[list[Rows]]:
    """An epoch's batches, ``size`` an update, each window ``times`` times."""
    batches = order.epoch(epoch)
    windows = [batches[start : start + size] for start in range(0, len(batches), size)]
    return [window for window in windows for _ in range(times)]


def update(
    state: TrainingState, training: Training, window: list[Rows], following: Rows | None, *, last_of_epoch: bool
) -> bool:
    """Make one update, record it and advance the state; False if it was asked to stop on the way.

    Where memory is short the batches are read in smaller parts, from the window's beginning.
    """
    ranks, own = training.ranks, training.own(window)
    # once: all ranks take part in it, whatever memory says to one
    beside, seconds_before = found_before(training, own)
    if training.draw is not None:
        started = time.perf_counter()
        own, following = training.draw(state, own), None
        seconds_before += time.perf_counter() - started
    while True:
        found = None
        try:
            found = read_window(state, training, own, beside)
            if found is None:
                return False
            found.seconds += seconds_before
            line = finish(state, training, found, window, following, last_of_epoch=last_of_epoch)
        except RuntimeError as error:
            # What several ranks have done together, one of them cannot do again.
            if not is_out_of_memory(error) or not (found is None or ranks.is_alone):
                raise
            state.window_sum = None
            mx.clear_cache()
            parts = training.parts(own, state.part_positions)
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


def found_before(training: Training, own: list[Rows]) -> tuple[tuple[mx.array, ...], float]:
    """What ``training.before_window`` gives, and the seconds that it took."""
    if training.before_window is None:
        return (), 0.0
    started = time.perf_counter()
    beside = training.before_window(own)
    return beside, time.perf_counter() - started


def read_window(
    state: TrainingState, training: Training, own: list[Rows], beside: tuple[mx.array, ...] = ()
) -> WindowSum | None:
    """The sums over all of this rank's parts of a window, of which the state may have read some; None if asked to stop.

    What was read until then stays in the state, and in its checkpoint.

    Args:
        own: this rank's rows of the window's batches.
        beside: what ``training.before_window`` gave.
    """
    found = state.window_sum or WindowSum()
    parts = training.parts(own, state.part_positions)
    for number in range(found.batches, len(parts)):
        if training.ranks.is_alone and training.should_stop():  # several read parts at each one's own pace
            state.window_sum = found if found.batches else None
            return None
        started = time.perf_counter()
        made = training.make_batch(parts[number])
        batch = replace(made, beside=(*made.beside, *beside))
        key = dropout_key(training.plan.seed, state.step, number, training.ranks.rank)
        loss, figures, gradients = training.step.gradient(batch, key)
        if found.gradients is not None:
            gradients = tree_map(mx.add, found.gradients, gradients)
            found.gradients = None  # so that the sum takes its place in memory
        mx.async_eval(loss, figures, gradients)
        if number + 1 < len(parts):
            training.make_batch(parts[number + 1])  # while this one is being worked on
        mx.eval(loss, figures, gradients)
        found.gradients = gradients
        found.batches += 1
        found.loss_sum += float(loss)
        before = found.figures or [0.0] * len(figures)
        found.figures = [known + float(figure) for known, figure in zip(before, figures, strict=True)]
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
    plan, found = training.plan, joined(found, state, training.ranks, figures=len(training.figures))
    norm = training.step.norm(found.gradients or {}, mx.array(found.weight_sum))
    grad_norm, loss = float(norm), found.loss_sum / found.weight_sum
    is_finite = math.isfinite(loss) and math.isfinite(grad_norm)
    learning_rate = plan.learning_rate_for(state)
    if is_finite:
        begin_update(state, training.step, found, learning_rate, norm)
    if following is not None:
        make_ahead(state, training, following)
    with no_way_back(state):
        mx.eval(state.parameters())
    state.skipped = 0 if is_finite else state.skipped + 1
    if not is_finite:
        found.tokens = found.target_tokens = 0  # nothing was learned from them
    found.seconds = float(training.ranks.gather([found.seconds + time.perf_counter() - started])[0, 0])
    state.advance(found, last_of_epoch=last_of_epoch)
    if state.window % plan.updates_a_window == 0:
        state.drawn = None
    if is_finite:
        if horizon := plan.horizon_after(state):
            state.horizon = horizon
        return {
            "step": state.step,
            "loss": loss,
            **{name: figure / found.weight_sum for name, figure in zip(training.figures, found.figures, strict=True)},
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


def make_ahead(state: TrainingState, training: Training, following: Rows) -> None:
    """Make the next batch while an update is worked out. Where memory is short it is made when it is next."""
    try:
        for part in training.parts(training.own([following]), state.part_positions)[:1]:
            training.make_batch(part)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise


def begin_update(state: TrainingState, step: Step, found: WindowSum, learning_rate: float, norm: mx.array) -> None:
    """Have the parameters and moments that an update makes worked out in the places of those before, of which nothing
    is kept, nor of the window's gradient.
    """
    gradients, found.gradients = found.gradients or {}, None
    state.optimizer.learning_rate = learning_rate
    before = state.parameters()
    try:
        after = step.apply(*before, gradients, mx.array(found.weight_sum), norm)
    except BaseException:
        state.set_parameters(*before)
        raise
    state.set_parameters(*after)
    del before, after, gradients
    with no_way_back(state):
        mx.async_eval(state.parameters())


@contextmanager
def no_way_back(state: TrainingState) -> Iterator[None]:
    """Where memory is short there is neither the state before nor the one after: raise TrainingError."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"step {state.step + 1}: there is not enough memory to update all that trains",
            remedy="close other programs and go on with --resume, from the last checkpoint; or train less "
            "(method.layers: {top: N}, a lower method.rank, lora in place of full); or take an optimizer that keeps "
            "less, as training.optimizer: adafactor",
        ) from error


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
