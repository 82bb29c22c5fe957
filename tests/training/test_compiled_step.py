"""A compiled step does what the same step does uncompiled: nothing that changes was captured when it was traced.

On the CPU compiling needs a compiler at run time and writes to TMPDIR, so it is switched on here alone.
"""

import shutil
from dataclasses import replace
from functools import partial
from typing import get_args

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlxtune.data.batch import make_batch
from mlxtune.inference.likelihood import make_reader
from mlxtune.recipe.choices import OptimizerName
from mlxtune.training.objectives import kto
from mlxtune.training.step import make_step

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="MLX compiles for the CPU with g++")


@pytest.fixture
def compiling(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    mx.enable_compile()
    yield
    mx.disable_compile()


def padded(rows, numbers, *, share_prefix):
    return make_batch(rows, numbers, share_prefix=share_prefix, multiple=16)


def test_a_compiled_run_is_the_run_with_dropout_accumulation_and_weight_decay(tiny_training, compiling):
    rows = tiny_training.rows([20, 28, 24, 20], prefix=20)
    plan = tiny_training.plan(
        rows,
        gradient_accumulation_steps=2,
        epochs=5,
        learning_rate=1e-3,
        lr_schedule="linear",
        warmup_ratio=0.2,
        max_grad_norm=0.05,
    )
    eager, compiled = (tiny_training.state(dropout=0.3) for _ in range(2))
    expected = tiny_training.train(eager, plan, rows, make=padded)
    found = tiny_training.train(compiled, plan, rows, make=padded, compiled=True)
    assert len(set(expected.losses)) == 5
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-5)
    np.testing.assert_allclose(
        [line["grad_norm"] for line in found.lines], [line["grad_norm"] for line in expected.lines], rtol=1e-4
    )
    wanted = tiny_training.adapter(eager)
    for name, array in tiny_training.adapter(compiled).items():
        np.testing.assert_allclose(array, wanted[name], rtol=0, atol=2e-5, err_msg=name)


def test_what_pairs_are_compared_with_is_each_step_s_own(tiny_training, compiling):
    rows, found = tiny_training.rows([20, 28, 24, 20], prefix=20), {}
    batch = padded(rows, range(4), share_prefix=True)
    for compiled in (False, True):
        state, objective = tiny_training.state(blocks=1, layers=1), kto(beta=0.02)
        reader = make_reader(state.network)
        step = make_step(
            state.network,
            state.optimizer,
            partial(objective.loss, reader),
            max_grad_norm=None,
            compiled=compiled,
        )
        found[compiled] = [
            step.gradient(replace(batch, beside=(mx.array(reference), mx.array(point))), mx.random.key(0))
            for reference, point in (([-100.0, -140.0, -120.0, -100.0], 0.0), ([-90.0, -150.0, -90.0, -110.0], 9.0))
        ]
    losses = [float(loss) for loss, _, _ in found[False]]
    assert losses[0] != pytest.approx(losses[1], rel=1e-2)
    for (loss, figures, gradients), (own_loss, own_figures, own) in zip(found[False], found[True], strict=True):
        assert float(own_loss) == pytest.approx(float(loss), rel=1e-5)
        np.testing.assert_allclose([float(one) for one in own_figures], [float(one) for one in figures], rtol=1e-4)
        for (name, array), (_, other) in zip(tree_flatten(own), tree_flatten(gradients), strict=True):
            np.testing.assert_allclose(np.array(array), np.array(other), rtol=0, atol=2e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", sorted(set(get_args(OptimizerName)) - {"adamw"}))
def test_so_is_one_with_another_optimizer(tiny_training, compiling, optimizer):
    """What must not be captured here is the learning rate and the moments."""
    rows = tiny_training.rows([20, 28, 24, 20])
    plan = tiny_training.plan(rows, epochs=4, learning_rate=1e-3, lr_schedule="linear", max_grad_norm=0.05)
    eager, compiled = (tiny_training.state(optimizer=optimizer, weight_decay=0.1, blocks=1, layers=1) for _ in range(2))
    expected = tiny_training.train(eager, plan, rows, make=padded)
    found = tiny_training.train(compiled, plan, rows, make=padded, compiled=True)
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-5)
    wanted = tiny_training.adapter(eager)
    for name, array in tiny_training.adapter(compiled).items():
        np.testing.assert_allclose(array, wanted[name], rtol=0, atol=2e-5, err_msg=name)


def test_padding_to_few_shapes_changes_neither_loss_nor_update(tiny_training):
    rows = tiny_training.rows([3, 17, 5, 9], prefix=20)
    plan = tiny_training.plan(rows, batch_size=4)
    plain, shaped = (tiny_training.state() for _ in range(2))
    expected = tiny_training.train(plain, plan, rows)
    found = tiny_training.train(shaped, plan, rows, make=padded)
    batch = padded(rows, range(4), share_prefix=True)
    assert {size % 16 for size in (*batch.prefix_ids.shape, batch.token_ids.shape[1], *batch.target_id.shape)} == {0}
    assert batch.prefix_ids.shape[0] > 0
    assert found.losses == pytest.approx(expected.losses, rel=1e-6)
    assert found.lines[0]["target_tokens"] == expected.lines[0]["target_tokens"]
    wanted = tiny_training.adapter(plain)
    for name, array in tiny_training.adapter(shaped).items():
        np.testing.assert_allclose(array, wanted[name], rtol=0, atol=1e-6, err_msg=name)
