"""What a run will take, before it is run: memory, time, and how much of the forward pass memory wants done twice.

From the shapes of all its batches, which its order gives, and from a few of them that are tried. Memory is measured on
the batches that take most, where it is sure that they fit, and foretold where it is not; seconds are fitted. The price
is some steps' time. What the scoring at the end takes is left out.
"""

import itertools
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from mlxtune.data.batch import Shape
from mlxtune.data.stats import add_up
from mlxtune.device.memory import MemoryLimit, memory_limit, readable_bytes
from mlxtune.errors import DeviceError, TrainingError
from mlxtune.iteration.batches import training_shape
from mlxtune.iteration.ready import Ready
from mlxtune.iteration.rollouts import groups, standing_in
from mlxtune.iteration.steps import make_training
from mlxtune.iteration.trial import (
    Measured,
    Read,
    Trial,
    foretell_reading,
    foretold_bytes,
    try_drawing,
    try_freezing,
    try_references,
    try_samples,
    try_validation,
)
from mlxtune.progress import Progress, silent
from mlxtune.recipe.schema import EveryBlock
from mlxtune.training.estimate import fit_costs, highest_cost
from mlxtune.training.frozen_prefix import FrozenPrefix, trains
from mlxtune.training.loop import Rows, epoch_windows
from mlxtune.training.recompute import recompute_blocks

EPOCHS_LOOKED_AT = 3
"""The batches of later epochs are like theirs."""
BATCHES_LOOKED_AT = 10_000
"""From which on fewer epochs are enough."""
QUANTILES = (0.2, 0.4, 0.6, 0.8)
"""Of the parts by size: which are tried, beside those of a ladder from the smallest to the largest."""
RUNG = 2.0
LONGER = 8
"""Times the longest row that was tried: no further is a fit to be trusted."""

Recompute = Literal["off"] | EveryBlock


