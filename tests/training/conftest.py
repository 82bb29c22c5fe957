"""What training tests start from: ragged rows, a tiny network with LoRA on it, a plan, and a run of the loop."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from tiny import tiny_llama

from mlxtune.adapters.attach import LoraShape, adapter_parameters, attach_lora, load_adapter_parameters
from mlxtune.data.batch import count_positions, make_batch
from mlxtune.data.order import BatchSize, batch_order
from mlxtune.data.render import Rendered
from mlxtune.device.precision import apply_precision
from mlxtune.inference.likelihood import make_reader
from mlxtune.training.loop import Training, train
from mlxtune.training.objectives.sft import sft_loss_sum
from mlxtune.training.optimizer import make_optimizer
from mlxtune.training.pause import NEVER
from mlxtune.training.plan import Plan
from mlxtune.training.state import TrainingState
from mlxtune.training.step import make_step


def rows_of(lengths, *, prefix=0, seed=0) -> tuple[Rendered, ...]:
    """Random rows of these lengths that begin alike for ``prefix`` tokens; some of what follows are targets."""
    generator = np.random.default_rng(seed)
    start = generator.integers(3, 259, prefix)
    rows = []
    for number, length in enumerate(lengths, 1):
        ids = np.concatenate([start, generator.integers(3, 259, length)]).astype(np.int32)
        is_target = np.zeros(len(ids), bool)
        is_target[prefix + 1 :] = generator.random(length - 1) < 0.5
        is_target[-1] = True
        rows.append(Rendered(ids, is_target, f"rows.jsonl:{number}"))
    return tuple(rows)


def state_of(
    *, seed=0, dropout=0.0, layers="all", precision=None, optimizer="adamw", weight_decay=0.01, **network
) -> TrainingState:
    """A tiny llama with LoRA of rank 2 whose B is not zero, so that A has a gradient from the first step on.

    ``blocks`` are all that it has, ``layers`` those with an adapter.
    """
    blocks = network.pop("blocks", None if layers == "all" else layers)
    if blocks is not None:
        network["layers"] = blocks
    model = tiny_llama(seed=seed, **({"hidden": 32, "heads": 2, "kv_heads": 1} | network))
    if precision is not None:
        apply_precision(model, precision)
        model.freeze()
        model.eval()
    attach_lora(model, LoraShape(rank=2, alpha=4.0, dropout=dropout, layers=layers), seed=seed)
    generator = np.random.default_rng(seed)
    load_adapter_parameters(
        model,
        {
            name: array if name.endswith("lora_a") else mx.array(generator.normal(0, 0.1, array.shape))
            for name, array in adapter_parameters(model).items()
        },
    )
    mx.eval(model.parameters())
    made = make_optimizer(optimizer, weight_decay=weight_decay)
    made.init(model.trainable_parameters())
    return TrainingState(model, made)


@dataclass(frozen=True)
class SizedPlan(Plan):
    """A plan that remembers the size of its batches."""

    size: BatchSize


def plan_of(rows, *, batch_size=2, gradient_accumulation_steps=1, epochs=1, max_steps=None, **settings) -> SizedPlan:
    """A plan for so many rows (or those rows): 2 rows an update, one epoch at a constant rate."""
    batches = -(-(rows if isinstance(rows, int) else len(rows)) // batch_size)
    limits = [max_steps, None if epochs is None else epochs * -(-batches // gradient_accumulation_steps)]
    return SizedPlan(
        **{
            "seed": 5,
            "size": BatchSize(rows=batch_size),
            "gradient_accumulation_steps": gradient_accumulation_steps,
            "epochs": epochs,
            "max_steps": max_steps,
            "total_steps": min((limit for limit in limits if limit is not None), default=None),
            "max_minutes": None,
            "learning_rate": 1e-2,
            "lr_schedule": "constant",
            "warmup_ratio": 0.0,
            "max_grad_norm": 1.0,
            "validate_every": None,
            "save_every": 1000,
            "early_stopping_patience": None,
        }
        | settings
    )


@dataclass
class Trained:
    """What a run of the loop did."""

    ended: str
    lines: list[dict[str, Any]]
    saved: list[int] = field(default_factory=list)

    @property
    def losses(self) -> list[float]:
        return [line["loss"] for line in self.lines if "loss" in line]


def train_on(
    state,
    plan,
    rows,
    *,
    objective=None,
    share_prefix=True,
    validate=lambda: 1.0,
    save=lambda: None,
    stop_after=None,
    should_stop=None,
    pause=NEVER,
    make=make_batch,
    compiled=False,
    lines=None,
) -> Trained:
    """The loop, with what it records and when it saves."""
    lines, saved = [] if lines is None else lines, []
    reader = make_reader(state.network)
    step = make_step(
        state.network,
        state.optimizer,
        objective or (lambda batch: (sft_loss_sum(reader, batch), [])),
        max_grad_norm=plan.max_grad_norm,
        compiled=compiled,
    )
    training = Training(
        plan=plan,
        order=batch_order(rows, plan.size, seed=plan.seed, share_prefix=share_prefix),
        step=step,
        make_batch=lambda numbers: make(rows, numbers, share_prefix=share_prefix),
        positions=lambda numbers: count_positions(rows, numbers, share_prefix=share_prefix),
        places=[row.where for row in rows],
        record=lines.append,
        validate=validate,
        save=lambda: (saved.append(state.step), save()),
        should_stop=should_stop or (lambda: state.step == stop_after),
        pause=pause,
    )
    return Trained(train(state, training), lines, saved)


def adapter_of(state) -> dict[str, np.ndarray]:
    return {name: np.array(array) for name, array in adapter_parameters(state.network).items()}


@pytest.fixture(scope="session")
def tiny_training():
    """The functions above: ``rows``, ``state``, ``plan``, ``train``, ``adapter``."""
    return SimpleNamespace(rows=rows_of, state=state_of, plan=plan_of, train=train_on, adapter=adapter_of)
