"""An update takes the place of what was before: parameters, moments and gradient are never there twice."""

import gc

import mlx.core as mx
import pytest
from mlx import nn
from tiny import tiny_llama

from mlxtune.adapters.attach import attach_lora
from mlxtune.adapters.shape import LoraShape
from mlxtune.data.batch import make_batch
from mlxtune.inference.likelihood import make_reader
from mlxtune.training import step as step_module
from mlxtune.training.loop import begin_update
from mlxtune.training.objectives.sft import sft_loss_sum
from mlxtune.training.optimizer import make_optimizer
from mlxtune.training.state import TrainingState, WindowSum
from mlxtune.training.step import leaves, make_step

LAYERS, SIDE = 64, 128
BYTES = 4 * LAYERS * SIDE * SIDE


class Many(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [SimpleLinear() for _ in range(LAYERS)]


class SimpleLinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = mx.random.normal((SIDE, SIDE))


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd", "muon"])
def test_an_update_needs_little_more_than_what_it_replaces(name):
    network, optimizer = Many(), make_optimizer(name, weight_decay=0.01)
    optimizer.init(network.trainable_parameters())
    state = TrainingState(network, optimizer)
    step = make_step(network, optimizer, lambda _: (mx.array(0.0), []), max_grad_norm=1.0)
    found = WindowSum(weight_sum=3.0, gradients={"layers": [{"weight": mx.ones((SIDE, SIDE))} for _ in range(LAYERS)]})
    mx.eval(state.parameters(), found.gradients)
    gc.collect()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    begin_update(state, step, found, 1e-3, step.norm(found.gradients, mx.array(3.0)))
    mx.eval(state.parameters())
    assert mx.get_peak_memory() - before < 0.8 * BYTES  # where what was is kept: 1 with sgd, 2.5 with adamw
    assert mx.get_active_memory() - before < -0.9 * BYTES  # the gradient is gone


def test_dora_keeps_nothing_of_what_an_update_replaces(tiny_training):
    network = tiny_llama(hidden=64, heads=2, kv_heads=1)
    attach_lora(network, LoraShape(rank=64, alpha=64.0, use_dora=True), seed=0)
    optimizer = make_optimizer("adamw", weight_decay=0.0)
    optimizer.init(network.trainable_parameters())
    state, reader = TrainingState(network, optimizer), make_reader(network)
    step = make_step(network, optimizer, lambda batch: (sft_loss_sum(reader, batch), []), max_grad_norm=1.0)
    batch = make_batch(tiny_training.rows([6, 9], prefix=3), range(2), share_prefix=True)
    found = WindowSum(weight_sum=1.0, gradients=step.gradient(batch, mx.random.key(0))[2])
    mx.eval(state.parameters(), found.gradients)
    gc.collect()
    trained = sum(array.nbytes for array in leaves(network.trainable_parameters()))
    before = mx.get_active_memory()
    begin_update(state, step, found, 1e-3, step.norm(found.gradients, mx.array(1.0)))
    mx.eval(state.parameters())
    assert mx.get_active_memory() - before < -0.9 * trained  # the gradient is gone, and no parameter is there twice


def test_an_update_of_many_numbers_is_not_compiled_where_steps_are(monkeypatch):
    compiled = []
    monkeypatch.setattr(mx, "compile", lambda function: compiled.append(function.__name__) or function)
    network, optimizer = Many(), make_optimizer("adamw", weight_decay=0.0)
    for most, expected in ((LAYERS * SIDE * SIDE, True), (LAYERS * SIDE * SIDE - 1, False)):
        compiled.clear()
        monkeypatch.setattr(step_module, "COMPILED_AT_MOST", most)
        make_step(network, optimizer, lambda _: (mx.array(0.0), []), max_grad_norm=1.0, compiled=True)
        assert ("apply" in compiled) is expected
        assert "norm" in compiled
