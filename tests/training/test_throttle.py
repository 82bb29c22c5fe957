"""What the machine says is played, and so is the clock."""

import numpy as np
import pytest

from mlxtune.device.power import PowerReadings
from mlxtune.training.pause import Pause
from mlxtune.training.throttle import LOOK_EVERY_S, PATIENCE_S, Manners, Throttle

ALL = Manners("pause", "pause", "pause")
HOT = PowerReadings(thermal="heavy")


class Played:
    """A machine whose readings are set, and a clock that goes on where somebody sleeps."""

    def __init__(self, manners=ALL, **readings):
        self.now, self.slept, self.looks, self.takes = 0.0, 0.0, 0, 0.0
        self.readings = PowerReadings(**readings)
        self.throttle = Throttle(manners, read=self.read, clock=lambda: self.now, sleep=self.sleep)

    def read(self):
        self.looks += 1
        self.now += self.takes
        return self.readings

    def sleep(self, seconds):
        assert seconds > 0
        self.now += seconds
        self.slept += seconds


@pytest.mark.parametrize(
    ("readings", "key"),
    [
        ({"on_battery": True}, "battery"),
        ({"thermal": "heavy"}, "thermal"),
        ({"thermal": "critical"}, "thermal"),
        ({"memory_pressure": "critical"}, "memory_pressure"),
    ],
)
def test_a_reason_to_wait_names_the_key_that_would_have_it_ignored(readings, key):
    assert f"training.throttle.{key}: ignore" in Played(**readings).throttle.why_to_wait()
    assert Played(Manners(), **readings).throttle.why_to_wait() is None


@pytest.mark.parametrize(
    "readings", [{}, {"on_battery": False}, {"thermal": "moderate"}, {"memory_pressure": "warning"}]
)
def test_what_is_well_or_unknown_is_no_reason(readings):
    assert Played(**readings).throttle.why_to_wait() is None


def test_the_machine_is_looked_at_every_few_seconds_and_not_at_every_step():
    played = Played()
    for _ in range(100):
        played.throttle.why_to_wait()
        played.throttle.share()
    assert played.looks == 1
    played.readings = PowerReadings(on_battery=True)
    assert played.throttle.why_to_wait() is None
    played.now += LOOK_EVERY_S
    assert played.throttle.why_to_wait() is not None
    assert played.looks == 2


def test_a_look_that_takes_long_is_made_less_often():
    played = Played()
    played.takes = 3.0
    played.throttle.why_to_wait()
    played.now += 59.0
    played.throttle.why_to_wait()
    assert played.looks == 1
    played.now += 1.0
    played.throttle.why_to_wait()
    assert played.looks == 2


def test_who_ignores_everything_looks_at_nothing():
    played = Played(Manners(max_gpu_share=0.5), on_battery=True)
    assert played.throttle.why_to_wait() is None
    assert played.looks == 0


def test_a_wait_for_memory_ends_where_waiting_does_not_help_and_may_come_again():
    played = Played(memory_pressure="critical")
    assert played.throttle.why_to_wait() is not None
    played.now += PATIENCE_S
    assert played.throttle.why_to_wait() is None
    played.readings, played.now = PowerReadings(memory_pressure="normal"), played.now + LOOK_EVERY_S
    assert played.throttle.why_to_wait() is None
    played.readings, played.now = PowerReadings(memory_pressure="critical"), played.now + LOOK_EVERY_S
    assert played.throttle.why_to_wait() is not None


@pytest.mark.parametrize(
    ("manners", "readings", "share"),
    [
        (Manners(max_gpu_share=0.9), {}, 0.9),
        (Manners(thermal="slow"), {"thermal": "heavy"}, 0.5),
        (Manners(thermal="slow", max_gpu_share=0.2), {"thermal": "heavy"}, 0.2),
        (Manners(thermal="slow"), {"thermal": "moderate"}, 1.0),
        (Manners(), {"thermal": "heavy"}, 1.0),
    ],
)
def test_steps_take_their_share_of_the_time_and_no_more(manners, readings, share):
    played = Played(manners, **readings)
    assert played.throttle.share() == share
    played.throttle.rest(3.0)
    assert 3.0 / (3.0 + played.slept) == pytest.approx(share)


def test_a_rest_is_broken_off_where_the_run_is_to_stop():
    played = Played(Manners(max_gpu_share=0.1))
    played.throttle.rest(10.0, should_stop=lambda: played.slept >= 1.0)
    assert played.slept == pytest.approx(1.0)


def test_the_loop_rests_between_two_steps_for_what_the_step_took_and_learns_the_same(tiny_training):
    rows = tiny_training.rows([4, 9, 6, 7, 5, 8])
    plan = tiny_training.plan(rows)
    rested = []
    states = [tiny_training.state() for _ in range(2)]
    plain = tiny_training.train(states[0], plan, rows)
    found = tiny_training.train(states[1], plan, rows, pause=Pause(rest=rested.append))
    assert found.losses == plain.losses
    seconds = [line["seconds"] for line in found.lines if "loss" in line]
    assert len(seconds) == 3
    assert rested == pytest.approx([0.0, *seconds[:-1]])  # none after the last
    assert states[1].seconds == pytest.approx(sum(seconds))
    adapters = [tiny_training.adapter(state) for state in states]
    assert all(np.array_equal(array, adapters[1][name]) for name, array in adapters[0].items())
