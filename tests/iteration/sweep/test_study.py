"""The trials in optuna's storage: whole or absent, the same after a new process opened them, in any folder."""

import sqlite3

import optuna
import pytest

from mlxtune.iteration.sweep.space import Choices, Range
from mlxtune.iteration.sweep.study import open_study

SPACE = (
    Choices("method.layers", ("all", {"top": 2})),
    Range("training.learning_rate", 1e-4, 1e-2, log=True, whole=False),
)
POINT = {"method.layers": {"top": 2}, "training.learning_rate": 3.21e-4}


@pytest.fixture
def opened(tmp_path):
    studies = []

    def open_it(name="study.db"):
        studies.append(open_study(tmp_path / name, SPACE))
        return studies[-1]

    yield open_it
    for study in studies:
        study.close()


def test_a_trial_has_all_its_settings_from_the_beginning(opened):
    assert opened().add(POINT) == 0
    (trial,) = opened().trials()
    assert (trial.number, trial.state, trial.point, trial.curve) == (0, "running", POINT, {})
    assert list(trial.point) == [one.key for one in SPACE]


def test_a_curve_and_an_end_are_there_for_the_next_process(opened):
    study = opened()
    study.add(POINT)
    study.report(0, 33, 2.5)
    study.report(0, 66, 2.25)
    study.finish(0, "complete", 2.125, steps=6)
    trial = opened().trial(0)
    assert (trial.state, trial.curve, trial.valid_loss) == ("complete", {33: 2.5, 66: 2.25}, 2.125)
    assert trial.facts == {"steps": 6}


def test_a_look_that_is_reported_again_replaces_the_first(opened):
    study = opened()
    study.add(POINT)
    study.report(0, 33, 2.5)
    study.report(0, 33, 2.5)
    assert study.trial(0).curve == {33: 2.5}


@pytest.mark.parametrize("state", ["pruned", "failed"])
def test_a_trial_that_did_not_come_to_its_end_has_no_loss_to_choose_by(opened, state):
    study = opened()
    study.add(POINT)
    study.report(0, 33, 0.1)
    study.finish(0, state, why="because")
    assert (study.trial(0).state, study.trial(0).valid_loss) == (state, None)


def test_losses_are_kept_to_the_last_bit(opened):
    study = opened()
    study.add(POINT)
    study.finish(0, "complete", 0.1 + 0.2)
    assert opened().trial(0).valid_loss == 0.1 + 0.2


@pytest.mark.parametrize("name", ["a b?c.db", "{x}.db", "100%25#.db"])
def test_the_file_may_have_any_name(opened, tmp_path, name):
    opened(name).add(POINT)
    assert (tmp_path / name).is_file()
    with sqlite3.connect(tmp_path / name) as connection:
        assert connection.execute("select count(*) from trials").fetchone() == (1,)
    connection.close()


def test_optuna_opens_it_by_its_own_name(opened, tmp_path):
    study = opened()
    study.add(POINT)
    study.finish(0, "complete", 1.5)
    theirs = optuna.load_study(study_name="sweep", storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert theirs.best_value == 1.5
    assert theirs.best_params == {"method.layers": '{"top": 2}', "training.learning_rate": 3.21e-4}
    theirs._storage._backend.engine.dispose()
