"""A run's own steps, tried on a few of its rows: what they take in seconds and bytes; what they learn is thrown away.

The loop's own functions make the steps, so what is measured is what a run will do. The price is that a trial takes as
long as the steps it makes, and that on a busy machine its seconds are those of a busy machine.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map

from mlxtune.data.batch import Shape
from mlxtune.data.render import Rendered
from mlxtune.data.store.rows import facts_of, take_rows
from mlxtune.device.memory import is_out_of_memory
from mlxtune.evaluation.heldout import read_heldout
from mlxtune.evaluation.pace import reading_tokens
from mlxtune.iteration.batches import training_shape
from mlxtune.iteration.ready import Ready, frozen_prefix
from mlxtune.iteration.rollouts import TOGETHER, answers_to, draw
from mlxtune.iteration.samples import answers_of, forgiven, questions_of
from mlxtune.iteration.steps import make_training
from mlxtune.training.estimate import fit_costs, highest_cost
from mlxtune.training.loop import Rows, Training, finish, found_before, read_window
from mlxtune.training.state import TrainingState, WindowSum

TRIED_TOKENS = 512
"""Of rows that are only read."""
ALL_POSITIONS = 1 << 40
"""So that what is measured is never read in parts."""

ENOUGH = 3
"""Parts measured, from which on a fit is trusted; from fewer, the highest cost."""
MARGIN = 1.2
"""Times what a fit says: what a part surely takes no more than."""


@dataclass(frozen=True)
class Measured:
    """Rows that went through the network together, and an update made of their gradient."""

    shape: Shape
    gradient_seconds: float
    """Of their batch: its making, the loss, the gradient, and what is found out before it."""
    update_seconds: float
    """Of the update alone."""
    peak_bytes: int
    """The most in MLX's arrays at once, beside what is always there."""


@dataclass(frozen=True)
class Read:
    """Rows that were read without gradients."""

    tokens: int
    seconds: float
    peak_bytes: int
    """As of `Measured`."""


class Trial:
    """Steps of ``ready``, which has made none yet, on some rows of its training data, at a learning rate of 0.

    Afterwards its parameters and its optimizer's moments, which are all 0, are as they were (but that a parameter of
    -0 may be 0). Where there is no memory for an update there is none in a run either, and TrainingError says so.

    Attributes:
        base_bytes: what is always in MLX's arrays: weights, adapter, optimizer.
    """

    def __init__(self, ready: Ready, *, adds_up: bool) -> None:
        """
        Args:
            adds_up: whether a window's gradient is a sum over several parts, which has to be kept meanwhile.
        """
        self.ready, self.adds_up = ready, adds_up
        mx.eval(ready.state.network.parameters(), ready.state.optimizer.state)
        self.base_bytes = mx.get_active_memory()

    def measure(self, rows: Rows) -> Measured:
        """Make one update of rows that are read together.

        Where steps are compiled it is made twice: a run compiles each shape once, and has many steps of it.
        """
        dataset = self.ready.opened.datasets["train"].rows
        own = [dataset[row] for row in self.ready.rows_of(rows)]
        ready = replace(self.ready, references={}, elsewhere={})
        training = make_training(ready, own, frozen_prefix(self.ready, "train", rows=own))
        if self.ready.opened.device.compiles:
            self._update(training, len(rows))
        gradient_seconds, update_seconds, peak_bytes = self._update(training, len(rows))
        return Measured(training_shape(self.ready, rows), gradient_seconds, update_seconds, peak_bytes)

    def _update(self, training: Training, rows: int) -> tuple[float, float, int]:
        """An update of all ``rows`` of ``training``, at a rate of 0; its two times, and its memory beside the base."""
        numbers = tuple(range(rows))
        optimizer = self.ready.state.optimizer
        state = TrainingState(self.ready.state.network, optimizer, part_positions=ALL_POSITIONS)
        training = replace(training, plan=replace(training.plan, learning_rate=0.0))
        # not as they are: an update that nobody may take back is one in place, as a run's are
        at_start = tree_map(lambda array: mx.zeros_like(array) if array.ndim else array, optimizer.state)
        mx.eval(optimizer.state, training.make_batch(numbers).arrays())  # ahead of time, as in a run
        mx.reset_peak_memory()
        if self.adds_up:
            state.window_sum = WindowSum(gradients=tree_map(mx.zeros_like, state.network.trainable_parameters()))
            mx.eval(state.window_sum.gradients)
        try:
            beside, seconds_before = found_before(training, [numbers])
            found = read_window(state, training, [numbers], beside)
            assert found is not None
            found.seconds += seconds_before
            gradient_seconds = found.seconds
            finish(state, training, found, [numbers], None, last_of_epoch=False)
            peak_bytes = mx.get_peak_memory()
        finally:
            optimizer.state = at_start
        return gradient_seconds, found.seconds - gradient_seconds, max(0, peak_bytes - self.base_bytes)

    def ascending(self, parts: Iterable[Rows], *, limit_bytes: int) -> Iterator[Measured]:
        """The parts from the smallest on, as long as the next is sure to stay below a limit; the first always is tried.

        A part that takes more than there is could freeze the machine, so none is tried in the hope that it fits.
        """
        shapes = {part: training_shape(self.ready, part) for part in parts}
        found: list[Measured] = []
        for part in sorted(shapes, key=lambda part: shapes[part].size):
            if found and self.base_bytes + most_bytes(shapes[part], found) > limit_bytes:
                return
            try:
                found.append(self.measure(part))
            except RuntimeError as error:
                if not is_out_of_memory(error) or not found:
                    raise
                return
            yield found[-1]


