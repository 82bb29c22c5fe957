"""How long a sweep was worked at: over all attempts, once for those at the same time, and nothing for the pauses."""

from mlxtune.iteration.sweep.clock import WRITTEN_EVERY_S, seconds_worked, start_clock


class Time:
    def __init__(self, now=1000.0):
        self.now = now

    def __call__(self):
        return self.now


def test_attempts_add_up_and_what_lies_between_them_does_not_count(tmp_path):
    time = Time()
    first = start_clock(tmp_path / "attempts", time)
    time.now += 100
    assert first.seconds() == 100
    time.now += 3600
    second = start_clock(tmp_path / "attempts", time)
    time.now += 10
    assert second.seconds() == 110


def test_two_processes_at_once_count_once(tmp_path):
    time = Time()
    first = start_clock(tmp_path / "attempts", time)
    time.now += 50
    second = start_clock(tmp_path / "attempts", time)
    time.now += 50
    first.tick()
    second.tick()
    assert first.seconds() == second.seconds() == 100
    assert seconds_worked(tmp_path / "attempts") == 100


def test_a_killed_attempt_counts_until_it_was_last_written_down(tmp_path):
    time = Time()
    killed = start_clock(tmp_path / "attempts", time)
    time.now += WRITTEN_EVERY_S
    killed.tick()
    time.now += WRITTEN_EVERY_S / 2
    killed.tick()
    assert seconds_worked(tmp_path / "attempts") == WRITTEN_EVERY_S
