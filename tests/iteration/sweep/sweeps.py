"""The sweep that several tests need, and what makes two sweeps the same."""

from pathlib import Path
from typing import Any

from tiny import tiny_recipe

from mlxtune.iteration.sweep.result import SweepResult
from mlxtune.iteration.sweep.study import Trial

OWN_RATE = "2.0e-3"
"""A learning rate that others are better than, so that the recipe as it is does not win."""
SETTINGS = ("method.rank=1,2,4", "training.learning_rate=1e-3..1e-1", "method.dropout=0.0..0.3")
TRIALS = 5


def slow_recipe(folder: Path) -> Path:
    """The tiny recipe, with `OWN_RATE`."""
    recipe = tiny_recipe(folder)
    recipe.write_text(recipe.read_text().replace("learning_rate: 1.0e-2", f"learning_rate: {OWN_RATE}"))
    return recipe


def told(trials: tuple[Trial, ...]) -> list[tuple[Any, ...]]:
    """All that a sweep finds out, but for times."""
    return [(trial.number, trial.state, trial.point, trial.curve, trial.valid_loss) for trial in trials]


def same(ours: SweepResult, theirs: SweepResult) -> bool:
    """Whether two sweeps came to the same, trial by trial and to the last bit."""
    assert ours.winner is not None
    assert theirs.winner is not None
    return told(ours.trials) == told(theirs.trials) and ours.winner.number == theirs.winner.number


def scored(sweep: Path) -> list[str]:
    """The trials whose test rows were scored."""
    return sorted(path.parent.name for path in sweep.glob("trials/*/scores.json"))
