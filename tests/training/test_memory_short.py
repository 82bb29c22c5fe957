"""Where an allocation fails, batches are read in smaller parts, the update stays the same, and the run goes on.

So is held-out data, whose losses stay the same.
"""

import json
from dataclasses import replace
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest

from mlxtune.cli.failure import report_failure
from mlxtune.errors import DeviceError, TrainingError
from mlxtune.evaluation.heldout import read_heldout
from mlxtune.inference.likelihood import make_reader
from mlxtune.training.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint
from mlxtune.training.objectives.sft import sft_loss_sum
from mlxtune.training.state import PART_POSITIONS

METAL = "[metal::malloc] Attempting to allocate 17179869184 bytes which is greater than the maximum allowed buffer size"
CPU = "[malloc] Unable to allocate 17179869184 bytes."
LENGTHS = (3, 17, 5, 9, 8, 2, 12, 6, 4, 11, 7)


class Memory:
    """An objective for which memory is short: at some of its calls, or for batches with too many rows."""

    def __init__(self, state, *, calls=(), rows=1000, told=METAL):
        self.reader, self.calls, self.rows, self.told = make_reader(state.network), calls, rows, told
        self.sizes, self.positions = [], []

    def of_several_rows(self, first):
        """Positions of the parts from call ``first`` on that could have been cut."""
        parts = zip(self.sizes[first:], self.positions[first:], strict=True)
        return [positions for size, positions in parts if size > 1]

    def __call__(self, batch):
        self.sizes.append(batch.token_ids.shape[0])
        self.positions.append(batch.prefix_ids.shape[0] + batch.token_ids.size)
        if len(self.sizes) in self.calls or self.sizes[-1] > self.rows:
            raise RuntimeError(self.told)
        return sft_loss_sum(self.reader, batch), []


def assert_close(found, wanted):
    """To what a sum in other parts may differ by, after a few updates."""
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=2e-6, err_msg=name)


@pytest.fixture
def rows(tiny_training):
    return tiny_training.rows(LENGTHS, prefix=3)


@pytest.fixture
def plan(tiny_training, rows):
    """Two updates an epoch, the first of two batches; the last batch has three rows."""
    return tiny_training.plan(rows, batch_size=4, gradient_accumulation_steps=2, epochs=2, learning_rate=1e-3)


@pytest.fixture
def undisturbed(tiny_training, rows, plan):
    state = tiny_training.state()
    return state, tiny_training.train(state, plan, rows)


@pytest.mark.parametrize("told", [METAL, CPU])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_batch_is_halved_once_and_the_update_is_the_same_to_rounding(
    tiny_training, rows, plan, undisturbed, call, told
):
    """At the first and the second batch of a window, and in the next one: what was read of it before counts once."""
    state = tiny_training.state()
    memory = Memory(state, calls=(call,), told=told)
    trained = tiny_training.train(state, plan, rows, objective=memory)
    short = [line for line in trained.lines if "out_of_memory" in line]
    assert short == [{"step": 1 if call < 3 else 2, "out_of_memory": True, "part_positions": state.part_positions}]
    assert set(memory.sizes[:call]) <= {4, 3}
    assert min(memory.sizes[call:]) < 3
    assert max(memory.of_several_rows(call)) <= state.part_positions < PART_POSITIONS
    assert trained.losses == pytest.approx(undisturbed[1].losses, rel=1e-5)
    own = {"part_positions": state.part_positions, "seconds": state.seconds, "later_seconds": state.later_seconds}
    assert state.counters() == undisturbed[0].counters() | own
    assert_close(tiny_training.adapter(state), tiny_training.adapter(undisturbed[0]))


def test_it_is_halved_until_it_fits(tiny_training, rows, plan, undisturbed):
    state = tiny_training.state()
    trained = tiny_training.train(state, plan, rows, objective=Memory(state, rows=1))
    parts = [line["part_positions"] for line in trained.lines if "out_of_memory" in line]
    assert len(parts) > 1
    assert parts == sorted(set(parts), reverse=True)
    assert trained.losses == pytest.approx(undisturbed[1].losses, rel=1e-5)
    assert_close(tiny_training.adapter(state), tiny_training.adapter(undisturbed[0]))