def foretold_bytes(shape: Shape, known: Sequence[Measured]) -> float:
    """What a part of this shape takes, by those measured: by their fit, or, of a few, by the highest cost."""
    return _fitted_bytes(shape, known) if len(known) >= ENOUGH else _highest_bytes(shape, known)


def most_bytes(shape: Shape, known: Sequence[Measured]) -> float:
    """What a part of this shape surely takes no more than."""
    if len(known) < ENOUGH:
        return _highest_bytes(shape, known)
    return min(_highest_bytes(shape, known), MARGIN * _fitted_bytes(shape, known))


def _highest_bytes(shape: Shape, known: Sequence[Measured]) -> float:
    return min(highest_cost(shape, done.shape, done.peak_bytes) for done in known)


def _fitted_bytes(shape: Shape, known: Sequence[Measured]) -> float:
    return fit_costs([done.shape for done in known], [max(1, done.peak_bytes) for done in known]).of(shape)


def foretell_reading(
    ready: Ready,
    split: str,
    reads: Callable[[Ready, Sequence[Rendered]], Read | None],
    known_bytes: int,
    left_bytes: int,
) -> Read | None:
    """What it takes to read all rows of a split without gradients, foretold from a few of the longest.

    Args:
        reads: tries it with some rows; None if a run does not do it.
        known_bytes: what a run takes anyway; a reading that takes less need not be known exactly.
        left_bytes: the most that may be taken.
    """
    if split not in ready.opened.datasets:
        return None
    dataset = ready.opened.datasets[split]
    lengths = facts_of(dataset.rows).length
    longest_first = np.argsort(-lengths, kind="stable")
    few, at_once = (
        take_rows(dataset.rows, longest_first[: max(1, tokens // int(lengths[longest_first[0]]))])
        for tokens in (TRIED_TOKENS, reading_tokens(ready.state.network))
    )
    reads(ready, few[:1])  # the first takes longer
    read = reads(ready, few)
    if read is None:
        return None
    peak = read.peak_bytes * len(at_once) // len(few)
    if known_bytes < peak <= left_bytes and (whole := reads(ready, at_once)) is not None:
        read, peak = whole, whole.peak_bytes
    return Read(dataset.report.tokens, read.seconds * dataset.report.tokens / read.tokens, peak)


def try_freezing(ready: Ready, rows: Sequence[Rendered]) -> Read | None:
    """Read some of the training rows through the frozen blocks, as a run does before its steps; None if it does not."""
    return _read(rows, lambda: frozen_prefix(ready, "train", rows=rows).states)


def try_references(ready: Ready, rows: Sequence[Rendered]) -> Read | None:
    """Read some rows as the network that the run starts from does before its steps; None if nothing is compared with
    it.
    """
    if not ready.objective.needs_reference:
        return None
    with ready.computing():
        return _read(rows, lambda: read_heldout(ready.reader, ready.opened.model.tokenizer, rows))


def try_drawing(ready: Ready) -> Read | None:
    """Draw answers to the longest prompts, as many as an update has, as a run does before it, and read them as it then
    does; None if it draws none. ``tokens`` counts the answers.
    """
    if ready.objective.drawing is None:
        return None
    size, lengths = ready.objective.drawing.group_size, [len(prompt) for prompt in ready.prompts["train"].token_ids]
    count = sum(map(len, ready.order.epoch(0)[: ready.plan.gradient_accumulation_steps]))
    units = np.argsort(lengths, kind="stable")[::-1][: max(1, min(count, TOGETHER // size))].tolist()
    found = _read((), lambda: draw(ready, units, 0))
    assert found is not None
    return replace(found, tokens=len(units) * size)


def try_validation(ready: Ready, rows: Sequence[Rendered]) -> Read:
    """Read some of the validation rows, as a run does between its steps."""
    if ready.objective.drawing is not None:
        prompts = prompts_of_rows(ready, rows)
        read = _read(rows, lambda: answers_to(ready, prompts, temperature=0.0))
        assert read is not None
        return read
    frozen = frozen_prefix(ready, "valid", rows=rows)
    tokenizer = ready.opened.model.tokenizer
    with ready.computing():
        read = _read(rows, lambda: read_heldout(frozen.reader, tokenizer, rows, lift=frozen.lift))
    assert read is not None
    return read


def try_samples(ready: Ready) -> Read | None:
    """Have validation rows answered once, as a run does after each look at the loss; None if it does not, has the
    answers from that look, or cannot: the run tells of that and goes on.
    """
    with forgiven(lambda _: None):
        if ready.objective.drawing is None and (questions := questions_of(ready)):
            return _read((), lambda: answers_of(ready, questions))
    return None


def prompts_of_rows(ready: Ready, rows: Sequence[Rendered]) -> list[list[int]]:
    """What comes before the answers of validation rows, or, of text rows, what is no shorter: all of each."""
    is_text = ready.opened.datasets["valid"].report.kind == "text"  # all of a row is a target
    return [row.token_ids[: len(row.token_ids) if is_text else row.is_target.argmax()].tolist() for row in rows]


def _read(rows: Sequence[Rendered], work: Callable[[], object | None]) -> Read | None:
    """What some work on rows takes; None if it makes nothing."""
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    started = time.perf_counter()
    made = work()
    tokens, seconds = sum(len(row.token_ids) for row in rows), time.perf_counter() - started
    return None if made is None else Read(tokens, seconds, max(0, mx.get_peak_memory() - before))
