"""What the loop has to know of an objective, whichever it is: a loss of a batch, and what its rows and arrays are.

An objective that learns from one row at a time says no more than its loss. Knows batches and readers; nothing of
recipes, files or steps.
"""

from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx

from mlxtune.data.batch import Batch
from mlxtune.inference.likelihood import Reader


@dataclass(frozen=True)
class RowSums:
    """What a network says of B rows as wholes, [B] float32 each: the log-probability of their targets together, in
    nats; how many targets there are; and that log-probability by the network that training started from, or zeros.
    ``reference_point`` is one number for all: how much likelier than at the start answers to other prompts are, in nats
    an answer, and at least 0.
    """

    log_probability: mx.array
    count: mx.array
    reference: mx.array
    reference_point: mx.array | float = 0.0


OfRows = Callable[[RowSums], tuple[mx.array, list[mx.array]]]
"""The loss of some rows, summed over the units of an objective, and sums of its figures."""


@dataclass(frozen=True)
class Drawing:
    """How an objective comes by answers, where it learns from those that the network itself draws."""

    group_size: int
    """Answers to a prompt."""
    max_tokens: int
    updates: int
    """That are made of the same answers."""
    compares: bool
    """Whether each token's log-probability where training started is needed, in nats."""
    by_deviation: bool
    """Whether an advantage is in units of its group's standard deviation."""

    @property
    def remembers(self) -> bool:
        """Whether each token's log-probability when it was drawn is needed: after an update it is another."""
        return self.updates > 1


@dataclass(frozen=True)
class Objective:
    """What is optimized.

    ``loss`` is summed over the batch's weight, which is that of its targets, or, with ``of_rows``, the number of units.
    """

    loss: Callable[[Reader, Batch], tuple[mx.array, list[mx.array]]]
    figures: tuple[str, ...] = ()
    """The names of what ``loss`` gives besides."""
    pairs: bool = False
    """Whether a unit is a pair of rows, the better answer and the other, which share their prompt."""
    needs_reference: bool = False
    """Whether ``Batch.beside`` has to hold, [B], how likely each row was before training."""
    needs_reference_point: bool = False
    """Whether it has to hold, after that, the scalar `RowSums.reference_point`, the same for all of an update."""
    of_rows: OfRows | None = None
    """Of objectives that look at rows as wholes: the same loss, for validation."""
    drawing: Drawing | None = None
    """Of objectives whose units are answers that the network draws to the rows' prompts."""
