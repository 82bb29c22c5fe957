import json
from typing import get_args

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlxtune.errors import AdapterError, RunError
from mlxtune.recipe.choices import OptimizerName
from mlxtune.training.checkpoint import checkpoints, load_checkpoint, newest_checkpoint, save_checkpoint, settle

LENGTHS = (3, 17, 5, 9, 8, 2, 12, 6, 4, 11, 7)
FILES = ("adapter.safetensors", "optimizer.safetensors", "trainer_state.json", "SHA256SUMS")


def names(folder):
    return [path.name for path in checkpoints(folder)]


def save_at(state, folder, *steps, keep=2, best_step=None):
    for step in steps:
        state.step, state.best_step = step, best_step
        save_checkpoint(state, folder, keep=keep)


def bits(state):
    """All that changes, but for the time that steps took."""
    arrays = {**dict(tree_flatten(state.optimizer.state)), **dict(tree_flatten(state.network.trainable_parameters()))}
    counters = {
        name: value
        for name, value in state.counters().items()
        if name not in ("seconds", "later_seconds", "saved_step")
    }
    return counters, {name: np.array(array).tobytes() for name, array in arrays.items()}


@pytest.mark.parametrize("layers", ["all", 1])
def test_a_resumed_run_ends_as_an_undisturbed_one_bit_for_bit(tiny_training, tmp_path, layers):
    rows = tiny_training.rows(LENGTHS, prefix=3)
    plan = tiny_training.plan(rows, gradient_accumulation_steps=2, epochs=2, lr_schedule="cosine", validate_every=2)
    valid = {2: 2.0, 4: 1.5, 6: 1.6}

    def fresh(seed):
        return tiny_training.state(seed=seed, dropout=0.3, layers=layers)

    def train(state, **options):
        return tiny_training.train(state, plan, rows, validate=lambda: valid[state.step], **options)

    undisturbed = fresh(0)
    whole = train(undisturbed)
    assert [line["step"] for line in whole.lines if "loss" in line] == [1, 2, 3, 4, 5, 6]
    killed = fresh(0)
    first = train(killed, stop_after=3, save=lambda: save_checkpoint(killed, tmp_path, keep=2))
    resumed = fresh(0)
    load_checkpoint(resumed, newest_checkpoint(tmp_path))
    assert (resumed.step, resumed.epoch, resumed.window) == (3, 1, 0)
    second = train(resumed)
    assert bits(resumed) == bits(undisturbed)
    assert first.losses + second.losses == whole.losses
    assert [line["step"] for line in first.lines + second.lines] == [line["step"] for line in whole.lines]


def test_it_resumes_in_the_middle_of_an_epoch_too(tiny_training, tmp_path):
    rows = tiny_training.rows(LENGTHS)
    plan = tiny_training.plan(rows, gradient_accumulation_steps=2)
    undisturbed, killed, resumed = (tiny_training.state(dropout=0.3) for _ in range(3))
    tiny_training.train(undisturbed, plan, rows)
    tiny_training.train(killed, plan, rows, stop_after=2, save=lambda: save_checkpoint(killed, tmp_path, keep=1))
    load_checkpoint(resumed, newest_checkpoint(tmp_path))
    tiny_training.train(resumed, plan, rows)
    assert bits(resumed) == bits(undisturbed)


@pytest.mark.parametrize("optimizer", get_args(OptimizerName))
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_it_resumes_to_the_last_bit_with_every_optimizer(tiny_training, tmp_path, optimizer, weight_decay):
    rows = tiny_training.rows(LENGTHS)
    plan = tiny_training.plan(rows, learning_rate=1e-3, lr_schedule="linear")
    undisturbed, killed, resumed = (
        tiny_training.state(optimizer=optimizer, weight_decay=weight_decay) for _ in range(3)
    )
    tiny_training.train(undisturbed, plan, rows)
    tiny_training.train(killed, plan, rows, stop_after=3, save=lambda: save_checkpoint(killed, tmp_path, keep=1))
    load_checkpoint(resumed, newest_checkpoint(tmp_path))
    tiny_training.train(resumed, plan, rows)
    assert resumed.step == 6
    assert bits(resumed) == bits(undisturbed)
    assert bits(resumed)[1] != bits(killed)[1]


def test_a_checkpoint_is_four_files_and_latest_names_it(tiny_training, tmp_path):
    save_at(tiny_training.state(), tmp_path, 50)
    assert sorted(path.name for path in (tmp_path / "step_000050").iterdir()) == sorted(FILES)
    assert json.loads((tmp_path / "latest.json").read_text()) == {"step": 50, "folder": "step_000050"}
    assert (tmp_path / "step_000050").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("keep", "best", "left"), [(1, None, [6]), (2, None, [4, 6]), (2, 2, [2, 4, 6]), (2, 4, [4, 6])]
)
def test_the_newest_and_the_best_are_kept(tiny_training, tmp_path, keep, best, left):
    save_at(tiny_training.state(), tmp_path, 0, 2, 4, 6, keep=keep, best_step=best)
    assert names(tmp_path) == [f"step_{step:06d}" for step in left]


def test_a_checkpoint_that_is_no_longer_the_best_is_forgotten(tiny_training, tmp_path):
    state = tiny_training.state()
    save_at(state, tmp_path, 2, 4, 6, keep=1, best_step=2)
    save_at(state, tmp_path, 8, keep=1, best_step=8)
    assert names(tmp_path) == ["step_000008"]


