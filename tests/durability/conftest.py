"""A recipe, and the undisturbed run of it that all others have to equal."""

from pathlib import Path

import pytest
from durability.runs import Ended, child
from tiny import tiny_recipe


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_recipe(tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="session")
def undisturbed(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """The run folder, and what the process said that made it."""
    run_dir = tmp_path_factory.mktemp("undisturbed") / "work" / "run"
    return run_dir, child(recipe, run_dir, trace=True)