@dataclass(frozen=True)
class Work:
    """All that goes through the network together in a run, and how many updates are made of it."""

    parts: tuple[Rows, ...]
    shapes: tuple[Shape, ...]
    """Of the parts."""
    updates: int

    @property
    def adds_up(self) -> bool:
        """Whether an update may be of several parts."""
        return len(self.parts) > self.updates

    def ladder(self) -> list[Rows]:
        """Parts from the smallest on, each about `RUNG` times the one before, and those that take most: by positions,
        by pairs of them, and by targets.
        """
        order, everyone, shapes = self._order(), range(len(self.parts)), self.shapes
        chosen = [order[0]]
        for i in order[1:]:
            last = shapes[chosen[-1]]
            if shapes[i].positions >= RUNG * last.positions or shapes[i].pairs >= RUNG * last.pairs:
                chosen.append(i)
        chosen.append(order[-1])
        chosen.append(max(everyone, key=lambda i: (shapes[i].pairs, shapes[i].positions)))
        chosen.append(max(everyone, key=lambda i: (shapes[i].targets, shapes[i].positions)))
        return [self.parts[i] for i in dict.fromkeys(chosen)]

    def climb(self) -> list[Rows]:
        """The ladder and half of each of its parts: steps so small that the next is seldom too high to be tried."""
        ladder = self.ladder()
        return list(dict.fromkeys([*(part[: max(1, len(part) // 2)] for part in ladder), *ladder]))

    def samples(self) -> list[Rows]:
        """The ladder, and parts that many others are like."""
        order = self._order()
        chosen = [order[round(share * (len(order) - 1))] for share in QUANTILES]
        return list(dict.fromkeys([*self.ladder(), *(self.parts[i] for i in chosen)]))

    def _order(self) -> list[int]:
        return sorted(range(len(self.parts)), key=lambda i: self.shapes[i].size)


@dataclass(frozen=True)
class Forecast:
    """What a run will take; bytes and seconds are foretold, the rest is known.

    ``peak_memory_bytes`` and ``seconds`` are what metrics.jsonl will show: the most in MLX's arrays, and the wall time
    of all steps; ``preparation_seconds`` and ``validation_seconds``, with the answers after each look, come on top.
    """

    device: str
    trainable_parameters: int
    rows: int
    replay_rows: int
    """Of the rows, those of replay."""
    steps: int
    """Foretold, if time ends the run."""
    steps_an_epoch: int
    tokens_an_epoch: int
    target_tokens_an_epoch: int
    """Of an objective that draws answers both are the most that there can be, and `seconds` counts them so."""
    padding_share: float
    """Of the positions that go through the network."""
    prefix_saved_share: float
    """Of the rows' tokens: those that were not read again."""
    targets_alone: bool
    """Whether logits are worked out at targets alone; not in families that `models.anatomy` does not know."""
    peak_memory_bytes: int
    seconds: float
    preparation_seconds: float
    validation_seconds: float
    grad_checkpoint: Recompute
    memory_limit_bytes: int
    memory_limit_reason: str
    longest_row: int
    """Tokens of the longest row that would fit, as far as can be told from those tried."""

    @property
    def fits(self) -> bool:
        """Whether the peak is within the limit."""
        return self.peak_memory_bytes <= self.memory_limit_bytes

    def to_json(self) -> dict[str, Any]:
        """As plain values, by name."""
        chosen = self.grad_checkpoint if self.grad_checkpoint == "off" else self.grad_checkpoint.model_dump()
        return {**asdict(self), "grad_checkpoint": chosen, "fits": self.fits}


def forecast(ready: Ready, limit: MemoryLimit, *, auto: bool = False, progress: Progress = silent) -> Forecast:
    """Try a few of a run's batches and say what the whole will take.

    The network's parameters are as before; its blocks recompute what the forecast's ``grad_checkpoint`` says.

    Args:
        auto: choose that even where the recipe says it.
    """
    drawing = try_drawing(ready)
    ready = standing_in(ready)
    work = work_of(ready)
    chosen = ready.opened.recipe.training.grad_checkpoint
    if auto or chosen == "auto":
        chosen, _ = choose_recomputation(ready, limit, work)
    recompute_blocks(ready.state.network, every_of(chosen))
    samples = work.samples()
    trial = Trial(ready, adds_up=work.adds_up)
    trial.measure(min(samples, key=lambda part: training_shape(ready, part).size))  # the first takes longer
    measured: list[Measured] = []
    for done in trial.ascending(samples, limit_bytes=limit.bytes):
        measured.append(done)
        progress("try batches", len(measured), len(samples))
    left, training_bytes = limit.bytes - trial.base_bytes, _peak_bytes(work, measured)
    frozen = foretell_reading(ready, "train", try_freezing, training_bytes, left)
    references = foretell_reading(ready, "train", try_references, training_bytes, left)
    validation = foretell_reading(ready, "valid", try_validation, training_bytes, left)
    answers = try_samples(ready)
    reads = [read.peak_bytes for read in (frozen, references, validation, answers, drawing) if read is not None]
    an_update = _seconds_an_update(work, measured) + _drawing_seconds(ready, drawing)
    steps, report = _steps(ready, an_update), ready.opened.datasets["train"].report
    validations = math.ceil(steps / ready.plan.validate_every) if ready.plan.validate_every else 0
    reading = add_up(work.shapes)
    return Forecast(
        device=ready.opened.device.precision.name,
        trainable_parameters=ready.trainable_parameters,
        rows=report.rows,
        replay_rows=report.replay_rows,
        steps=steps,
        steps_an_epoch=ready.plan.updates_a_window
        * math.ceil(ready.order.count_batches(0) / ready.plan.gradient_accumulation_steps),
        tokens_an_epoch=report.tokens,
        target_tokens_an_epoch=report.target_tokens,
        padding_share=reading.padding_share,
        prefix_saved_share=reading.prefix_saved_share,
        targets_alone=ready.reader.anatomy is not None,
        peak_memory_bytes=trial.base_bytes + max(training_bytes, *reads, 0),
        seconds=steps * an_update,
        preparation_seconds=_preparation_seconds(ready, [read for read in (frozen, references) if read is not None]),
        validation_seconds=validations * sum((read.seconds for read in (validation, answers) if read), 0.0),
        grad_checkpoint=chosen,
        memory_limit_bytes=limit.bytes,
        memory_limit_reason=limit.reason,
        longest_row=_longest_row(ready, measured, left),
    )


def work_of(ready: Ready, *, epochs: int = EPOCHS_LOOKED_AT) -> Work:
    """What the run reads in so many epochs at most, as far as it gets."""
    dataset = ready.opened.datasets["train"].rows
    training = make_training(ready, dataset, FrozenPrefix(ready.reader, None))
    windows = list(itertools.islice(_windows(ready, epochs), ready.plan.total_steps))
    own = [training.own(window) for window in windows]
    if ready.objective.drawing is not None:  # of whose prompts groups of answers are read
        own = [groups((unit for rows in window for unit in rows), ready.objective.drawing) for window in own]
    parts = [part for rows in own for part in training.parts(rows, ready.state.part_positions)]
    shapes = {part: training_shape(ready, part) for part in dict.fromkeys(parts)}
    return Work(tuple(parts), tuple(shapes[part] for part in parts), len(windows))


def _windows(ready: Ready, epochs: int) -> Iterator[list[Rows]]:
    enough = max(1, BATCHES_LOOKED_AT // max(1, ready.order.count_batches(0)))
    for epoch in range(min(epochs, enough, ready.plan.epochs or epochs)):
        yield from epoch_windows(ready.order, ready.plan.gradient_accumulation_steps, epoch)


def settle_memory(ready: Ready, *, auto: bool = False, progress: Progress = silent) -> tuple[Ready, Forecast | None]:
    """The run with ``training.grad_checkpoint`` as memory wants it, in its recipe and its network.

    Args:
        auto: foretell the whole run, and choose also where the recipe says a value; else only ``auto`` is settled.

    Raises: TrainingError, if the run cannot fit.
    """
    recipe = ready.opened.recipe
    if not auto and recipe.training.grad_checkpoint != "auto":
        return ready, None
    found = None
    try:
        limit = memory_limit()
    except DeviceError:  # training works without it
        return ready, None
    if auto:
        found = forecast(ready, limit, auto=True, progress=progress)
        refuse_too_large(found)
        chosen = found.grad_checkpoint
    else:
        chosen, peak = choose_recomputation(standing_in(ready), limit)
        if peak > limit.bytes:
            refuse_too_large(forecast(ready, limit, progress=progress))
    recompute_blocks(ready.state.network, every_of(chosen))
    training = recipe.training.model_copy(update={"grad_checkpoint": chosen})
    opened = replace(ready.opened, recipe=recipe.model_copy(update={"training": training}))
    return replace(ready, opened=opened), found


def choose_recomputation(ready: Ready, limit: MemoryLimit, work: Work | None = None) -> tuple[Recompute, int]:
    """How many of the blocks that train must be recomputed for a run's batches to fit: as few as possible.

    Most runs fit as they are, and one small batch is enough to see it. If nothing fits, every block is recomputed: that
    is the most that this can do.

    Returns: the setting, and bytes that the run takes with it at most, measured or foretold. The network's blocks
        recompute nothing afterwards.
    """
    work = work or work_of(ready, epochs=1)
    network: Any = ready.state.network
    climb, shapes = work.climb(), set(work.shapes)

    def peak(every: int | None) -> int:
        recompute_blocks(network, every)
        trial = Trial(ready, adds_up=work.adds_up)
        measured: list[Measured] = []
        for known in trial.ascending(climb, limit_bytes=limit.bytes):
            measured.append(known)
            bound = max(highest_cost(shape, known.shape, known.peak_bytes) for shape in shapes)
            if trial.base_bytes + bound <= limit.bytes:
                return trial.base_bytes + int(bound)
        return trial.base_bytes + _peak_bytes(work, measured)

    try:
        kept = peak(None)
        if kept <= limit.bytes:
            return "off", kept
        least, beyond = 1, 1 + sum(trains(block) for block in network.layers)
        taken = peak(least)
        while beyond - least > 1:
            middle = (least + beyond) // 2
            if (found := peak(middle)) <= limit.bytes:
                least, taken = middle, found
            else:
                beyond = middle
        return EveryBlock(every=least), taken
    finally:
        recompute_blocks(network, None)


def every_of(setting: Recompute | Literal["auto"]) -> int | None:
    """Which blocks a setting recomputes, as `recompute_blocks` takes it; auto, none until it is chosen."""
    return setting.every if isinstance(setting, EveryBlock) else None


def refuse_too_large(found: Forecast) -> None:
    """Raises: TrainingError, if the run does not fit, with what would."""
    if found.fits:
        return
    remedies = [f"lower data.max_seq_length to {found.longest_row}"] if found.longest_row else []
    if found.grad_checkpoint != EveryBlock(every=1):
        remedies.insert(0, "training.grad_checkpoint: {every: 1}")
    remedies += ["method.layers: {top: N}", "a smaller or quantized model"]
    raise TrainingError(
        f"the run would take {readable_bytes(found.peak_memory_bytes)} of memory, and "
        f"{readable_bytes(found.memory_limit_bytes)} may be taken ({found.memory_limit_reason})",
        remedy=f"close other programs, or try {', '.join(remedies[:-1])} or {remedies[-1]}",
    )


def _peak_bytes(work: Work, measured: Sequence[Measured]) -> int:
    """The most that a part takes: measured, or, for a part that is larger than all those measured, foretold."""
    known = {done.shape: done.peak_bytes for done in measured}
    largest = max(done.shape.size for done in measured)
    beyond = [shape for shape in set(work.shapes) if shape not in known and shape.size > largest]
    return max([*known.values(), *(int(foretold_bytes(shape, measured)) for shape in beyond)])


def _seconds_an_update(work: Work, measured: Sequence[Measured]) -> float:
    costs = fit_costs([done.shape for done in measured], [done.gradient_seconds for done in measured])
    update = statistics.median(done.update_seconds for done in measured)
    return sum(costs.of(shape) for shape in work.shapes) / work.updates + update


def _drawing_seconds(ready: Ready, drawing: Read | None) -> float:
    """Of drawing an update's answers, foretold from those to the longest prompts; 0 if none are drawn. Later
    answers may be longer or shorter.
    """
    if drawing is None:
        return 0.0
    windows = math.ceil(ready.order.count_batches(0) / ready.plan.gradient_accumulation_steps)
    answers = len(ready.opened.datasets["train"].rows) / windows
    return drawing.seconds * answers / drawing.tokens / ready.plan.updates_a_window


def _steps(ready: Ready, seconds_an_update: float) -> int:
    """How many updates the run will make, as far as limits and time tell."""
    limits = [] if ready.plan.total_steps is None else [ready.plan.total_steps]
    if ready.plan.max_minutes is not None:
        limits.append(max(1, round(60 * ready.plan.max_minutes / seconds_an_update)))
    return min(limits)


def _preparation_seconds(ready: Ready, reads: Sequence[Read]) -> float:
    """Of reading every row once before the first step: through the frozen blocks, or for how likely it is."""
    datasets = ready.opened.datasets
    tokens = sum(datasets[split].report.tokens for split in ("train", "valid") if split in datasets)
    return sum(read.seconds * tokens / read.tokens for read in reads)


def _longest_row(ready: Ready, measured: Sequence[Measured], left_bytes: int) -> int:
    """Tokens of the longest row that fits into so many bytes, with as many targets as the rows have on average."""
    report = ready.opened.datasets["train"].report
    share = report.target_tokens / report.tokens
    least, beyond = 0, 1 + LONGER * max(done.shape.prefix + done.shape.length for done in measured)
    while beyond - least > 1:
        middle = (least + beyond) // 2
        row = Shape(prefix=0, rows=1, length=middle, targets=math.ceil(share * middle))
        least, beyond = (middle, beyond) if foretold_bytes(row, measured) <= left_bytes else (least, middle)
    return least
