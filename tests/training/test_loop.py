import itertools
import json
import math
from dataclasses import replace
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx import nn

from mlxtune.adapters.lora import lora_layers
from mlxtune.data.batch import make_batch
from mlxtune.data.order import BatchOrder, BatchSize
from mlxtune.errors import TrainingError
from mlxtune.evaluation.heldout import read_heldout
from mlxtune.inference.likelihood import make_reader
from mlxtune.training import loop
from mlxtune.training.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint
from mlxtune.training.loop import windows
from mlxtune.training.objectives.sft import sft_loss_sum

LENGTHS = (3, 17, 5, 9, 8, 2, 12, 6, 4)
NO_TEXT = SimpleNamespace(decode=lambda _, **__: "")
"""A tokenizer whose texts nobody looks at."""


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def cursor(epoch, window):
    return SimpleNamespace(epoch=epoch, window=window)


@given(
    count=st.integers(1, 30),
    size=st.integers(1, 5),
    steps=st.integers(1, 4),
    done=st.integers(0, 40),
)
def test_every_row_comes_once_an_epoch_and_who_goes_on_from_a_cursor_meets_what_would_have_come(
    count, size, steps, done
):
    order = BatchOrder(tuple(2 + i % 7 for i in range(count)), (tuple(range(count)),), BatchSize(rows=size), seed=5)
    an_epoch = math.ceil(math.ceil(count / size) / steps)
    met = list(itertools.islice(windows(order, steps, cursor(0, 0)), 3 * an_epoch + done))
    for start in range(0, 3 * an_epoch, an_epoch):
        windows_met, following, ends = zip(*met[start : start + an_epoch], strict=True)
        assert sorted(row for window in windows_met for rows in window for row in rows) == list(range(count))
        assert [len(window) for window in windows_met[:-1]] == [steps] * (an_epoch - 1)
        assert ends == (*[False] * (an_epoch - 1), True)
        assert following == (*[window[0] for window in windows_met[1:]], None)
    epoch, window = divmod(done, an_epoch)
    assert list(itertools.islice(windows(order, steps, cursor(epoch, window)), an_epoch)) == met[done : done + an_epoch]


def test_eight_rows_give_the_same_update_as_four_times_two(tiny_training):
    rows = tiny_training.rows(LENGTHS[:8])
    adapters, lines = [], []
    for size, steps in ((8, 1), (2, 4)):
        state = tiny_training.state()
        plan = tiny_training.plan(rows, batch_size=size, gradient_accumulation_steps=steps, learning_rate=1e-3)
        lines += tiny_training.train(state, plan, rows).lines
        adapters.append(tiny_training.adapter(state))
    assert lines[0]["loss"] == pytest.approx(lines[1]["loss"], rel=1e-6)
    assert lines[0]["grad_norm"] == pytest.approx(lines[1]["grad_norm"], rel=1e-6)
    for name, array in adapters[0].items():
        np.testing.assert_allclose(adapters[1][name], array, rtol=0, atol=1e-6, err_msg=name)


def test_a_large_batch_is_read_in_parts_that_give_the_same_update(tiny_training):
    rows = tiny_training.rows(LENGTHS[:8], prefix=10)
    adapters, losses, peaks = [], [], []
    for positions in (10_000, 30):
        state = tiny_training.state()
        state.part_positions = positions
        made = []

        def noted(*args, made=made, **options):
            made.append(make_batch(*args, **options))
            return made[-1]

        plan = tiny_training.plan(rows, batch_size=8, learning_rate=1e-3)
        trained = tiny_training.train(state, plan, rows, make=noted)
        losses += trained.losses
        peaks.append(max(batch.prefix_ids.shape[0] + batch.token_ids.size for batch in made))
        adapters.append(tiny_training.adapter(state))
        assert trained.lines[0]["tokens"] == sum(len(row.token_ids) for row in rows)
    assert peaks[0] > 60
    assert peaks[1] <= 30
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    for name, array in adapters[0].items():
        np.testing.assert_allclose(adapters[1][name], array, rtol=0, atol=1e-6, err_msg=name)


def test_a_line_says_what_a_step_did(tiny_training):
    rows = tiny_training.rows(LENGTHS, prefix=4)
    trained = tiny_training.train(tiny_training.state(), tiny_training.plan(rows, epochs=2), rows)
    assert trained.ended == "epochs"
    assert [line["step"] for line in trained.lines] == list(range(1, 11))  # the fifth of each epoch has one row
    per_epoch = (sum(len(row.token_ids) for row in rows), sum(int(row.is_target.sum()) for row in rows))
    for epoch in (trained.lines[:5], trained.lines[5:]):
        assert (sum(line["tokens"] for line in epoch), sum(line["target_tokens"] for line in epoch)) == per_epoch
    for line in trained.lines:
        assert line["tokens_per_s"] == pytest.approx(line["tokens"] / line["seconds"])
        assert line["peak_memory_bytes"] > 0


