from dataclasses import replace

import pytest
from mlx import nn

from mlxtune.training.optimizer import make_optimizer
from mlxtune.training.state import TrainingState, WindowSum


def after(**counters) -> TrainingState:
    return TrainingState(nn.Module(), make_optimizer("adamw", weight_decay=0.0), **counters)


@pytest.mark.parametrize(
    ("limits", "counters", "ended"),
    [
        ({"epochs": 2}, {"epoch": 1, "window": 4}, None),
        ({"epochs": 2}, {"epoch": 2}, "epochs"),
        ({"epochs": None, "max_steps": 7}, {"step": 6, "epoch": 40}, None),
        ({"epochs": None, "max_steps": 7}, {"step": 7, "epoch": 40}, "max_steps"),
        ({"epochs": None, "max_minutes": 0.5}, {"seconds": 29.9, "epoch": 40}, None),
        ({"epochs": None, "max_minutes": 0.5}, {"seconds": 30.0, "epoch": 40}, "max_minutes"),
        ({"epochs": 9, "early_stopping_patience": 2}, {"bad_validations": 1}, None),
        ({"epochs": 9, "early_stopping_patience": 2}, {"bad_validations": 2}, "early_stopping"),
        ({"epochs": 2, "max_steps": 7, "max_minutes": 1.0}, {"epoch": 1, "step": 7, "seconds": 3.0}, "max_steps"),
        ({"epochs": 2, "max_steps": 7, "max_minutes": 1.0}, {"epoch": 2, "step": 6, "seconds": 3.0}, "epochs"),
        ({"epochs": 2, "max_steps": 7, "max_minutes": 1.0}, {"epoch": 1, "step": 6, "seconds": 60.0}, "max_minutes"),
    ],
)
def test_the_first_limit_that_is_reached_ends_the_run(tiny_training, limits, counters, ended):
    assert tiny_training.plan(9, **limits).ended(after(**counters)) == ended


@pytest.mark.parametrize(
    ("limits", "total"),
    [
        ({"epochs": 3}, 15),
        ({"epochs": 3, "max_steps": 4}, 4),
        ({"epochs": 3, "max_steps": 40}, 15),
        ({"epochs": None, "max_minutes": 1.0}, None),
    ],
)
def test_the_updates_of_a_run_are_known_unless_time_alone_ends_it(tiny_training, limits, total):
    assert tiny_training.plan(9, **limits).total_steps == total


def test_validations_and_checkpoints_come_when_due_and_at_the_end(tiny_training):
    plan = tiny_training.plan(20, validate_every=3, save_every=4)
    states = [after(step=step, epoch=step // 10) for step in range(1, 11)]
    assert [state.step for state in states if plan.validates_after(state)] == [3, 6, 9, 10]
    assert [state.step for state in states if plan.saves_after(state)] == [4, 8, 10]


def test_without_rows_to_validate_on_there_is_no_validation_at_the_end_either(tiny_training):
    assert not tiny_training.plan(20).validates_after(after(step=10, epoch=1))


def test_the_rate_goes_by_updates_not_by_batches(tiny_training):
    plan = tiny_training.plan(
        16, gradient_accumulation_steps=4, epochs=2, lr_schedule="linear", learning_rate=1.0, warmup_ratio=0.25
    )
    rates = [plan.learning_rate_for(after(step=step)) for step in range(4)]
    assert rates == pytest.approx([1.0, 1.0, 1 - 1 / 3, 1 - 2 / 3])


def test_minutes_become_steps_once_after_some_steps_were_timed(tiny_training):
    plan = tiny_training.plan(16, epochs=None, max_minutes=2.0)
    assert plan.horizon_after(after(step=4, seconds=20.0, later_seconds=15.0)) is None
    assert plan.horizon_after(after(step=5, seconds=30.0, later_seconds=20.0)) == 5 + 18
    assert plan.horizon_after(after(step=6, seconds=35.0, later_seconds=29.0, horizon=23)) is None
    assert (
        plan.horizon_after(after(step=5, seconds=130.0, later_seconds=20.0)) == 6
    )  # over already; one more is the least
    assert tiny_training.plan(16).horizon_after(after(step=5, later_seconds=20.0)) is None


def test_of_several_updates_of_the_same_rows_whole_rounds_are_timed(tiny_training):
    """Each round's first update takes 10 s, since answers are drawn before it, and the others one each."""
    plan = replace(tiny_training.plan(16, epochs=None, max_minutes=10.0), updates_a_window=8)
    later = {step: sum(10.0 if made % 8 == 1 else 1.0 for made in range(2, step + 1)) for step in (5, 8, 9)}
    found = {
        step: plan.horizon_after(after(step=step, seconds=10 + later[step], later_seconds=later[step]))
        for step in later
    }
    assert found == {5: None, 8: None, 9: 9 + int((600 - 27) / (17 / 8))}


def test_the_horizon_is_no_further_than_the_other_limits(tiny_training):
    plan = tiny_training.plan(16, max_steps=8, max_minutes=60.0)
    assert plan.horizon_after(after(step=5, seconds=30.0, later_seconds=20.0)) == 8


def test_the_schedule_is_that_of_the_horizon_and_until_then_of_a_long_run(tiny_training):
    plan = tiny_training.plan(
        16, epochs=None, max_minutes=2.0, lr_schedule="linear", learning_rate=1.0, warmup_ratio=0.01
    )
    assert plan.learning_rate_for(after(step=2)) == pytest.approx(0.3)
    rates = [plan.learning_rate_for(after(step=step, horizon=21)) for step in (6, 11, 20)]
    assert rates == pytest.approx([1 - 5 / 20, 1 - 10 / 20, 1 - 19 / 20])


def test_the_horizon_ends_the_run_though_the_clock_has_not(tiny_training):
    plan = tiny_training.plan(16, epochs=None, max_minutes=2.0)
    assert plan.ended(after(step=20, seconds=100.0, horizon=21)) is None
    assert plan.ended(after(step=21, seconds=100.0, horizon=21)) == "max_minutes"
    assert plan.ended(after(step=20, seconds=120.0, horizon=21)) == "max_minutes"


def test_the_cursor_moves_from_the_last_window_to_the_next_epoch():
    state = after(epoch=1, window=2)
    found = WindowSum(tokens=10, target_tokens=3, seconds=0.5)
    state.advance(found, last_of_epoch=False)
    assert (state.step, state.epoch, state.window) == (1, 1, 3)
    state.advance(found, last_of_epoch=True)
    assert (state.step, state.epoch, state.window) == (2, 2, 0)
    assert (state.seconds, state.later_seconds) == (1.0, 0.5)
    assert (state.tokens, state.target_tokens, state.seconds) == (20, 6, 1.0)


def test_only_a_better_validation_is_the_best_and_the_others_are_counted():
    state = after()
    told = []
    for step, loss in enumerate([2.0, 1.5, 1.5, 1.6, 1.4], 1):
        state.step = step
        told.append((state.note_validation(loss), state.best_step, state.bad_validations))
    assert told == [(True, 1, 0), (True, 2, 0), (False, 2, 1), (False, 2, 2), (True, 5, 0)]
