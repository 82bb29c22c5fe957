"""What a run would take on a Mac that is not here, from its published figures: an estimate, and nothing measured.

The rows are rendered and put into batches as a run would have them; weights are counted and not read. Memory is the
weights as that machine's GPU has them, what trains in float32 with the optimizer's moments, and the larger of two: a
batch's gradient with what it keeps for it (of each linear layer of the blocks that train its inputs and outputs,
attention's scores of one block, the head's logits), or an update, which takes the places of the old numbers but of some
arrays at once. Seconds are the larger of two (a roofline, https://doi.org/10.1145/1498765.1498785):

    operations / (what the GPU's cores do),   operations = 2 N forward and 2 N backward a position, and attention;
                                              4 N backward where the weights themselves train
    bytes / (what memory gives),              bytes = all weights forward and backward, for each batch; of DoRA also
                                              the whole weights that it measures

both at half of the published peak. Knows nothing of kernels, heat, or what else the machine does. Nothing of it has
been seen on a Mac; on a CPU the memory was held against measured runs (tests/iteration/test_elsewhere.py). Of a mixture
of experts all experts are counted, though few work for a token: its time and memory come out too high.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten

from mlxtune.adapters.attach import adapter_parameters
from mlxtune.adapters.full import trained_weights
from mlxtune.adapters.lora import lora_layers
from mlxtune.adapters.saved import saved_modules
from mlxtune.data.batch import Shape, shape_of
from mlxtune.data.order import halved
from mlxtune.data.pairs import rows_of
from mlxtune.data.store.rows import facts_of
from mlxtune.device.precision import GPU_BFLOAT16, Precision
from mlxtune.device.profiles import Machine
from mlxtune.errors import UsageError
from mlxtune.inference.likelihood import CHUNK_BYTES
from mlxtune.iteration.opening import Opened, make_order, make_plan, objective_of
from mlxtune.iteration.start import attach_start
from mlxtune.models.anatomy import anatomy_of
from mlxtune.recipe.schema import EveryBlock, Recipe
from mlxtune.training.frozen_prefix import frozen_depth
from mlxtune.training.loop import epoch_windows

LABEL = "estimate, unverified"
FLOAT32 = 4
STEPS_LOOKED_AT = 1000
"""Updates whose batches are counted; later ones are like them."""
OPTIMIZER_COPIES = {"adamw": 2, "adam": 2, "lion": 1, "sgd": 1, "adafactor": 0, "muon": 1}
"""Of what trains, that an optimizer keeps; adafactor keeps a row and a column of each matrix."""
UPDATE_SHARE = 1.5
"""Of what trains, while an update is made: its gradient, and what is worked out of several arrays at once."""
UPDATE_ALONE = 3
"""Times the largest array that trains: what is worked out of it alone, beside."""
GAIN_BYTES = 16
"""A number of a weight whose rows DoRA measures: the weight and its update, in float32, are written and read."""
CHUNKS_ALIVE = 4
"""Of the head's logits at once."""
LARGEST = 1 << 40
"""Positions: no batch is read in parts."""


@dataclass(frozen=True)
class Sizes:
    """Of a network with what trains in it, by kinds of work."""

    weight_bytes: int
    trainable: int
    largest_trained: int
    """Of the largest array of them."""
    replaced: int
    """Of the trainable, the network's own weights, which are there instead of the base's and not beside them."""
    gained: int
    """Weights of the layers that DoRA is on."""
    largest_gained: int
    """Of the largest of them."""
    lower: int
    """Weights of the blocks below the lowest adapter, a number each, whatever it is stored in."""
    upper: int
    """Of the blocks from there on."""
    head: int
    head_trains: bool
    """Whether the head's weight itself does."""
    width: int
    """D, of the hidden states."""
    heads: int
    lower_blocks: int
    upper_blocks: int
    kept: int
    """Inputs and outputs of the linear layers of the blocks that train, numbers a position; DoRA's outputs twice."""
    kept_by_largest: int
    """The same of the largest block alone: what recomputing leaves."""
    targets_alone: bool
    vocabulary: int


@dataclass(frozen=True)
class Elsewhere:
    """An estimate of a run on another machine."""

    machine: str
    memory_gb: int
    bandwidth_gb_s: float
    gpu_cores: int
    trainable_parameters: int
    rows: int
    steps: int
    steps_an_epoch: int
    weight_bytes: int
    peak_memory_bytes: int
    memory_limit_bytes: int
    seconds: float
    bound_by: str
    """``arithmetic`` or ``bandwidth``: what most of the time goes into."""
    recomputed: bool
    """Whether memory is that of a run whose blocks are recomputed one by one."""

    @property
    def fits(self) -> bool:
        """Whether the peak is within what that machine's GPU may keep at hand."""
        return self.peak_memory_bytes <= self.memory_limit_bytes

    def to_json(self) -> dict[str, Any]:
        """As plain values, by name, with the label that they need."""
        return {**asdict(self), "fits": self.fits, "label": LABEL}


