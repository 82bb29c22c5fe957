"""Recomputed blocks: the same loss and gradients to the last bit or nearly, for less memory."""

import shutil
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlxtune.data.batch import make_batch
from mlxtune.inference.generate import generate
from mlxtune.inference.likelihood import make_reader
from mlxtune.training.objectives.sft import sft_loss_sum
from mlxtune.training.recompute import recompute_blocks
from mlxtune.training.step import make_step

KEY = mx.random.key(3)


def gradient_of(state, batch, *, compiled=False, piece=None):
    reader = make_reader(state.network)
    reader = reader if piece is None else replace(reader, piece=piece)
    step = make_step(
        state.network,
        state.optimizer,
        lambda batch: (sft_loss_sum(reader, batch), []),
        max_grad_norm=None,
        compiled=compiled,
    )
    loss, _, gradients = step.gradient(batch, KEY)
    mx.eval(loss, gradients)
    return float(loss), dict(tree_flatten(gradients))


def assert_same(found, expected):
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    assert found[1].keys() == expected[1].keys()
    for name, array in expected[1].items():
        scale = float(mx.abs(array).max())
        np.testing.assert_allclose(np.array(found[1][name]), np.array(array), rtol=0, atol=1e-6 * scale, err_msg=name)


@pytest.mark.parametrize("prefix", [0, 12])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("every", [1, 2])
def test_gradients_are_those_of_a_run_that_keeps_everything(tiny_training, prefix, dropout, every):
    rows = tiny_training.rows([5, 9, 7, 6], prefix=prefix)
    batch = make_batch(rows, range(4), share_prefix=True)
    assert (batch.prefix_ids.shape[0] >= 12) == (prefix > 0)
    expected = gradient_of(tiny_training.state(dropout=dropout, layers=4), batch)
    state = tiny_training.state(dropout=dropout, layers=4)
    names = [name for name, _ in tree_flatten(state.network.parameters())]
    assert recompute_blocks(state.network, every) == 4 // every
    assert [name for name, _ in tree_flatten(state.network.parameters())] == names
    assert_same(gradient_of(state, batch), expected)


@pytest.mark.parametrize("prefix", [0, 12])
def test_rows_in_pieces_have_the_gradients_of_whole_rows_recomputed_or_not(tiny_training, prefix):
    batch = make_batch(tiny_training.rows([25, 19, 30], prefix=prefix), range(3), share_prefix=True)
    expected = gradient_of(tiny_training.state(layers=4), batch)
    pieces = gradient_of(tiny_training.state(layers=4), batch, piece=8)
    state = tiny_training.state(layers=4)
    recompute_blocks(state.network, 2)
    assert_same(gradient_of(state, batch, piece=8), pieces)
    assert pieces[0] == pytest.approx(expected[0], rel=1e-5)
    for name, array in expected[1].items():
        np.testing.assert_allclose(pieces[1][name], array, rtol=0, atol=1e-5 * float(mx.abs(array).max()), err_msg=name)


def test_whole_runs_agree(tiny_training):
    rows = tiny_training.rows([5, 9, 7, 6, 8, 3], prefix=6)
    plan = tiny_training.plan(rows, gradient_accumulation_steps=2, epochs=3)
    adapters = []
    for every in (None, 1):
        state = tiny_training.state(dropout=0.2)
        if every:
            recompute_blocks(state.network, every)
        tiny_training.train(state, plan, rows)
        adapters.append(tiny_training.adapter(state))
    for name, array in adapters[0].items():
        np.testing.assert_allclose(adapters[1][name], array, rtol=0, atol=2e-6, err_msg=name)


def test_it_takes_less_memory_the_more_blocks_are_recomputed(tiny_training):
    rows = tiny_training.rows([120] * 4)
    batch = make_batch(rows, range(4), share_prefix=True)
    peaks = []
    for every in (None, 2, 1):
        state = tiny_training.state(layers=8)
        if every:
            recompute_blocks(state.network, every)
        gradient_of(state, batch)
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        gradient_of(state, batch)
        peaks.append(mx.get_peak_memory() - before)
    assert peaks[1] < 0.8 * peaks[0]
    assert peaks[2] < 0.8 * peaks[1]


def test_blocks_without_an_adapter_have_nothing_to_recompute(tiny_training):
    state = tiny_training.state(blocks=4, layers=2)
    assert recompute_blocks(state.network, 1) == 2


def test_generation_is_as_before(tiny_training):
    state = tiny_training.state()

    class Tokenizer:
        eos_token_ids = frozenset()
        decode = staticmethod(lambda ids, **_: " ".join(map(str, ids)))

    prompts = [[5, 6, 7], [5, 6, 9, 11]]
    expected = generate(state.network, Tokenizer, prompts, max_tokens=5)
    recompute_blocks(state.network, 1)
    assert generate(state.network, Tokenizer, prompts, max_tokens=5) == expected


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="MLX compiles for the CPU with g++")
def test_compiled_it_gives_the_same(tiny_training, tmp_path, monkeypatch):
    rows = tiny_training.rows([5, 9, 7, 6], prefix=12)
    batch = make_batch(rows, range(4), share_prefix=True)
    expected = gradient_of(tiny_training.state(dropout=0.4), batch)
    state = tiny_training.state(dropout=0.4)
    recompute_blocks(state.network, 1)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    mx.enable_compile()
    try:
        assert_same(gradient_of(state, batch, compiled=True), expected)
    finally:
        mx.disable_compile()
