"""Confidence held against the share that is right, bin by bin, as Guo et al. (2017) define it."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxtune.evaluation.calibration import BINS, Calibration, calibration_of

CONFIDENCES = st.floats(0.0, 1.0)


def by_the_formula(confidences, hits):
    """sum_m |B_m| / n * |acc(B_m) - conf(B_m)|, B_m being the tokens with a confidence in [m / M, (m + 1) / M)."""
    error = 0.0
    for m in range(BINS):
        last = m == BINS - 1
        members = [i for i, p in enumerate(confidences) if m / BINS <= p and (p < (m + 1) / BINS or last)]
        if members:
            accuracy, confidence = np.mean([hits[i] for i in members]), np.mean([confidences[i] for i in members])
            error += len(members) / len(confidences) * abs(accuracy - confidence)
    return error


@given(st.lists(st.tuples(CONFIDENCES, st.booleans()), min_size=1, max_size=60))
def test_the_error_is_the_papers(tokens):
    confidences, hits = (np.array(column) for column in zip(*tokens, strict=True))
    # A confidence a rounding away from a bound may fall on either side of it.
    confidences = np.round(confidences, 4) + 1e-5
    found = calibration_of(confidences, hits)
    assert found.error == pytest.approx(by_the_formula(np.minimum(confidences, 1.0), hits), abs=2e-5)
    assert found.count.sum() == len(tokens)


def test_who_is_as_often_right_as_sure_has_no_error():
    confidences = np.array([0.5] * 10 + [0.9] * 10)
    hits = np.array([True] * 5 + [False] * 5 + [True] * 9 + [False])
    assert calibration_of(confidences, hits).error == pytest.approx(0, abs=1e-12)


def test_who_is_always_sure_and_right_half_the_time_is_off_by_a_half():
    found = calibration_of(np.ones(8, np.float32), np.array([True, False] * 4))
    assert found.error == pytest.approx(0.5)
    last = {"low": (BINS - 1) / BINS, "high": 1.0, "count": 8, "confidence": 1.0, "accuracy": 0.5}
    assert found.summary()["bins"][-1] == last


def test_every_bin_is_shown_and_holds_its_own_tokens_or_says_nothing():
    shown = calibration_of(np.array([0.1, 0.11, 0.95]), np.array([False, True, True])).summary()["bins"]
    assert len(shown) == BINS
    filled = [part for part in shown if part["count"]]
    assert [(part["count"], part["accuracy"]) for part in filled] == [(2, 0.5), (1, 1.0)]
    assert all(part["low"] <= part["confidence"] <= part["high"] for part in filled)
    assert {(part["confidence"], part["accuracy"]) for part in shown if not part["count"]} == {(None, None)}


def test_a_network_that_says_no_numbers_has_no_confidence():
    found = calibration_of(np.array([np.nan, np.inf, 1.0000001]), np.array([True, False, True]))
    assert (found.count[0], found.count[-1]) == (1, 2)
    assert np.isfinite(found.error)


def test_it_survives_being_written_as_json():
    found = calibration_of(np.array([0.2, 0.7]), np.array([True, False]))
    again = Calibration.from_json(json.loads(json.dumps(found.to_json())))
    assert again.summary() == found.summary()
    with pytest.raises(ValueError, match="no sums of calibration bins"):
        Calibration.from_json(found.to_json() | {"count": [1, 2]})