def test_memory_that_is_short_in_the_update_itself_makes_no_update_twice(
    tiny_training, rows, plan, undisturbed, monkeypatch
):
    state = tiny_training.state()
    apply, calls = state.optimizer.apply_gradients, []

    def apply_gradients(gradients, parameters):
        calls.append(1)
        updated = apply(gradients, parameters)
        if len(calls) == 2:
            raise RuntimeError(METAL)
        return updated

    monkeypatch.setattr(state.optimizer, "apply_gradients", apply_gradients)
    trained = tiny_training.train(state, plan, rows)
    assert len(calls) == len(undisturbed[1].losses) + 1
    assert trained.losses == pytest.approx(undisturbed[1].losses, rel=1e-5)
    assert_close(tiny_training.adapter(state), tiny_training.adapter(undisturbed[0]))


def test_short_where_the_parameters_are_being_replaced_ends_the_run_at_the_last_checkpoint(
    tiny_training, rows, plan, monkeypatch, tmp_path
):
    """Nothing is kept of what was before an update, so there is no way back but by a checkpoint."""
    state = tiny_training.state()
    apply, calls, work_out = state.optimizer.apply_gradients, [], mx.async_eval

    def apply_gradients(gradients, parameters):
        calls.append(1)
        return apply(gradients, parameters)

    def async_eval(*arrays):
        if len(calls) == 3:
            raise RuntimeError(METAL)
        work_out(*arrays)

    monkeypatch.setattr(state.optimizer, "apply_gradients", apply_gradients)
    monkeypatch.setattr(mx, "async_eval", async_eval)
    lines = []
    with pytest.raises(TrainingError, match="step 3: there is not enough memory to update all that trains") as caught:
        tiny_training.train(
            state,
            replace(plan, save_every=1),
            rows,
            lines=lines,
            save=lambda: save_checkpoint(state, tmp_path, keep=1),
        )
    assert "method.layers" in caught.value.remedy
    assert [line["step"] for line in lines] == [1, 2]
    monkeypatch.undo()
    resumed = tiny_training.state()
    load_checkpoint(resumed, newest_checkpoint(tmp_path))
    assert resumed.step == 2
    tiny_training.train(resumed, plan, rows)
    undisturbed = tiny_training.state()
    tiny_training.train(undisturbed, plan, rows)
    for name, array in tiny_training.adapter(undisturbed).items():
        assert np.array_equal(array, tiny_training.adapter(resumed)[name])


def test_short_for_ever_ends_the_run_names_the_rows_and_changes_nothing(tiny_training, rows, plan, tmp_path):
    state = tiny_training.state()
    memory = Memory(state)
    lines = []

    def save():
        save_checkpoint(state, tmp_path, keep=1)
        memory.rows = 0  # from now on there is no memory at all

    with pytest.raises(TrainingError, match="step 2: there is not enough memory for a single row") as caught:
        tiny_training.train(
            state,
            tiny_training.plan(rows, batch_size=4, save_every=1),
            rows,
            objective=memory,
            lines=lines,
            save=save,
        )
    named = caught.value.where.split(", ")
    assert len(named) in (3, 4)
    assert set(named) <= {row.where for row in rows}
    assert "max_seq_length" in caught.value.remedy
    assert memory.sizes[-1] == 1
    resumed = tiny_training.state(seed=1)
    load_checkpoint(resumed, newest_checkpoint(tmp_path))
    for name, array in tiny_training.adapter(state).items():
        assert np.array_equal(array, tiny_training.adapter(resumed)[name])
    short = [line["part_positions"] for line in lines if "out_of_memory" in line]
    assert len(short) > 1
    assert short == sorted(set(short), reverse=True)


def test_a_resumed_run_reads_in_as_many_parts_and_forgets_no_part_of_a_window(
    tiny_training, rows, plan, undisturbed, tmp_path
):
    state, resumed = tiny_training.state(), tiny_training.state()
    memory = Memory(state, calls=(2,))
    asked = []

    def third_part_is_next():
        asked.append(1)
        return len(asked) == 5  # the two batches, of which the second failed; and two of their four parts

    tiny_training.train(
        state,
        plan,
        rows,
        objective=memory,
        should_stop=third_part_is_next,
        save=lambda: save_checkpoint(state, tmp_path, keep=1),
    )
    path = newest_checkpoint(tmp_path)
    counters = json.loads((path / "trainer_state.json").read_text())
    assert (path.name, counters["window_sum"]["batches"]) == ("step_000000", 2)
    assert counters["part_positions"] == state.part_positions < PART_POSITIONS
    load_checkpoint(resumed, path)
    memory = Memory(resumed)
    tiny_training.train(resumed, plan, rows, objective=memory)
    assert max(memory.of_several_rows(0)) <= state.part_positions
    assert_close(tiny_training.adapter(resumed), tiny_training.adapter(undisturbed[0]))


