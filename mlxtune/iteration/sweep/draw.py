"""The settings of the next trial, drawn by optuna's tree-structured Parzen estimator.

A pure function: the draw depends on the sweep's seed, the trial's number and the trials before it, and on nothing that
a process keeps. So a sweep that was killed goes on as it would have gone on. Each draw therefore makes a study of its
own in memory and a sampler with a seed of its own, which costs some milliseconds. The first `RANDOM_TRIALS` draws are
random, for there is nothing to go by yet. No settings are tried twice: the same settings give the same model.

Source: Bergstra et al. 2011, Algorithms for Hyper-Parameter Optimization, section 4; as optuna has it, multivariate.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mlxtune.iteration.sweep.space import Choices, Dimension, Point, Range, all_points, count_points

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

RANDOM_TRIALS = 5
REDRAWS = 30
"""Of settings that were tried already, before others are taken in order."""
DIGITS = 3
"""Of a drawn number: what the table shows is what was trained."""


def draw(
    dimensions: Sequence[Dimension], trials: Sequence["FrozenTrial"], *, seed: int, first: Point | None = None
) -> Point | None:
    """The settings of trial number ``len(trials)``; None if all that there are were tried.

    Args:
        trials: all before it, in order, with those that other processes are at.
        first: what trial 0 has, if it is not to be drawn.
    """
    number = len(trials)
    if number == 0 and first is not None:
        return first
    tried = {_name(point_of(trial)) for trial in trials}
    if len(tried) >= count_points(dimensions):
        return None
    for attempt in range(REDRAWS):
        point = _sampled(dimensions, trials, int(np.random.SeedSequence([seed, number, attempt]).generate_state(1)[0]))
        if _name(point) not in tried:
            return point
    if count_points(dimensions) == float("inf"):
        return None  # rounded, they are not so many
    return next(point for point in all_points(dimensions) if _name(point) not in tried)


def _sampled(dimensions: Sequence[Dimension], trials: Sequence["FrozenTrial"], seed: int) -> Point:
    import optuna

    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=RANDOM_TRIALS)
    study = optuna.create_study(direction="minimize", sampler=sampler)
    study.add_trials(trials)
    drawn = study.ask(distributions(dimensions)).params
    return {one.key: _value(one, drawn[one.key]) for one in dimensions}


def _value(dimension: Dimension, drawn: Any) -> Any:
    if isinstance(dimension, Choices):
        return json.loads(drawn)
    if dimension.whole:
        return int(drawn)
    return min(max(float(f"{drawn:.{DIGITS}g}"), dimension.low), dimension.high)


def distributions(dimensions: Sequence[Dimension]) -> dict[str, "BaseDistribution"]:
    """The dimensions in optuna's terms; a value of a list is there the text of its JSON."""
    return {one.key: _distribution(one) for one in dimensions}


def _distribution(dimension: Dimension) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(dimension, Choices):
        return CategoricalDistribution([json.dumps(value) for value in dimension.values])
    if dimension.whole:
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def params_of(dimensions: Sequence[Dimension], point: Point) -> dict[str, Any]:
    """A point as optuna's parameters."""
    return {one.key: point[one.key] if isinstance(one, Range) else json.dumps(point[one.key]) for one in dimensions}


def point_of(trial: "FrozenTrial") -> dict[str, Any]:
    """The settings of a trial, in the order in which they were named."""
    return {key: json.loads(value) if isinstance(value, str) else value for key, value in trial.params.items()}


def _name(point: Point) -> str:
    return json.dumps(point, sort_keys=True)
