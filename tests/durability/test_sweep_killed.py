"""A sweep of eight trials that is killed, again and again, comes to the winner that it would have come to."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from iteration.sweep.sweeps import SETTINGS, same, scored, slow_recipe

from mlxtune.iteration.sweep.sweep import resume_sweep, run_sweep

TRIALS = 8
CHILD = Path(__file__).with_name("sweep_child.py")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return slow_recipe(tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="module")
def undisturbed(recipe, tmp_path_factory):
    sweep_dir = tmp_path_factory.mktemp("undisturbed") / "sweep"
    return run_sweep(recipe, SETTINGS, trials=TRIALS, sweep_dir=sweep_dir, device="cpu")


def command(recipe, sweep_dir, point=""):
    asked = {"recipe": str(recipe), "settings": SETTINGS, "trials": TRIALS, "sweep_dir": str(sweep_dir)}
    return [sys.executable, str(CHILD), json.dumps({**asked, "point": point})]


def kill(recipe, sweep_dir, point):
    done = subprocess.run(command(recipe, sweep_dir, point), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == -signal.SIGKILL, f"it never came to {point}:\n{done.stderr}"


@pytest.mark.slow
def test_killed_at_five_points_one_after_the_other(recipe, undisturbed, tmp_path):
    cut = next(trial.number for trial in undisturbed.trials if trial.state == "pruned")
    last = TRIALS - 1
    for point in ("line 0 5", f"drawn {cut}", f"cut {cut}", f"over {cut + 1}", f"line {last} 2"):
        kill(recipe, tmp_path / "sweep", point)
    assert not scored(tmp_path / "sweep")
    assert same(resume_sweep(tmp_path / "sweep", device="cpu"), undisturbed)


@pytest.mark.slow
def test_killed_in_the_middle_of_a_trial_that_then_goes_on_from_its_checkpoint(recipe, undisturbed, tmp_path):
    kill(recipe, tmp_path / "sweep", "line 0 6")  # after step 4, where a checkpoint is, and its validation
    logs = tmp_path / "sweep" / "trials" / "0000" / "logs"
    result = resume_sweep(tmp_path / "sweep", device="cpu")
    assert same(result, undisturbed)
    assert "starting after step 2" in (logs / "attempt_2.log").read_text()


@pytest.mark.slow
def test_two_processes_share_the_trials_and_the_last_one_chooses(recipe, tmp_path):
    first = subprocess.Popen(command(recipe, tmp_path / "sweep"), stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "sweep" / "study.db").exists():
        assert first.poll() is None
    second = subprocess.Popen(command(recipe, tmp_path / "sweep"), stderr=subprocess.PIPE, text=True)
    for process in (first, second):
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
    result = resume_sweep(tmp_path / "sweep", device="cpu")
    assert [trial.number for trial in result.trials] == list(range(TRIALS))
    assert {trial.state for trial in result.trials} <= {"complete", "pruned"}
    assert len({json.dumps(trial.point) for trial in result.trials}) == TRIALS
    assert scored(tmp_path / "sweep") == [f"{result.winner.number:04d}"]
    attempts = sorted((tmp_path / "sweep" / "attempts").iterdir())
    assert len(attempts) >= 2