def test_counts_travel_in_the_state(tiny_training):
    rows = tiny_training.rows(LENGTHS)
    state = tiny_training.state()
    trained = tiny_training.train(state, tiny_training.plan(rows, batch_size=4, gradient_accumulation_steps=2), rows)
    assert (state.step, state.epoch, state.window) == (2, 1, 0)
    assert state.tokens == sum(line["tokens"] for line in trained.lines) == sum(len(row.token_ids) for row in rows)
    assert state.target_tokens == sum(int(row.is_target.sum()) for row in rows)
    assert state.seconds == sum(line["seconds"] for line in trained.lines)


def test_it_validates_and_saves_when_due_and_at_the_end_and_once_a_step(tiny_training):
    rows = tiny_training.rows([4] * 18)
    losses = iter([3.0, 2.0, 2.5, 2.6, 2.7])
    plan = tiny_training.plan(rows, validate_every=2, save_every=3)
    trained = tiny_training.train(tiny_training.state(), plan, rows, validate=lambda: next(losses))
    assert [(line["step"], line["valid_loss"]) for line in trained.lines if "valid_loss" in line] == [
        (2, 3.0),
        (4, 2.0),
        (6, 2.5),
        (8, 2.6),
        (9, 2.7),
    ]
    assert trained.saved == [2, 3, 4, 6, 9]  # the best so far at 2 and 4, when due at 3 and 6, due and the end at 9


def test_a_run_ends_early_when_validation_stops_getting_better(tiny_training):
    rows = tiny_training.rows([4] * 14)
    losses = iter([3.0, 2.0, 2.0, 2.1, 1.0])
    plan = tiny_training.plan(rows, validate_every=1, early_stopping_patience=2)
    state = tiny_training.state()
    trained = tiny_training.train(state, plan, rows, validate=lambda: next(losses))
    assert (trained.ended, state.step, state.best_step, state.best_valid_loss) == ("early_stopping", 4, 2, 2.0)
    assert trained.saved == [1, 2, 4]


@pytest.fixture
def clock(monkeypatch):
    """The loop's clock, which goes on by ``tick`` seconds whenever it is read: two ticks a step of one batch."""
    clock = SimpleNamespace(now=0.0, tick=1.0)

    def perf_counter():
        clock.now += clock.tick
        return clock.now

    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=perf_counter))
    return clock


def test_minutes_become_steps_once_that_the_schedule_goes_by_and_a_resumed_run_keeps_them(
    tiny_training, clock, tmp_path
):
    """A minute at 2 s a step: 10 s are over after the fifth, and the 50 left are 25 steps."""
    rows = tiny_training.rows([4] * 14)
    plan = tiny_training.plan(rows, epochs=None, max_minutes=1.0, lr_schedule="linear", learning_rate=1.0)
    undisturbed, stopped, resumed = (tiny_training.state() for _ in range(3))
    whole = tiny_training.train(undisturbed, plan, rows)
    assert (whole.ended, undisturbed.step, undisturbed.horizon) == ("max_minutes", 30, 30)
    rates = [line["learning_rate"] for line in whole.lines]
    assert rates == pytest.approx([1 - step / (1000 if step < 5 else 30) for step in range(30)])

    tiny_training.train(stopped, plan, rows, stop_after=12, save=lambda: save_checkpoint(stopped, tmp_path, keep=1))
    checkpoint = newest_checkpoint(tmp_path)
    assert json.loads((checkpoint / "trainer_state.json").read_text())["horizon"] == 30
    load_checkpoint(resumed, checkpoint)
    clock.tick = 0.1  # it would have time for more now
    again = tiny_training.train(resumed, plan, rows)
    assert (again.ended, resumed.step) == ("max_minutes", 30)
    assert [line["learning_rate"] for line in again.lines] == rates[12:]
    assert same(tiny_training.adapter(resumed), tiny_training.adapter(undisturbed))