def test_a_million_steps_are_newer_than_fewer(tiny_training, tmp_path):
    save_at(tiny_training.state(), tmp_path, 999_999, 1_000_000, 1_000_001)
    assert names(tmp_path) == ["step_1000000", "step_1000001"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", ["cut", "changed", "missing"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_it(tiny_training, tmp_path, file, damage):
    save_at(tiny_training.state(), tmp_path, 2, 4)
    assert newest_checkpoint(tmp_path).name == "step_000004"
    path = tmp_path / "step_000004" / file
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"\xff" + content[1:])
    assert newest_checkpoint(tmp_path).name == "step_000002"


def test_hashes_of_fewer_files_than_there_are_prove_nothing(tiny_training, tmp_path):
    save_at(tiny_training.state(), tmp_path, 2, 4)
    sums = tmp_path / "step_000004" / "SHA256SUMS"
    sums.write_text("".join(line for line in sums.read_text().splitlines(True) if "optimizer" not in line))
    assert newest_checkpoint(tmp_path).name == "step_000002"


def test_where_every_checkpoint_is_damaged_the_run_says_so(tiny_training, tmp_path):
    save_at(tiny_training.state(), tmp_path, 2, 4)
    for path in checkpoints(tmp_path):
        (path / "adapter.safetensors").write_bytes(b"")
    with pytest.raises(RunError, match="every checkpoint is damaged") as error:
        newest_checkpoint(tmp_path)
    assert error.value.where == str(tmp_path)


def test_a_run_without_checkpoints_has_no_newest_one(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    assert newest_checkpoint(tmp_path / "missing") is None


def test_one_that_was_damaged_does_not_push_out_those_written_after_it(tiny_training, tmp_path):
    state = tiny_training.state()
    save_at(state, tmp_path, 2, 4)
    (tmp_path / "step_000004" / "adapter.safetensors").write_bytes(b"")
    assert newest_checkpoint(tmp_path).name == "step_000002"
    save_at(state, tmp_path, 3, keep=1)  # the run went on from step 2
    assert names(tmp_path) == ["step_000003"]


def test_what_a_killed_attempt_left_half_written_is_cleared_away(tiny_training, tmp_path):
    (tmp_path / ".step_000002.0badcafe").mkdir()
    (tmp_path / ".step_000002.0badcafe" / "adapter.safetensors").write_bytes(b"half")
    save_at(tiny_training.state(), tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest.json", "step_000002"]


def test_a_checkpoint_of_another_shape_does_not_load(tiny_training, tmp_path):
    save_at(tiny_training.state(layers=1), tmp_path, 2)
    with pytest.raises(AdapterError, match="does not fit the network"):
        load_checkpoint(tiny_training.state(), newest_checkpoint(tmp_path))


def test_a_write_that_fails_leaves_the_one_before_it(tiny_training, tmp_path):
    state = tiny_training.state()
    save_at(state, tmp_path, 2)
    state.best_valid_loss = float("nan")  # trainer_state.json refuses it, after the tensors were written
    with pytest.raises(ValueError, match="JSON"):
        save_at(state, tmp_path, 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest.json", "step_000002"]
    assert newest_checkpoint(tmp_path).name == "step_000002"


def test_a_window_begun_and_the_moments_come_back_in_the_order_that_they_had(tiny_training, tmp_path):
    """A file has an order of its own; a norm that is summed in another one has other last bits."""
    rows = tiny_training.rows(LENGTHS)
    plan = tiny_training.plan(rows, gradient_accumulation_steps=2)
    state, resumed = tiny_training.state(), tiny_training.state()
    asked = iter([False] * 3 + [True])
    tiny_training.train(
        state,
        plan,
        rows,
        should_stop=lambda: next(asked),
        save=lambda: save_checkpoint(state, tmp_path, keep=1),
    )
    load_checkpoint(resumed, newest_checkpoint(tmp_path))
    for found, wanted in (
        (tree_flatten(resumed.window_sum.gradients), tree_flatten(state.window_sum.gradients)),
        (tree_flatten(resumed.optimizer.state), tree_flatten(state.optimizer.state)),
    ):
        assert [name for name, _ in found] == [name for name, _ in wanted]
        assert all(np.array_equal(array, here) for (_, array), (_, here) in zip(found, wanted, strict=True))
    assert resumed.window_sum.counters() == state.window_sum.counters()


def test_an_optimizer_of_another_version_is_told_with_what_differs(tiny_training, tmp_path):
    state = tiny_training.state()
    save_at(state, tmp_path, 2)
    state.optimizer.state["states"][0]["new"] = mx.array(1)
    with pytest.raises(RunError, match=r"of another version: states\.0\.new"):
        load_checkpoint(state, newest_checkpoint(tmp_path))


def test_one_that_was_being_replaced_when_its_process_was_killed_gets_its_name_back(tiny_training, tmp_path):
    save_at(tiny_training.state(), tmp_path, 2, 4)
    (tmp_path / "step_000004").rename(tmp_path / ".step_000004.0badcafe.old")
    assert newest_checkpoint(tmp_path) == tmp_path / "step_000004"
    (tmp_path / ".step_000004.0badcafe.old").mkdir()  # not, where the new one is there already
    assert newest_checkpoint(tmp_path) == tmp_path / "step_000004"


def test_what_a_kill_left_undone_after_the_checkpoint_is_done_when_the_run_is_resumed(tiny_training, tmp_path):
    state = tiny_training.state()
    save_at(state, tmp_path, 2, 4, 6, keep=3)
    (tmp_path / "latest.json").write_text('{"step": 4, "folder": "step_000004"}')
    (tmp_path / ".latest.json.0badcafe").touch()
    load_checkpoint(state, newest_checkpoint(tmp_path))
    settle(state, tmp_path, keep=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest.json", "step_000006"]
    assert json.loads((tmp_path / "latest.json").read_text()) == {"step": 6, "folder": "step_000006"}
