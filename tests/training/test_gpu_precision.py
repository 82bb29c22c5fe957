"""The GPU's number formats, run on the CPU: no line of that path is first run on somebody's Mac."""

from dataclasses import replace
from functools import partial

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten

from mlxtune.adapters.lora import LoRALinear
from mlxtune.data.batch import make_batch
from mlxtune.device.precision import GPU_BFLOAT16
from mlxtune.inference.likelihood import make_reader, target_states
from mlxtune.training.objectives import dpo, grpo, kto, orpo
from mlxtune.training.objectives.sft import sft_loss_sum
from mlxtune.training.step import make_step


@pytest.fixture(scope="module")
def state(tiny_training):
    return tiny_training.state(quantized=True, precision=GPU_BFLOAT16, weight_decay=0.0)


@pytest.fixture(scope="module")
def rows(tiny_training):
    return tiny_training.rows([6, 9, 4, 7], prefix=5)


def test_every_activation_is_bfloat16_and_nothing_widens_it(state, rows):
    network, seen = state.network, {}
    plain = {}
    for path, module in network.named_modules():
        if isinstance(module, LoRALinear | nn.RMSNorm | nn.QuantizedLinear | nn.QuantizedEmbedding):
            plain[path] = module, type(module)
            module.__class__ = watched(type(module), path, seen)
    reader = make_reader(network)
    seen.clear()
    batch = make_batch(rows, range(4), share_prefix=True)
    assert batch.prefix_ids.shape[0] >= 5
    states = target_states(reader, batch.prefix_ids, batch.token_ids, batch.target_index)
    loss = sft_loss_sum(reader, batch)
    for module, kind in plain.values():
        module.__class__ = kind
    assert seen.keys() == plain.keys()
    assert set(seen.values()) == {mx.bfloat16}
    assert states.dtype == mx.bfloat16
    assert loss.dtype == mx.float32


def watched(kind, path, seen):
    """The module's class, noting the type of what each call gives."""

    class Watched(kind):
        def __call__(self, *args, **options):
            result = super().__call__(*args, **options)
            seen[path] = result.dtype if seen.get(path, result.dtype) == result.dtype else None
            return result

    return Watched


@pytest.mark.parametrize(
    "objective",
    [dpo(beta=0.02), orpo(beta=0.5), kto(beta=0.02), grpo(group_size=4, max_tokens=8, beta=0.1, num_iterations=2)],
    ids=["dpo", "orpo", "kto", "grpo"],
)
def test_answers_are_compared_in_float32(tiny_training, rows, objective):
    found = []
    for precision in (None, GPU_BFLOAT16):
        state = tiny_training.state(quantized=True, precision=precision)
        reader = make_reader(state.network)
        beside = (mx.array([-30.0, -50.0, -20.0, -40.0]), mx.array(1.0))[: 2 if objective.needs_reference_point else 1]
        batch = make_batch(rows, range(4), share_prefix=True)
        if objective.drawing is not None:
            told = mx.array([[1.0, 1.0, 0.5, 0.0], [-1.0, 0.0, 0.5, 1.0]] * 2)
            beside = (told, *(mx.full(batch.target_id.shape, value) for value in (-5.5, -5.6)))
        batch = replace(batch, beside=beside)
        step = make_step(state.network, state.optimizer, partial(objective.loss, reader), max_grad_norm=None)
        loss, figures, gradients = step.gradient(batch, mx.random.key(0))
        kinds = {array.dtype for array in (loss, *figures, *(array for _, array in tree_flatten(gradients)))}
        assert kinds == {mx.float32}
        found.append((float(loss), [float(figure) for figure in figures]))
    assert found[1][0] == pytest.approx(found[0][0], rel=2e-2)
    np.testing.assert_allclose(found[1][1], found[0][1], rtol=5e-2, atol=5e-2)


def test_twenty_steps_lower_the_loss_and_leave_factors_and_moments_in_float32(tiny_training, state, rows):
    plan = tiny_training.plan(rows, batch_size=4, epochs=20, learning_rate=2e-2, validate_every=10)
    base = {name: np.array(array.view(mx.uint16)) for name, array in frozen(state) if array.dtype == mx.bfloat16}
    trained = tiny_training.train(state, plan, rows)
    assert len(trained.losses) == 20
    assert np.isfinite(trained.losses).all()
    assert np.mean(trained.losses[-5:]) < 0.9 * np.mean(trained.losses[:5])
    assert {array.dtype for _, array in tree_flatten(state.network.trainable_parameters())} == {mx.float32}
    moments = [array for name, array in tree_flatten(state.optimizer.state) if name.endswith((".m", ".v"))]
    assert {array.dtype for array in moments} == {mx.float32}
    after = dict(frozen(state))
    assert all(np.array_equal(array, np.array(after[name].view(mx.uint16))) for name, array in base.items())


def frozen(state):
    return [item for item in tree_flatten(state.network.parameters()) if "lora" not in item[0]]


def test_gradients_agree_with_those_of_float32(tiny_training, rows):
    plan = tiny_training.plan(rows, batch_size=4)
    lines = [
        tiny_training.train(tiny_training.state(quantized=True, precision=precision), plan, rows).lines[0]
        for precision in (None, GPU_BFLOAT16)
    ]
    assert lines[1]["loss"] == pytest.approx(lines[0]["loss"], rel=1e-2)
    assert lines[1]["grad_norm"] == pytest.approx(lines[0]["grad_norm"], rel=5e-2)
