"""One undisturbed sweep, which several tests look at."""

import pytest
from iteration.sweep.sweeps import SETTINGS, TRIALS, slow_recipe

from mlxtune.iteration.sweep.sweep import run_sweep


@pytest.fixture(scope="session")
def recipe(tmp_path_factory):
    return slow_recipe(tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="session")
def undisturbed(recipe, tmp_path_factory):
    """To be read, not changed."""
    sweep_dir = tmp_path_factory.mktemp("undisturbed") / "sweep"
    return run_sweep(recipe, SETTINGS, trials=TRIALS, sweep_dir=sweep_dir, device="cpu")
