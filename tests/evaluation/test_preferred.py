"""How often the better of two answers is likelier: as a whole, and by a token."""

import numpy as np

from mlxtune.evaluation.calibration import calibration_of
from mlxtune.evaluation.heldout import HeldOut
from mlxtune.evaluation.preferred import preferred


def heldout(nats, counts):
    none = np.zeros(len(nats))
    return HeldOut(
        np.array(nats, float), np.array(counts), none, none + 1, calibration_of(np.zeros(0), np.zeros(0, bool))
    )


def test_a_pair_counts_whole_half_or_nothing():
    better, worse = heldout([4.0, 9.0, 5.0, 6.0], [2, 9, 1, 3]), heldout([6.0, 6.0, 5.0, 4.0], [2, 3, 1, 4])
    found = preferred(better, worse)
    assert found["preferred"].sums[:, 0].tolist() == [1, 0, 0.5, 0]
    # Nats a token: 2 and 3; 1 and 2; 5 and 5; 2 and 1.
    assert found["preferred_a_token"].sums[:, 0].tolist() == [1, 1, 0.5, 0]
    assert found["preferred_a_token"].value == 2.5 / 4
    assert found["preference_margin"].sums[:, 0].tolist() == [2, -3, 0, -2]


def test_two_models_are_told_apart_pair_by_pair():
    less, more = heldout([1.0] * 12, [1] * 12), heldout([2.0] * 12, [1] * 12)
    difference = preferred(less, more)["preferred"].minus(preferred(more, less)["preferred"], seed=0)
    assert difference.mean == 1
    assert difference.p_value < 0.01
