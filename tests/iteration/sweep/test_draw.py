"""The settings of the next trial: a function of the seed, the number and the trials before, and of nothing else."""

import math
from collections import Counter

import pytest
from optuna.trial import TrialState, create_trial

from mlxtune.iteration.sweep.draw import RANDOM_TRIALS, distributions, draw, params_of, point_of
from mlxtune.iteration.sweep.space import Choices, Range

SPACE = (
    Choices("method.rank", (4, 8, 16)),
    Range("training.learning_rate", 1e-4, 1e-2, log=True, whole=False),
)


def trial(number, point, loss, state=TrialState.COMPLETE, space=SPACE):
    found = create_trial(
        state=state,
        value=loss if state == TrialState.COMPLETE else None,
        params=params_of(space, point),
        distributions=distributions(space),
        intermediate_values={} if loss is None else {100: loss},
    )
    found.number = number
    return found


def loss_of(point):
    """The lower, the nearer the learning rate is to 2e-3."""
    return abs(math.log(point["training.learning_rate"] / 2e-3)) + 0.01 * point["method.rank"]


def sweep(count, seed=7, space=SPACE, first=None):
    trials = []
    for number in range(count):
        point = draw(space, trials, seed=seed, first=first)
        trials.append(trial(number, point, loss_of(point), space=space))
    return trials


def points(trials):
    return [found.params for found in trials]


def test_the_same_seed_and_the_same_trials_before_draw_the_same_settings():
    assert points(sweep(12)) == points(sweep(12))


def test_another_seed_draws_others():
    assert points(sweep(4, seed=7)) != points(sweep(4, seed=8))


def test_a_draw_in_the_middle_needs_nothing_but_the_trials_before_it():
    whole = sweep(9)
    drawn = draw(SPACE, whole[:8], seed=7)
    assert params_of(SPACE, drawn) == whole[8].params


def test_how_earlier_trials_ended_decides_what_is_drawn_once_there_are_enough_of_them():
    before = sweep(RANDOM_TRIALS + 3)
    turned = [trial(found.number, point_of(found), -found.value) for found in before]
    assert draw(SPACE, before, seed=7) != draw(SPACE, turned, seed=7)


def test_after_the_random_draws_it_goes_where_the_loss_was_low():
    trials = sweep(40)
    early, late = trials[:RANDOM_TRIALS], trials[-15:]
    assert sum(found.value for found in late) / 15 < sum(found.value for found in early) / RANDOM_TRIALS


def test_numbers_are_rounded_to_what_a_table_shows_and_stay_in_their_range():
    for found in sweep(15):
        rate = found.params["training.learning_rate"]
        assert 1e-4 <= rate <= 1e-2
        assert float(f"{rate:.3g}") == rate


def test_a_logarithmic_range_is_drawn_evenly_in_its_logarithm():
    space = (Range("r", 1e-6, 1.0, log=True, whole=False),)
    drawn = [draw(space, [], seed=seed)["r"] for seed in range(200)]
    below = sum(value < 1e-3 for value in drawn)
    assert 75 <= below <= 125  # half of them, with 3.5 standard deviations of room


def test_whole_numbers_stay_whole():
    space = (Range("n", 1, 30, log=True, whole=True),)
    assert all(type(draw(space, [], seed=seed)["n"]) is int for seed in range(20))


def test_the_first_trial_is_the_one_that_was_asked_for():
    own = {"method.rank": 8, "training.learning_rate": 2e-4}
    assert draw(SPACE, [], seed=7, first=own) == own


def test_no_settings_are_tried_twice_and_the_end_is_said_when_all_were():
    space = (Choices("a", (1, 2, 3)), Range("b", 1, 4, log=False, whole=True))
    trials = []
    while (point := draw(space, trials, seed=3)) is not None:
        trials.append(trial(len(trials), point, float(point["b"]), space=space))
    counts = Counter((found.params["a"], found.params["b"]) for found in trials)
    assert len(counts) == 12
    assert set(counts.values()) == {1}


@pytest.mark.parametrize("state", [TrialState.RUNNING, TrialState.FAIL, TrialState.PRUNED])
def test_what_another_process_is_at_and_what_failed_is_not_tried_again(state):
    space = (Choices("a", (1, 2)),)
    others = [trial(0, {"a": 1}, None, state=state, space=space)]
    assert draw(space, others, seed=1) == {"a": 2}
