"""Whether a trial is ended early: compared at a quarter and at half of its own run, as optuna's pruner decides."""

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxtune.iteration.sweep.halving import is_cut, percent_of


def test_how_far_a_run_is_goes_by_its_own_steps():
    assert [percent_of(step, 6) for step in (2, 4, 6)] == [33, 66, 100]
    assert percent_of(1, 1000) == 1
    assert percent_of(7, 6) == 100  # an epoch more than was foretold


def test_the_first_trial_goes_on_and_a_worse_second_one_does_not():
    assert not is_cut({25: 2.0}, [])
    assert is_cut({25: 2.1}, [{25: 2.0, 50: 1.5, 100: 1.0}])
    assert not is_cut({25: 1.9}, [{25: 2.0, 50: 1.5, 100: 1.0}])


def test_of_four_at_a_rung_the_better_two_go_on():
    others = [{25: 1.0}, {25: 2.0}, {25: 4.0}]
    assert not is_cut({25: 1.5}, others)
    assert is_cut({25: 2.5}, others)


def test_nothing_is_decided_before_the_first_rung_nor_at_the_end():
    others = [{10: 0.1, 25: 0.1, 50: 0.1, 100: 0.1}]
    assert not is_cut({10: 9.0, 24: 9.0}, others)
    assert not is_cut({100: 9.0}, others)
    assert not is_cut({}, others)


def test_trials_with_looks_at_other_places_are_compared_at_the_first_look_after_a_rung():
    assert is_cut({33: 3.0}, [{20: 5.0, 40: 2.0}])
    assert not is_cut({33: 1.0}, [{20: 0.5, 40: 2.0}])


def test_a_look_long_after_both_rungs_counts_for_both():
    assert is_cut({83: 2.0}, [{30: 3.0, 60: 1.0}])  # better at the first rung, worse at the second


def test_the_decision_does_not_change_when_it_is_asked_again():
    curve, others = {25: 2.5, 40: 2.4}, [{25: 1.0}, {25: 2.0}, {25: 4.0}]
    assert [is_cut(curve, others) for _ in range(3)] == [True] * 3


losses = st.floats(0, 10, allow_nan=False)


@given(st.lists(st.tuples(losses, losses), min_size=1, max_size=8))
def test_trials_one_after_the_other_end_where_optunas_own_pruner_ends_them(curves):
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=25, reduction_factor=2)
    study = optuna.create_study(direction="minimize", pruner=pruner)
    before = []
    for first, second in curves:
        trial, seen, ours, theirs = study.ask(), {}, False, False
        for percent, loss in ((25, first), (50, second)):
            seen[percent] = loss
            trial.report(loss, percent)
            ours, theirs = is_cut(seen, before), trial.should_prune()
            assert ours == theirs
            if ours:
                break
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        before.append(seen)


@pytest.fixture(autouse=True, scope="module")
def quiet():
    optuna.logging.set_verbosity(optuna.logging.WARNING)
