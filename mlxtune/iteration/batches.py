"""The batches of a run: its rows, or the answers that it drew to them, and what an objective is given beside them.

Also the shapes that they have, which a plan goes by. Knows nothing of steps.
"""

import functools
from collections.abc import Sequence
from dataclasses import replace

import mlx.core as mx
import numpy as np

from mlxtune.data.batch import Batch, Shape, count_positions, make_batch, shape_of
from mlxtune.data.render import Rendered
from mlxtune.device.choose import Device
from mlxtune.device.distributed import ALONE, Ranks
from mlxtune.iteration.ready import Elsewhere, Ready
from mlxtune.iteration.reference import mismatched, reference_point
from mlxtune.iteration.rollouts import Rollouts
from mlxtune.training.frozen_prefix import FrozenPrefix
from mlxtune.training.loop import Rows
from mlxtune.training.state import TrainingState

SHAPE_MULTIPLE = 16
"""Of a compiled batch's prefix, length and number of targets."""


class Batches:
    """Those of some rows to train on, by the numbers of their units."""

    def __init__(self, ready: Ready, rows: Sequence[Rendered], frozen: FrozenPrefix, ranks: Ranks = ALONE) -> None:
        """Args:
        rows: the recipe's, or, to try steps out, those of some units, whose references are then nothing.
        frozen: from the same rows.
        """
        self._ready, self._rows, self._frozen, self._ranks = ready, rows, frozen, ranks
        self._references = ready.references.get("train")
        self._elsewhere = ready.elsewhere.get("train") or Elsewhere(
            mismatched(ready, rows), np.zeros(len(rows), np.float32)
        )
        self._rollouts = None if ready.objective.drawing is None else Rollouts(ready, rows)
        self.make = functools.lru_cache(maxsize=2)(self._make)
        """A batch, which is made ahead of time, and taken when it is next."""

    def positions(self, units: Rows) -> int:
        """How many go through the network together, at most."""
        rows = self._rows if self._rollouts is None else self._rollouts.longest
        return count_positions(rows, self._ready.rows_of(units), share_prefix=self._frozen.reader.shares_prefixes)

    def reference_point(self, window: Sequence[Rows]) -> tuple[mx.array, ...]:
        """`RowSums.reference_point` of a window's batches."""
        units = [unit for batch in window for unit in batch]
        return (mx.array(reference_point(self._ready, self._elsewhere, units, self._ranks)),)

    def draw(self, state: TrainingState, window: Sequence[Rows]) -> list[Rows]:
        """Have answers in the place of a window's rows, of an objective that draws; their numbers, batch by batch."""
        assert self._rollouts is not None
        self.make.cache_clear()  # other rows have their numbers from here on
        return self._rollouts.draw(state, window)

    def _make(self, units: Rows) -> Batch:
        ready, objective, numbers = self._ready, self._ready.objective, self._ready.rows_of(units)
        batch = self._frozen.lift(
            make_batch(
                self._rows if self._rollouts is None else self._rollouts.rows,
                numbers,
                share_prefix=self._frozen.reader.shares_prefixes,
                multiple=shape_multiple(ready.opened.device),
            )
        )
        if self._rollouts is not None:
            beside = self._rollouts.beside(numbers, batch.target_id.size)
            return replace(batch, weight_sum=float(len(units)), beside=beside)
        if objective.of_rows is not None:
            batch = replace(batch, weight_sum=float(len(units)))
        if objective.needs_reference:
            known = self._references
            own = np.zeros(len(numbers), np.float32) if known is None else known[list(numbers)]
            batch = replace(batch, beside=(mx.array(own),))
        return batch


def training_shape(ready: Ready, units: Rows) -> Shape:
    """The shape that training rows have when they go through the network together."""
    return shape_of(
        ready.opened.datasets["train"].rows,
        ready.rows_of(units),
        share_prefix=ready.reader.shares_prefixes,
        multiple=shape_multiple(ready.opened.device),
    )


def shape_multiple(device: Device) -> int:
    """What the dimensions of a run's batches are multiples of: more than 1 where each shape is compiled."""
    return SHAPE_MULTIPLE if device.compiles else 1