def foretell_elsewhere(opened: Opened, machine: Machine, precision: Precision = GPU_BFLOAT16) -> Elsewhere:
    """What the recipe would take on ``machine``.

    Args:
        opened: with a network whose weights need not be read; it gets the recipe's adapter.
        precision: of the weights and activations there.

    Raises: AdapterError, if the method does not fit the network; UsageError, for an objective that draws answers, which
        are there only once they are drawn.
    """
    _refuse_drawing(opened.recipe)
    weights = bytes_in(opened.model.network, precision)
    opened = attach_start(opened)
    recipe, rows = opened.recipe, opened.datasets["train"].rows
    sizes = sizes_of(opened.model.network, weights, kind_of_heads(opened.model.config))
    order = make_order(recipe, rows, share_prefix=True)
    plan = make_plan(recipe, order, validates="valid" in opened.datasets)
    accumulation, pairs = plan.gradient_accumulation_steps, objective_of(recipe).pairs
    shapes = [
        shape_of(rows, rows_of(part) if pairs else part, share_prefix=True)
        for window in epoch_windows(order, accumulation, 0)[:STEPS_LOOKED_AT]
        for batch in window
        for part in halved(batch, lambda _: 1, LARGEST)
    ]
    updates = min(STEPS_LOOKED_AT, math.ceil(order.count_batches(0) / accumulation))
    recomputes = isinstance(recipe.training.grad_checkpoint, EveryBlock)
    copies = OPTIMIZER_COPIES[recipe.training.optimizer]

    def peak(*, recomputed: bool) -> int:
        work = max(working_bytes(shape, sizes, precision.dtype.size, recomputed=recomputed) for shape in shapes)
        return peak_bytes(sizes, work, precision.dtype.size, copies=copies, adds_up=len(shapes) > updates)

    may_recompute = recipe.training.grad_checkpoint == "auto" and peak(recomputed=False) > machine.working_set_bytes
    recomputed = recomputes or may_recompute
    again = plan.total_steps is None or plan.total_steps > math.ceil(order.count_batches(0) / accumulation)
    keeps = recipe.training.cache_frozen_prefix != "off" and again and sizes.lower > 0
    flops = sum(operations(shape, sizes, reads_lower=not keeps, recomputed=recomputed) for shape in shapes) / updates
    moved = len(shapes) / updates * (2 * weights + GAIN_BYTES * sizes.gained)
    moved += sizes.trainable * FLOAT32 * (3 + 2 * copies)
    arithmetic, bandwidth = flops / machine.flops_per_s, moved / machine.bytes_per_s
    seconds = max(arithmetic, bandwidth)
    limits = [] if plan.total_steps is None else [plan.total_steps]
    if plan.max_minutes is not None:
        limits.append(max(1, round(60 * plan.max_minutes / seconds)))
    return Elsewhere(
        machine=machine.name,
        memory_gb=machine.memory_gb,
        bandwidth_gb_s=machine.bandwidth_gb_s,
        gpu_cores=machine.gpu_cores,
        trainable_parameters=sizes.trainable,
        rows=len(facts_of(rows).length),
        steps=min(limits),
        steps_an_epoch=math.ceil(order.count_batches(0) / accumulation),
        weight_bytes=weights,
        peak_memory_bytes=peak(recomputed=recomputed),
        memory_limit_bytes=machine.working_set_bytes,
        seconds=min(limits) * seconds,
        bound_by="arithmetic" if arithmetic >= bandwidth else "bandwidth",
        recomputed=recomputed,
    )


def _refuse_drawing(recipe: Recipe) -> None:
    if objective_of(recipe).drawing is not None:
        raise UsageError(
            f"objective {recipe.objective.type} draws answers, and how long that takes on another machine is not known",
            where="--machine",
            remedy="run `mlxtune plan` without it, on the machine that is to train",
        )


def bytes_in(network: nn.Module, precision: Precision) -> int:
    """What a network's weights take in ``precision``, by their shapes alone."""
    arrays: Any = tree_flatten(network.parameters(), destination={})
    if precision.dequantize:
        return sum(math.prod(layer_shape(module)) for _, module in _weighted(network)) * precision.dtype.size
    return sum(
        array.size * precision.dtype.size if mx.issubdtype(array.dtype, mx.floating) else array.nbytes
        for array in arrays.values()
    )


