"""A run's own steps, tried on a few of its rows: what they take in seconds and bytes; what they learn is thrown away.

The loop's own functions make the steps, so what is measured is what a run will do. The price is that a trial takes as
long as the steps it makes, and that on a busy machine its seconds are those of a busy machine.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import mlx.core as mx
from mlx.utils import tree_map

from mlxtune.data.batch import Batch, make_batch
from mlxtune.data.render import Rendered
from mlxtune.evaluation.heldout import read_heldout
from mlxtune.iteration.steps import make_run_step, shape_multiple
from mlxtune.progress import Progress, silent
from mlxtune.training.estimate import Work
from mlxtune.training.frozen_prefix import read_frozen_prefix
from mlxtune.training.loop import Rows, Training, finish, read_window
from mlxtune.training.state import TrainingState, WindowSum

if TYPE_CHECKING:
    from mlxtune.iteration.run import Ready


@dataclass(frozen=True)
class Measured:
    """One batch and the update made of it."""

    work: Work
    gradient_seconds: float
    """Of the batch: its making, the loss, the gradient."""
    update_seconds: float
    """Of the update alone."""
    peak_bytes: int
    """The most in MLX's arrays at once, beside what is always there."""


@dataclass(frozen=True)
class Read:
    """Rows that were read without gradients."""

    positions: int
    seconds: float
    peak_bytes: int
    """As of `Measured`."""


class Trial:
    """Steps of ``ready`` on ``rows`` of its training data; afterwards its state is as it was.

    Attributes:
        base_bytes: what is always in MLX's arrays: weights, adapter, optimizer.
        prepared: what reading the rows through the frozen blocks took; None where none are.
    """

    def __init__(self, ready: "Ready", rows: Sequence[int], *, progress: Progress = silent) -> None:
        self.ready = ready
        self.numbers = {row: number for number, row in enumerate(dict.fromkeys(rows))}
        whole = ready.opened.datasets["train"].rows
        own = [whole[row] for row in self.numbers]
        mx.eval(ready.state.network.parameters(), ready.state.optimizer.state)
        self.base_bytes = mx.get_active_memory()
        mx.reset_peak_memory()
        started = time.perf_counter()
        frozen = read_frozen_prefix(ready.reader, own, model_sha256=ready.opened.folder.sha256, progress=progress)
        seconds = time.perf_counter() - started
        self.prepared = None
        if frozen.states is not None:
            self.prepared = Read(sum(len(row.token_ids) for row in own), seconds, self._peak_bytes())
        compiled = ready.opened.device.compiles
        step, batch_of = make_run_step(
            ready.state, own, frozen, max_grad_norm=ready.plan.max_grad_norm, compiled=compiled
        )
        self.training = Training(
            plan=ready.plan,
            order=ready.order,
            step=step,
            make_batch=batch_of,
            places=[row.where for row in own],
            record=lambda _: None,
            validate=lambda: 0.0,
            save=lambda: None,
            should_stop=lambda: False,
        )

    def measure(self, rows: Rows) -> Measured:
        """Make one update of one batch, and take it back."""
        numbers = tuple(self.numbers[row] for row in rows)
        state = TrainingState(self.ready.state.network, self.ready.state.optimizer)
        before = state.parameters()
        batch = self.training.make_batch(numbers)  # ahead of time, as in a run
        mx.eval(batch.arrays())
        mx.reset_peak_memory()
        if self.ready.plan.gradient_accumulation_steps > 1:  # a run has the sum of those before
            state.window_sum = WindowSum(gradients=tree_map(mx.zeros_like, before[0]))
            mx.eval(state.window_sum.gradients)
        try:
            found = read_window(state, self.training, [numbers])
            assert found is not None
            gradient_seconds = found.seconds
            finish(state, self.training, found, [numbers], None, last_of_epoch=False)
        finally:
            state.set_parameters(*before)
        return Measured(Work.of(batch), gradient_seconds, found.seconds - gradient_seconds, self._peak_bytes())

    def _peak_bytes(self) -> int:
        return max(0, mx.get_peak_memory() - self.base_bytes)


def try_reading(ready: "Ready", rows: Sequence[Rendered]) -> Read:
    """Read some of the validation rows, as a run does between its steps."""
    frozen = read_frozen_prefix(ready.reader, rows, model_sha256=ready.opened.folder.sha256)
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    started = time.perf_counter()
    read_heldout(frozen.reader, ready.opened.model.tokenizer, rows, lift=frozen.lift)
    seconds = time.perf_counter() - started
    return Read(sum(len(row.token_ids) for row in rows), seconds, max(0, mx.get_peak_memory() - before))


def batch_of_run(ready: "Ready", rows: Rows) -> Batch:
    """A batch of token ids, of the shape that the run will give it."""
    return make_batch(
        ready.opened.datasets["train"].rows,
        rows,
        share_prefix=ready.reader.shares_prefixes,
        multiple=shape_multiple(compiled=ready.opened.device.compiles),
    )