def test_minutes_that_are_over_before_the_estimated_steps_end_the_run(tiny_training, clock):
    rows = tiny_training.rows([4] * 14)
    state = tiny_training.state()
    plan = tiny_training.plan(rows, epochs=None, max_minutes=1.0)

    def slower(line):
        clock.tick = 5.0 if line["step"] >= 6 else 1.0

    lines = SimpleNamespace(append=slower)
    assert tiny_training.train(state, plan, rows, lines=lines).ended == "max_minutes"
    assert (state.step, state.horizon) == (11, 30)  # 12 s for six steps, then 10 s each


def test_a_run_that_is_asked_to_stop_finishes_its_step_and_saves(tiny_training):
    rows = tiny_training.rows([4] * 14)
    state = tiny_training.state()
    plan = tiny_training.plan(rows, validate_every=5)
    trained = tiny_training.train(state, plan, rows, stop_after=3)
    assert (trained.ended, state.step, trained.saved) == ("stopped", 3, [3])
    assert all("valid_loss" not in line for line in trained.lines)


def test_a_run_that_is_asked_to_stop_just_after_a_checkpoint_does_not_save_twice(tiny_training):
    rows = tiny_training.rows([4] * 14)
    plan = tiny_training.plan(rows, save_every=3)
    assert tiny_training.train(tiny_training.state(), plan, rows, stop_after=3).saved == [3]


def test_a_run_that_has_ended_does_nothing_when_it_is_resumed(tiny_training):
    rows = tiny_training.rows([4] * 4)
    state = tiny_training.state()
    plan = tiny_training.plan(rows, validate_every=1)
    tiny_training.train(state, plan, rows)
    again = tiny_training.train(state, plan, rows)
    assert (again.ended, again.lines, again.saved) == ("epochs", [], [])


def poisoned(rows, *bad):
    """Batches with the given rows in them have a loss that is not a number."""

    def make(dataset, numbers, **options):
        batch = make_batch(dataset, numbers, **options)
        return replace(batch, target_weight=batch.target_weight * (mx.nan if set(bad) & set(numbers) else 1.0))

    return make


def test_a_step_that_is_not_finite_is_left_out_and_its_rows_are_named(tiny_training):
    rows = tiny_training.rows([4] * 10)
    state, undisturbed = tiny_training.state(), tiny_training.state()
    plan = tiny_training.plan(rows)
    trained = tiny_training.train(state, plan, rows, make=poisoned(rows, 3))
    (skipped,) = [line for line in trained.lines if "skipped" in line]
    assert (trained.ended, len(trained.losses), state.step, state.skipped) == ("epochs", 4, 5, 0)
    assert skipped["skipped"] == "loss"
    assert rows[3].where in skipped["rows"]
    assert len(skipped["rows"]) == 2
    assert state.optimizer.state["states"][0]["step"].item() == 4
    assert state.target_tokens == sum(line.get("target_tokens", 0) for line in trained.lines)
    assert all(np.isfinite(array).all() for array in tiny_training.adapter(state).values())
    assert not same(tiny_training.adapter(state), tiny_training.adapter(undisturbed))


@pytest.mark.parametrize("bad", [mx.nan, mx.inf])
def test_three_in_a_row_end_the_run_with_a_diagnosis_and_nothing_changed(tiny_training, bad):
    rows = tiny_training.rows([4] * 10)
    state = tiny_training.state()
    weight = lora_layers(state.network)[0][1]
    before = tiny_training.adapter(state)
    lines = []
    with pytest.raises(TrainingError, match="in 3 steps in a row, up to step 3") as error:
        tiny_training.train(
            state, tiny_training.plan(rows), rows, objective=lambda _: (bad * mx.sum(weight.lora_a), []), lines=lines
        )
    named = error.value.where.split(", ")
    assert len(named) == 2
    assert set(named) <= {row.where for row in rows}
    assert "base model" in error.value.remedy  # no step was ever good
    assert same(tiny_training.adapter(state), before)
    assert [line["step"] for line in lines if "skipped" in line] == [1, 2, 3]
    assert state.optimizer.state["states"][0]["step"].item() == 0


def test_the_checkpoint_that_is_left_when_a_run_ends_so_is_of_the_last_good_step(tiny_training, tmp_path):
    """Every step is saved here, those that are left out too: what they are left out of is what is saved."""
    rows = tiny_training.rows([4] * 14)
    state, resumed = tiny_training.state(), tiny_training.state(seed=1)
    reader = make_reader(state.network)
    made, good = [], []

    def objective(batch):
        made.append(1)
        return sft_loss_sum(reader, batch) * (mx.nan if len(made) > 3 else 1.0), []

    def save():
        if state.step == 3:
            good.append(tiny_training.adapter(state))
        save_checkpoint(state, tmp_path, keep=1)

    with pytest.raises(TrainingError, match="up to step 6") as caught:
        tiny_training.train(state, tiny_training.plan(rows, save_every=1), rows, objective=objective, save=save)
    assert "learning_rate" in caught.value.remedy
    load_checkpoint(resumed, newest_checkpoint(tmp_path))
    assert same(tiny_training.adapter(resumed), good[0])