def sizes_of(network: Any, weight_bytes: int, heads: int) -> Sizes:
    """Of a network with its adapter attached."""
    anatomy = anatomy_of(network)
    blocks = list(network.layers) if anatomy is None else anatomy.blocks
    depth = 0 if anatomy is None else frozen_depth(anatomy)
    counts = [[layer_shape(layer) for _, layer in _weighted(block)] for block in blocks]
    numbers = [sum(math.prod(shape) for shape in shapes) for shapes in counts]
    kept = [
        sum(shape[-1] + shape[-2] for shape in shapes) + sum(layer_shape(layer.base)[-2] for layer in _gained(block))
        for shapes, block in zip(counts, blocks, strict=True)
    ]
    everything = [layer_shape(layer) for _, layer in _weighted(network)]
    vocabulary, width = max(everything, key=lambda shape: shape[-2])[-2:]
    gained = [math.prod(layer_shape(layer.base)) for layer in _gained(network)]
    training = list(adapter_parameters(network).values())
    in_head: Any = [] if anatomy is None else tree_flatten(anatomy.head.trainable_parameters())
    return Sizes(
        weight_bytes=weight_bytes,
        trainable=sum(array.size for array in training),
        largest_trained=max(array.size for array in training),
        replaced=sum(array.size for array in trained_weights(network).values()),
        gained=sum(gained),
        largest_gained=max(gained, default=0),
        lower=sum(numbers[:depth]),
        upper=sum(numbers[depth:]),
        head=vocabulary * width,
        head_trains=any(name.rpartition(".")[2] == "weight" for name, _ in in_head),
        width=width,
        heads=heads,
        lower_blocks=depth,
        upper_blocks=len(blocks) - depth,
        kept=sum(kept[depth:]),
        kept_by_largest=max(kept),
        targets_alone=anatomy is not None,
        vocabulary=vocabulary,
    )


def peak_bytes(sizes: Sizes, work: int, itemsize: int, *, copies: int, adds_up: bool) -> int:
    """The most at once: in a batch's gradient, or in an update.

    Args:
        work: what a batch takes beside weights and gradients; see `working_bytes`.
        itemsize: of a weight as the network computes with it.
        copies: see `OPTIMIZER_COPIES`.
        adds_up: whether a gradient is a sum over several parts, kept meanwhile.
    """
    trained = sizes.trainable * FLOAT32
    at_rest = sizes.weight_bytes - sizes.replaced * itemsize + trained * (1 + copies)
    at_use = sizes.replaced * itemsize if itemsize != FLOAT32 else 0
    gradient = trained * (2 if adds_up else 1) + at_use + work
    update = round(UPDATE_SHARE * trained) + UPDATE_ALONE * sizes.largest_trained * FLOAT32
    return at_rest + max(gradient, update)


def working_bytes(shape: Shape, sizes: Sizes, itemsize: int, *, recomputed: bool) -> int:
    """What one batch takes beside weights and adapter: what is kept for the gradient, and the largest of the rest."""
    kept = sizes.kept
    if recomputed:  # between blocks the states alone are kept, and within one all
        kept = sizes.upper_blocks * sizes.width + sizes.kept_by_largest
    scores = 2 * sizes.heads * shape.pairs * itemsize
    logits = shape.targets * sizes.vocabulary * FLOAT32
    chunk = min(CHUNKS_ALIVE * CHUNK_BYTES, CHUNKS_ALIVE * logits)
    head = chunk if sizes.targets_alone else 3 * shape.positions * sizes.vocabulary * FLOAT32
    if sizes.head_trains:  # of the embedding that is the head too, and of each chunk, before they are added up
        head += 2 * sizes.head * FLOAT32
    gain = 3 * sizes.largest_gained * FLOAT32  # the weight, its update, and their sum
    return shape.positions * kept * itemsize + max(scores, head, gain)


def operations(shape: Shape, sizes: Sizes, *, reads_lower: bool, recomputed: bool) -> float:
    """Multiplications and additions of one batch, forward and backward; of weights that stay as they are no gradient is
    formed."""
    positions = shape.positions if sizes.targets_alone else shape.rows * (shape.prefix + shape.length)
    passes = 3 if recomputed else 2
    blocks = sizes.upper_blocks * passes + (sizes.lower_blocks if reads_lower else 0)
    weights = sizes.upper * (passes + (1 if sizes.replaced else 0)) + (sizes.lower if reads_lower else 0)
    heads = (shape.targets if sizes.targets_alone else positions) * (4 if sizes.head_trains else 2)
    return 2 * (positions * weights + 2 * blocks * sizes.width * shape.pairs + heads * sizes.head)


def kind_of_heads(config: dict[str, Any]) -> int:
    """How many heads attention has; 1, if the config does not say."""
    told = (config.get("text_config") or config).get("num_attention_heads") or config.get("n_head")
    return told if isinstance(told, int) else 1


def _weighted(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Linear layers and embeddings in a module; an adapter's own factors, and what its copies stand for, not among
    them."""
    beside = {id(saved.original) for _, saved in saved_modules(module)}
    return [
        (path, one)
        for path, one in module.named_modules()
        if isinstance(one.get("weight"), mx.array) and one["weight"].ndim >= 2 and id(one) not in beside  # noqa: PLR2004 - a matrix
    ]


def _gained(module: nn.Module) -> list[Any]:
    """The layers of a module that DoRA is on."""
    return [layer for _, layer in lora_layers(module) if "m" in layer]


def layer_shape(layer: Any) -> tuple[int, ...]:
    """[..., outputs, inputs] of a layer's weight, as many numbers as it stands for where it is quantized."""
    *above, inputs = layer["weight"].shape
    bits = getattr(layer, "bits", None)
    return (*above, inputs if bits is None or "scales" not in layer else inputs * 32 // bits)
