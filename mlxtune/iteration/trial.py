"""A run's own steps, tried on a few of its rows: what they take in seconds and bytes; what they learn is thrown away.

The loop's own functions make the steps, so what is measured is what a run will do. The price is that a trial takes as
long as the steps it makes, and that on a busy machine its seconds are those of a busy machine.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx
from mlx.utils import tree_map

from mlxtune.data.batch import Shape
from mlxtune.data.render import Rendered
from mlxtune.device.memory import is_out_of_memory
from mlxtune.evaluation.heldout import read_heldout
from mlxtune.iteration.ready import Ready, frozen_prefix
from mlxtune.iteration.steps import make_training, training_shape
from mlxtune.training.estimate import fit_costs, highest_cost
from mlxtune.training.loop import Rows, Training, finish, read_window
from mlxtune.training.state import TrainingState, WindowSum

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
    """Of their batch: its making, the loss, the gradient."""
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
    """Steps of ``ready`` on some rows of its training data; afterwards its state is as it was, to the last bit.

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
        """Make one update of rows that are read together, and take it back.

        Where steps are compiled it is made twice: a run compiles each shape once, and has many steps of it.
        """
        dataset = self.ready.opened.datasets["train"].rows
        own = [dataset[row] for row in rows]
        training = make_training(self.ready, own, frozen_prefix(self.ready, "train", rows=own))
        if self.ready.opened.device.compiles:
            self._update(training, len(rows))
        gradient_seconds, update_seconds, peak_bytes = self._update(training, len(rows))
        return Measured(training_shape(self.ready, rows), gradient_seconds, update_seconds, peak_bytes)

    def _update(self, training: Training, rows: int) -> tuple[float, float, int]:
        """An update of all ``rows`` of ``training``, taken back; its two times, and its memory beside the base."""
        numbers = tuple(range(rows))
        state = TrainingState(self.ready.state.network, self.ready.state.optimizer, part_positions=ALL_POSITIONS)
        before = state.parameters()
        mx.eval(training.make_batch(numbers).arrays())  # ahead of time, as in a run
        mx.reset_peak_memory()
        if self.adds_up:
            state.window_sum = WindowSum(gradients=tree_map(mx.zeros_like, before[0]))
            mx.eval(state.window_sum.gradients)
        try:
            found = read_window(state, training, [numbers])
            assert found is not None
            gradient_seconds = found.seconds
            finish(state, training, found, [numbers], None, last_of_epoch=False)
        finally:
            state.set_parameters(*before)
        return gradient_seconds, found.seconds - gradient_seconds, max(0, mx.get_peak_memory() - self.base_bytes)

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


def try_freezing(ready: Ready, rows: Sequence[Rendered]) -> Read | None:
    """Read some of the training rows through the frozen blocks, as a run does before its steps; None if it does not."""
    return _read(rows, lambda: frozen_prefix(ready, "train", rows=rows).states)


def try_validation(ready: Ready, rows: Sequence[Rendered]) -> Read:
    """Read some of the validation rows, as a run does between its steps."""
    frozen = frozen_prefix(ready, "valid", rows=rows)
    tokenizer = ready.opened.model.tokenizer
    read = _read(rows, lambda: read_heldout(frozen.reader, tokenizer, rows, lift=frozen.lift))
    assert read is not None
    return read


def _read(rows: Sequence[Rendered], work: Callable[[], object | None]) -> Read | None:
    """What some work on rows takes; None if it makes nothing."""
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    started = time.perf_counter()
    made = work()
    tokens, seconds = sum(len(row.token_ids) for row in rows), time.perf_counter() - started
    return None if made is None else Read(tokens, seconds, max(0, mx.get_peak_memory() - before))
