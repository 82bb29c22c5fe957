"""The network's own weights in training: float32 masters, what a step computes with, and the GPU's number formats."""

import shutil

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten
from tiny import tiny_llama

from mlxtune.adapters.full import FullShape, unfreeze_weights
from mlxtune.data.batch import make_batch
from mlxtune.device.precision import GPU_BFLOAT16, apply_precision
from mlxtune.inference.likelihood import make_reader, target_states
from mlxtune.training.frozen_prefix import frozen_depth, read_frozen_prefix
from mlxtune.training.masters import as_they_are, brought_to, in_use, keep_masters
from mlxtune.training.objectives.sft import sft_loss_sum
from mlxtune.training.optimizer import make_optimizer
from mlxtune.training.recompute import recompute_blocks
from mlxtune.training.step import make_step


@pytest.fixture(scope="module")
def rows(tiny_training):
    return tiny_training.rows([6, 9, 4, 7], prefix=5)


def full(*, precision=None, layers="all", embeddings=False, **network):
    """A tiny network whose own weights train, with what it computes with."""
    model = tiny_llama(**({"hidden": 32, "heads": 2, "kv_heads": 1} | network))
    if precision is not None:
        apply_precision(model, precision)
        model.freeze()
    unfreeze_weights(model, FullShape(layers, embeddings))
    reader = make_reader(model)
    keep_masters(model)
    at_use = as_they_are if precision is None else brought_to(model, precision.dtype)
    return model, reader, at_use


def step_of(network, reader, at_use, *, compiled=False):
    optimizer = make_optimizer("adamw", weight_decay=0.0)
    optimizer.init(network.trainable_parameters())
    optimizer.learning_rate = 5e-3
    made = make_step(
        network,
        optimizer,
        lambda batch: (sft_loss_sum(reader, batch), []),
        max_grad_norm=1.0,
        compiled=compiled,
        at_use=at_use,
    )
    return made, optimizer


KEY = mx.random.key(0)
NEEDS_COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="MLX compiles for the CPU with g++")


@pytest.mark.parametrize("embeddings", [False, True])
def test_nothing_that_a_step_computes_is_wider_than_the_device_wants(rows, embeddings):
    network, reader, at_use = full(precision=GPU_BFLOAT16, embeddings=embeddings)
    batch = make_batch(rows, range(4), share_prefix=True)
    with in_use(network, at_use):
        states = target_states(reader, batch.prefix_ids, batch.token_ids, batch.target_index)
        assert {array.dtype for _, array in tree_flatten(network.parameters())} == {mx.bfloat16}
    assert states.dtype == mx.bfloat16
    assert {array.dtype for _, array in tree_flatten(network.trainable_parameters())} == {mx.float32}


@pytest.fixture(params=[False, pytest.param(True, marks=NEEDS_COMPILER)], ids=["eager", "compiled"])
def compiled(request, tmp_path, monkeypatch):
    if request.param:
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        mx.enable_compile()
    yield request.param
    mx.disable_compile()


@pytest.mark.parametrize("embeddings", [False, True])
def test_steps_lower_the_loss_and_leave_masters_and_moments_in_float32(rows, compiled, embeddings):
    network, reader, at_use = full(precision=GPU_BFLOAT16, embeddings=embeddings)
    step, optimizer = step_of(network, reader, at_use, compiled=compiled)
    batch, losses = make_batch(rows, range(4), share_prefix=True), []
    for _ in range(12):
        loss, _, gradients = step.gradient(batch, KEY)
        weight_sum = mx.array(batch.weight_sum)
        norm = step.norm(gradients, weight_sum)
        parameters, state = step.apply(network.trainable_parameters(), optimizer.state, gradients, weight_sum, norm)
        network.update(parameters)
        optimizer.state = state
        losses.append(float(loss))
    assert losses[-1] < 0.7 * losses[0]
    arrays = [array for tree in (network.trainable_parameters(), gradients) for _, array in tree_flatten(tree)]
    arrays += [array for name, array in tree_flatten(optimizer.state) if name.endswith((".m", ".v"))]
    assert {array.dtype for array in arrays} == {mx.float32}


def test_a_step_smaller_than_bfloat16_can_tell_is_kept():
    network, _, at_use = full(precision=GPU_BFLOAT16)
    weight = network.model.layers[0].mlp.up_proj
    before = np.array(weight.weight)
    weight.weight = weight.weight * (1 + 2**-12)
    with in_use(network, at_use):
        assert np.array_equal(np.array(weight.weight.astype(mx.float32)), before)
    np.testing.assert_allclose(np.array(weight.weight), before * (1 + 2**-12), rtol=1e-7)


def test_the_gradient_is_that_of_float32_to_what_bfloat16_holds(rows):
    found = []
    for precision in (None, GPU_BFLOAT16):
        network, reader, at_use = full(precision=precision)
        loss, _, gradients = step_of(network, reader, at_use)[0].gradient(
            make_batch(rows, range(4), share_prefix=True), KEY
        )
        norm = sum(float(mx.sum(mx.square(array))) for _, array in tree_flatten(gradients)) ** 0.5
        found.append((float(loss), norm))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-2)
    assert found[1][1] == pytest.approx(found[0][1], rel=5e-2)


@pytest.mark.parametrize("embeddings", [False, True])
def test_gradients_are_the_same_with_shared_prefixes_recomputation_and_frozen_blocks(rows, embeddings):
    network, reader, _ = full(layers=1, embeddings=embeddings)
    plain = make_batch(rows, range(4), share_prefix=False)
    shared = make_batch(rows, range(4), share_prefix=True)

    def gradients(reader, batch):
        return dict(tree_flatten(nn.value_and_grad(network, lambda: sft_loss_sum(reader, batch))()[1]))

    expected = gradients(reader, plain)
    frozen = read_frozen_prefix(reader, rows, model_sha256="0" * 64)
    assert frozen_depth(reader.anatomy) == (0 if embeddings else 1)
    assert (frozen.states is None) is embeddings
    ways = {"shared": gradients(reader, shared), "frozen": gradients(frozen.reader, frozen.lift(shared))}
    assert recompute_blocks(network, 1) == 1
    ways["recomputed"] = gradients(reader, shared)
    for way, found in ways.items():
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_allclose(np.array(found[name]), np.array(array), rtol=0, atol=2e-5, err_msg=(way, name))