def test_a_gradient_that_is_not_finite_counts_like_a_loss(tiny_training):
    rows = tiny_training.rows([4] * 6)
    state = tiny_training.state()
    layer = lora_layers(state.network)[0][1]
    with pytest.raises(TrainingError, match="the gradient was not"):
        tiny_training.train(
            state, tiny_training.plan(rows), rows, objective=lambda _: (mx.sum(mx.sqrt(layer.lora_a * 0.0)), [])
        )


def test_a_validation_loss_that_is_not_finite_is_an_error_and_no_checkpoint(tiny_training):
    rows = tiny_training.rows([4] * 4)
    plan = tiny_training.plan(rows, validate_every=1)
    with pytest.raises(TrainingError, match="after step 1 the loss on the validation rows is nan"):
        tiny_training.train(tiny_training.state(), plan, rows, validate=lambda: float("nan"), save=lambda: 1 / 0)


def test_evaluation_changes_no_bit_of_the_training(tiny_training):
    rows, valid = tiny_training.rows(LENGTHS, prefix=3), tiny_training.rows([5, 9, 7], seed=9)
    adapters = []
    for every in (1, None):
        state = tiny_training.state(dropout=0.3)
        reader = make_reader(state.network)
        plan = tiny_training.plan(rows, validate_every=every)
        trained = tiny_training.train(
            state, plan, rows, validate=lambda reader=reader: read_heldout(reader, NO_TEXT, valid).loss
        )
        adapters.append((trained.losses, tiny_training.adapter(state)))
    assert adapters[0][0] == adapters[1][0]
    assert same(adapters[0][1], adapters[1][1])


def test_dropout_is_the_same_at_the_same_step_and_off_between_steps(tiny_training):
    rows = tiny_training.rows([6, 6])
    ids = mx.array(rows[0].token_ids[None])

    def losses(seed, steps=2):
        state = tiny_training.state(dropout=0.5)
        plan = tiny_training.plan(rows, seed=seed, epochs=steps, learning_rate=1e-30)
        whole = state.network(ids)
        trained = tiny_training.train(state, plan, rows)
        assert mx.array_equal(state.network(ids), whole)  # off again
        return trained.losses

    first, second = losses(seed=1)
    assert losses(seed=1) == [first, second]
    assert first != second
    assert losses(seed=2) != [first, second]
    mx.random.seed(3)
    mx.eval(mx.random.uniform(shape=(4,)))
    assert losses(seed=1) == [first, second]  # the global random state has no say


def test_every_layer_of_every_batch_of_every_step_drops_something_else(tiny_training):
    rows = tiny_training.rows([8] * 4)
    state = tiny_training.state(dropout=0.5)
    reader = make_reader(state.network)
    keys = []

    def objective(batch):
        keys.extend(tuple(layer._dropout_key.tolist()) for _, layer in lora_layers(state.network))
        return sft_loss_sum(reader, batch), []

    plan = tiny_training.plan(rows, batch_size=1, gradient_accumulation_steps=2)
    tiny_training.train(state, plan, rows, objective=objective)
    assert len(set(keys)) == len(keys) == 2 * 2 * len(lora_layers(state.network))


def test_one_batch_is_learned_by_heart(tiny_training):
    rows = tiny_training.rows([8, 8], prefix=4)
    state = tiny_training.state(weight_decay=0.0)
    state.network.model.norm.weight = 10 * state.network.model.norm.weight  # a small random head is sure of nothing
    trained = tiny_training.train(state, tiny_training.plan(rows, epochs=60, learning_rate=3e-2), rows)
    assert trained.losses[0] > 4.0
    assert trained.losses[-1] < 0.1


def test_the_base_stays_as_it_is(tiny_training):
    rows = tiny_training.rows(LENGTHS)
    state = tiny_training.state()
    layer = lora_layers(state.network)[0][1]
    assert isinstance(layer.linear, nn.Linear)
    before = [np.array(layer.linear.weight), np.array(state.network.model.embed_tokens.weight)]
    tiny_training.train(state, tiny_training.plan(rows), rows)
    assert np.array_equal(before[0], np.array(layer.linear.weight))
    assert np.array_equal(before[1], np.array(state.network.model.embed_tokens.weight))
