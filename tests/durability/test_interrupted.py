"""SIGINT and SIGTERM between two batches of one update, and a second one while the checkpoint is being written."""

import json

import pytest
from durability.runs import assert_whole, child, contents, finish, kill
from safetensors.numpy import load_file

from mlxtune.iteration.watch import Watch
from mlxtune.runs.metrics import read_metrics

WITHIN_STEP_5 = "6 lines: batch #2"
"""Its first batch is being worked on; step 4 has its checkpoint."""


@pytest.fixture
def run_dir(tmp_path):
    return tmp_path / "work" / "run"


def test_a_run_that_is_stopped_within_a_window_keeps_its_gradient_and_goes_on_to_the_last_bit(
    recipe, undisturbed, run_dir
):
    ended = child(recipe, run_dir, SIGINT=WITHIN_STEP_5)
    assert ended.code == 130
    assert "stopping after this step" in ended.stderr
    assert f"go on with: mlxtune train --resume {run_dir}" in ended.stdout
    checkpoint = run_dir / "checkpoints" / "step_000004"
    begun = json.loads((checkpoint / "trainer_state.json").read_text())["window_sum"]
    assert begun["batches"] == 1
    gradients = load_file(checkpoint / "window.safetensors")
    assert gradients.keys() == load_file(checkpoint / "adapter.safetensors").keys()
    assert any(array.any() for array in gradients.values())

    tokens = [line["tokens"] for line in read_metrics(undisturbed[0] / "metrics.jsonl") if "tokens" in line]
    assert 0 < begun["tokens"] < tokens[4]
    finish(recipe, run_dir)
    assert contents(run_dir) == contents(undisturbed[0])


def test_a_second_signal_ends_it_at_once_and_the_checkpoint_that_was_being_replaced_is_good(
    recipe, undisturbed, run_dir
):
    replaced = "6 lines: rename checkpoints/.step_000004.part to checkpoints/step_000004 #2"
    ended = child(recipe, run_dir, SIGTERM=WITHIN_STEP_5, SIGINT=replaced)
    assert ended.code == 130
    assert ended.stderr.count("stopping after this step") == 1
    assert f"go on with: mlxtune train --resume {run_dir}" in ended.stderr
    assert not (run_dir / "checkpoints" / "step_000004" / "window.safetensors").exists()
    assert_whole(run_dir)
    finish(recipe, run_dir)
    assert contents(run_dir) == contents(undisturbed[0])


def test_a_checkpoint_that_was_being_replaced_when_the_process_was_killed_is_not_lost(recipe, undisturbed, run_dir):
    """Between the two renames neither the old one nor the new one has its name."""
    ended = child(
        recipe,
        run_dir,
        SIGINT=WITHIN_STEP_5,
        SIGKILL="6 lines: rename checkpoints/.step_000004.part to checkpoints/step_000004 #2",
    )
    assert ended.code == -9
    assert not (run_dir / "checkpoints" / "step_000004").exists()
    resumed = []
    finish(recipe, run_dir, Watch(started=lambda _, ready: resumed.append(ready.state.step)))
    assert resumed == [4]
    assert contents(run_dir) == contents(undisturbed[0])


@pytest.mark.slow
def test_a_run_that_was_stopped_within_a_window_and_then_killed_goes_on_from_there(recipe, undisturbed, run_dir):
    assert child(recipe, run_dir, SIGTERM=WITHIN_STEP_5).code == 143
    kill(recipe, run_dir, "7 lines: half a line")
    finish(recipe, run_dir)
    assert contents(run_dir) == contents(undisturbed[0])