def test_another_error_is_no_lack_of_memory(tiny_training, rows, plan):
    state = tiny_training.state()
    with pytest.raises(RuntimeError, match="something else"):
        tiny_training.train(state, plan, rows, objective=Memory(state, calls=(1,), told="something else"))
    assert state.part_positions == PART_POSITIONS


# --- while held-out rows are read


class ShortBackbone:
    """A network's blocks, for which memory is short where more than so many positions go through them at once."""

    def __init__(self, reader, positions, told=METAL):
        self.backbone, self.positions, self.told = reader.anatomy.backbone, positions, told
        self.shapes = []

    def __call__(self, token_ids, *arguments, **options):
        self.shapes.append(token_ids.shape)
        if token_ids.size > self.positions:
            raise RuntimeError(self.told)
        return self.backbone(token_ids, *arguments, **options)


def reader_short_of_memory(state, positions, told=METAL):
    reader = make_reader(state.network)
    backbone = ShortBackbone(reader, positions, told)
    return replace(reader, anatomy=replace(reader.anatomy, backbone=backbone)), backbone


NO_TEXT = SimpleNamespace(decode=lambda _, **__: "")
"""A tokenizer whose texts nobody looks at."""


@pytest.mark.parametrize("prefix", [0, 3])
@pytest.mark.parametrize("told", [METAL, CPU])
def test_held_out_rows_are_read_in_halves_that_give_the_same_losses(tiny_training, prefix, told):
    held_out = tiny_training.rows(range(5, 25), prefix=prefix)
    state = tiny_training.state()
    expected = read_heldout(make_reader(state.network), NO_TEXT, held_out, max_tokens=100)
    reader, backbone = reader_short_of_memory(state, 50, told)
    done = []
    found = read_heldout(
        reader, NO_TEXT, held_out, max_tokens=100, progress=lambda _, count, of: done.append((count, of))
    )
    np.testing.assert_allclose(found.loss_sum, expected.loss_sum, rtol=1e-5)
    for name in ("hit_count", "target_count", "byte_count"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert done == sorted(set(done))
    assert done[-1] == (20, 20)
    assert sum(rows * length > 50 for rows, length in backbone.shapes) == 1  # it is learned from, not tried again


def test_a_run_whose_validation_is_short_of_memory_goes_on_as_the_undisturbed_one(tiny_training, rows):
    held_out = tiny_training.rows(range(5, 25))
    plan = tiny_training.plan(rows, validate_every=2)
    trained = []
    for positions in (10_000, 60):
        state = tiny_training.state()
        reader, backbone = reader_short_of_memory(state, positions)
        validate = lambda reader=reader: read_heldout(reader, NO_TEXT, held_out).loss  # noqa: E731 - one line
        trained.append((tiny_training.train(state, plan, rows, validate=validate), tiny_training.adapter(state)))
        assert any(rows * length > 60 for rows, length in backbone.shapes)
    (whole, adapter), (halved, same) = trained
    assert halved.losses == whole.losses
    assert all(np.array_equal(same[name], adapter[name]) for name in adapter)
    valid = [[line["valid_loss"] for line in run.lines if "valid_loss" in line] for run in (whole, halved)]
    assert len(valid[0]) == 3
    assert valid[1] == pytest.approx(valid[0], rel=1e-6)


def test_a_held_out_row_for_which_there_is_no_memory_is_named(tiny_training):
    held_out = tiny_training.rows([4, 30, 5])
    reader, backbone = reader_short_of_memory(tiny_training.state(), 20)
    with pytest.raises(DeviceError, match="not enough memory to read this held-out row") as caught:
        read_heldout(reader, NO_TEXT, held_out)
    assert caught.value.where == held_out[1].where
    assert "max_seq_length" in caught.value.remedy
    assert backbone.shapes[-1][0] == 1


def test_another_error_while_held_out_rows_are_read_is_no_lack_of_memory(tiny_training):
    reader, backbone = reader_short_of_memory(tiny_training.state(), 20, told="something else")
    with pytest.raises(RuntimeError, match="something else"):
        read_heldout(reader, NO_TEXT, tiny_training.rows([4, 30, 5]))
    assert len(backbone.shapes) == 1


@pytest.mark.parametrize("told", [METAL, CPU])
def test_where_nothing_can_be_halved_the_command_line_says_what_was_short(capsys, told):
    assert report_failure(RuntimeError(told), as_json=True, debug=False) == 1
    error = json.loads(capsys.readouterr().err)["error"]
    assert error["type"] == "DeviceError"
    assert error["message"] == f"there is not enough memory: {told}"
    assert "close other programs" in error["remedy"]
