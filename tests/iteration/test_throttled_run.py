"""When to wait is a user's to change, also for a run that was begun otherwise; and what holds a run back is told."""

from functools import partial

import pytest
from tiny import tiny_recipe

from mlxtune.device.power import PowerReadings
from mlxtune.errors import RunError
from mlxtune.iteration import run as module
from mlxtune.iteration.run import resume_run, run_recipe
from mlxtune.iteration.watch import Watch
from mlxtune.recipe.load import load_recipe
from mlxtune.runs.folder import RunFolder
from mlxtune.training.throttle import Throttle


@pytest.fixture
def recipe(tmp_path):
    return tiny_recipe(tmp_path)


def on_battery(monkeypatch):
    monkeypatch.setattr(module, "Throttle", partial(Throttle, read=lambda: PowerReadings(on_battery=True)))


def test_a_run_that_waited_for_the_plug_goes_on_without_it_if_the_recipe_says_so(recipe, tmp_path, monkeypatch):
    on_battery(monkeypatch)
    told = []
    run_dir = tmp_path / "run"
    watch = Watch(paused=lambda step, why: told.append((step, why)), should_stop=lambda: bool(told))
    first = run_recipe(recipe, ["training.max_steps=2"], device="cpu", run_dir=run_dir, score=False, watch=watch)
    assert (first.interrupted, first.steps) == (True, 0)
    assert told[0][0] == 0
    assert "plug in" in told[0][1]
    assert told[-1] == (None, None)
    assert not RunFolder(run_dir).paused.exists()
    settings = load_recipe(recipe, ["training.max_steps=2", "training.throttle.battery=ignore"])
    result = resume_run(run_dir, settings, device="cpu", score=False)
    assert (result.ended_by, result.steps) == ("max_steps", 2)


def test_another_key_is_not_changed_that_way(recipe, tmp_path):
    run_recipe(recipe, ["training.max_steps=1"], device="cpu", run_dir=tmp_path / "run", score=False)
    with pytest.raises(RunError, match="max_steps"):
        resume_run(tmp_path / "run", load_recipe(recipe, ["training.max_steps=2"]), device="cpu", score=False)


def test_that_steps_are_slowed_down_is_told_once(recipe, tmp_path, monkeypatch):
    slept, told = [], []
    hot = partial(Throttle, read=lambda: PowerReadings(thermal="heavy"), sleep=slept.append)
    monkeypatch.setattr(module, "Throttle", hot)
    result = run_recipe(
        recipe,
        ["training.max_steps=3"],
        device="cpu",
        run_dir=tmp_path / "run",
        score=False,
        watch=Watch(warned=told.append),
    )
    assert result.steps == 3
    assert [line for line in told if "training.throttle" in line] == [
        "steps take 50% of the time from now on (training.throttle)"
    ]
    assert 0 < sum(slept) <= result.seconds
