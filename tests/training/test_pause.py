"""A pause between two steps, where the clock and the one who asks are played: what happens, and in which order."""

import numpy as np

from mlxtune.device.distributed import ALONE, Ranks
from mlxtune.training.pause import Pause, stops_here


class Told:
    """What happened, in order; asks for a pause in some looks, and for a stop in one."""

    def __init__(self, *waits, stop_at=None):
        self.happened = []
        self._waits = iter(waits)
        self._stop_at = stop_at

    def pause(self):
        return Pause(
            is_asked=lambda: next(self._waits, False),
            began=lambda step: self.happened.append(f"began {step}"),
            ended=lambda: self.happened.append("ended"),
            wait=lambda: self.happened.append("wait"),
        )

    def should_stop(self):
        self.happened.append("stop?")
        return self.happened.count("stop?") == self._stop_at

    def here(self, ranks=ALONE):
        save = lambda: self.happened.append("save")  # noqa: E731 - as short as what it stands for
        return stops_here(self.pause(), ranks, self.should_stop, step=3, save=save)


def test_without_a_wish_nothing_happens():
    told = Told(False)
    assert told.here() is False
    assert told.happened == []


def test_a_pause_is_saved_before_it_is_told_and_lasts_until_it_is_taken_back():
    told = Told(True, True, True, False)
    assert told.here() is False
    assert [what for what in told.happened if what != "stop?"] == ["save", "began 3", "wait", "wait", "wait", "ended"]


def test_a_wish_to_stop_ends_a_pause():
    told = Told(*[True] * 9, stop_at=3)
    assert told.here() is True
    assert [what for what in told.happened if what != "stop?"] == ["save", "began 3", "wait", "wait", "ended"]


def test_who_is_to_stop_does_not_begin_to_wait():
    told = Told(True, stop_at=1)
    assert told.here() is True
    assert told.happened == ["stop?"]


def test_ranks_wait_and_go_on_by_the_first_one_s_wish_and_stop_by_anyone_s():
    """This is rank 1, which is never asked itself; rank 0 is played."""
    first = iter([[1, 0], [1, 0], [0, 0], [0, 1]])
    said = []

    def gather(own):
        said.append(np.array(own)[0].tolist())
        return np.concatenate([np.array([next(first)], float), np.array(own)])

    ranks = Ranks(rank=1, size=2, all_gather=gather)
    told = Told()
    assert told.here(ranks) is False
    assert [what for what in told.happened if what != "stop?"] == ["save", "began 3", "wait", "wait", "ended"]
    assert said == [[0.0, 0.0]] * 3
    assert told.here(ranks) is True


def test_a_pause_changes_no_bit_of_what_is_learned_nor_a_count(tiny_training):
    rows = tiny_training.rows([4, 9, 6, 7, 5, 8])
    plan = tiny_training.plan(rows, save_every=2)
    states = [tiny_training.state(dropout=0.3) for _ in range(2)]
    undisturbed = tiny_training.train(states[0], plan, rows)
    looks = iter([False, True, True, False, True, False])
    paused = tiny_training.train(
        states[1], plan, rows, pause=Pause(is_asked=lambda: next(looks, False), wait=lambda: None)
    )
    assert paused.losses == undisturbed.losses
    assert paused.saved == [1, 2, 3]  # before the first pause; the second found a checkpoint
    assert undisturbed.saved == [2, 3]
    adapters = [tiny_training.adapter(state) for state in states]
    assert all(np.array_equal(array, adapters[1][name]) for name, array in adapters[0].items())
    same = [{k: v for k, v in state.counters().items() if not k.endswith("seconds")} for state in states]
    assert same[0] == same[1]
    assert states[1].seconds == sum(line["seconds"] for line in paused.lines if "seconds" in line)
