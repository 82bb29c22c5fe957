"""A pause leaves no trace in what is learned, whether the run then goes on, is stopped or killed."""

import json

import pytest
from durability.runs import child, contents, finish, kill

from mlxtune.runs.control import pause_of, wish_of
from mlxtune.runs.folder import RunFolder
from mlxtune.runs.metrics import read_metrics

STEP_5 = "6 lines: batch #2"
"""Its first batch is being worked on. Step 4 has a checkpoint, and step 5 is due none."""
STEP_4 = "4 lines: batch"


@pytest.fixture
def run_dir(tmp_path):
    return tmp_path / "work" / "run"


def learned(run_dir):
    """The adapter to the last bit, and the lines without times; a pause may have left other checkpoints."""
    return {
        name: content
        for name, content in contents(run_dir).items()
        if name.startswith("adapter/") or name in ("metrics.jsonl", "scores.json")
    }


def test_a_run_that_was_paused_and_went_on_is_the_undisturbed_one(recipe, undisturbed, run_dir):
    ended = child(recipe, run_dir, PAUSE=STEP_5, GO_ON="7 lines: wait #3", trace=True)
    assert ended.code == 0, ended.stderr
    assert "paused after step 5" in ended.stderr
    assert "the pause is over" in ended.stderr
    names = [name for _, name in ended.points]
    waited = [names.index(f"7 lines: wait{number}") for number in ("", " #2", " #3")]
    assert names.index("7 lines: rename checkpoints/.step_000005.part to checkpoints/step_000005") < waited[0]
    assert names.index("7 lines: write metrics.jsonl") > waited[2]
    assert learned(run_dir) == learned(undisturbed[0])
    seconds = [line["seconds"] for line in read_metrics(run_dir / "metrics.jsonl") if "seconds" in line]
    assert json.loads((run_dir / "run.json").read_text())["finished"]["seconds"] == pytest.approx(sum(seconds))
    log = (run_dir / "logs" / "attempt_1.log").read_text()
    assert "paused after step 5" in log
    assert "the pause is over" in log


def test_a_paused_run_that_is_killed_goes_on_to_the_last_bit(recipe, undisturbed, run_dir):
    kill(recipe, run_dir, "7 lines: wait #2", PAUSE=STEP_5)
    run = RunFolder(run_dir)
    assert (wish_of(run), pause_of(run).step) == ("pause", 5)
    assert (run_dir / "checkpoints" / "step_000005").is_dir(), "a pause begins with a checkpoint"
    finish(recipe, run_dir)  # which does not wait: the wish was that process's
    assert learned(run_dir) == learned(undisturbed[0])
    assert not run.control.exists()
    assert not run.paused.exists()


def test_where_a_checkpoint_is_there_already_a_pause_writes_none(recipe, undisturbed, run_dir):
    kill(recipe, run_dir, "6 lines: wait", PAUSE=STEP_4)
    finish(recipe, run_dir)
    assert contents(run_dir) == contents(undisturbed[0])


def test_a_run_that_is_stopped_while_it_waits_can_be_resumed(recipe, undisturbed, run_dir):
    ended = child(recipe, run_dir, PAUSE=STEP_5, STOP="7 lines: wait #2")
    assert ended.code == 130
    assert "stopping, as was asked through the run's folder" in ended.stderr
    assert f"go on with: mlxtune train --resume {run_dir}" in ended.stdout
    assert not RunFolder(run_dir).control.exists()
    finish(recipe, run_dir)
    assert learned(run_dir) == learned(undisturbed[0])


def test_a_run_that_is_stopped_within_a_step_keeps_its_gradient(recipe, undisturbed, run_dir):
    ended = child(recipe, run_dir, STOP="6 lines: batch #2")
    assert ended.code == 130
    begun = json.loads((run_dir / "checkpoints/step_000004/trainer_state.json").read_text())["window_sum"]
    assert begun["batches"] == 1
    finish(recipe, run_dir)
    assert contents(run_dir) == contents(undisturbed[0])


def test_ctrl_c_ends_a_pause(recipe, undisturbed, run_dir):
    ended = child(recipe, run_dir, PAUSE=STEP_5, SIGINT="7 lines: wait")
    assert ended.code == 130
    assert not RunFolder(run_dir).paused.exists()
    finish(recipe, run_dir)
    assert learned(run_dir) == learned(undisturbed[0])


def test_a_run_waits_while_the_machine_is_on_battery_goes_on_by_itself_and_learned_the_same(
    recipe, undisturbed, run_dir
):
    ended = child(recipe, run_dir, UNPLUG=STEP_5, PLUG_IN="7 lines: wait #3")
    assert ended.code == 0, ended.stderr
    reason = "on battery (plug in, or training.throttle.battery: ignore)"
    assert f"paused: {reason}; after step 5, and saved" in ended.stderr
    assert "the pause is over" in ended.stderr
    assert f"paused after step 5: {reason}" in (run_dir / "logs" / "attempt_1.log").read_text()
    assert learned(run_dir) == learned(undisturbed[0])


def test_a_run_that_waits_for_the_plug_and_is_killed_goes_on_to_the_last_bit(recipe, undisturbed, run_dir):
    kill(recipe, run_dir, "7 lines: wait #2", UNPLUG=STEP_5)
    paused = pause_of(RunFolder(run_dir))
    assert (paused.step, paused.why.split(" (")[0]) == (5, "on battery")
    finish(recipe, run_dir)
    assert learned(run_dir) == learned(undisturbed[0])


def test_a_run_that_waits_for_the_plug_can_be_stopped(recipe, undisturbed, run_dir):
    ended = child(recipe, run_dir, UNPLUG=STEP_5, STOP="7 lines: wait #2")
    assert ended.code == 130
    finish(recipe, run_dir)
    assert learned(run_dir) == learned(undisturbed[0])


def test_a_machine_that_is_unplugged_from_the_start_is_waited_for_before_the_first_step(recipe, undisturbed, run_dir):
    kill(recipe, run_dir, "0 lines: wait", UNPLUG="opening: make (new)")
    finish(recipe, run_dir)
    assert learned(run_dir) == learned(undisturbed[0])
