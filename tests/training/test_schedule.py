import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxtune.training.schedule import learning_rate_at

PEAK, TOTAL, WARMUP = 3e-4, 20, 5
AFTER = np.arange(TOTAL - WARMUP) / (TOTAL - WARMUP)
FORMULAS = {
    "cosine": PEAK * (1 + np.cos(np.pi * AFTER)) / 2,
    "linear": PEAK * (1 - AFTER),
    "constant": np.full(TOTAL - WARMUP, PEAK),
}


@pytest.mark.parametrize("kind", FORMULAS)
def test_the_rate_rises_evenly_and_then_follows_the_formula(kind):
    rates = [learning_rate_at(step, TOTAL, peak=PEAK, warmup_steps=WARMUP, kind=kind) for step in range(TOTAL)]
    rising = PEAK * np.arange(1, WARMUP + 1) / WARMUP
    np.testing.assert_allclose(rates, np.concatenate([rising, FORMULAS[kind]]), rtol=1e-12)


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_the_rate_is_zero_where_the_last_update_is_past(kind):
    for step in (TOTAL, TOTAL + 3):
        assert learning_rate_at(step, TOTAL, peak=PEAK, warmup_steps=WARMUP, kind=kind) == pytest.approx(0, abs=1e-18)


def test_without_warm_up_the_first_update_has_the_highest_rate():
    assert learning_rate_at(0, TOTAL, peak=PEAK, warmup_steps=0, kind="cosine") == PEAK


def test_a_run_that_is_all_warm_up_never_falls():
    rates = [learning_rate_at(step, 4, peak=PEAK, warmup_steps=4, kind="cosine") for step in range(4)]
    np.testing.assert_allclose(rates, PEAK * np.array([0.25, 0.5, 0.75, 1.0]))


@given(
    step=st.floats(0, 1200),
    total=st.integers(1, 1000),
    share=st.floats(0, 1),
    kind=st.sampled_from(["cosine", "linear", "constant"]),
)
def test_the_rate_is_never_above_its_highest_nor_below_zero(step, total, share, kind):
    rate = learning_rate_at(step, total, peak=PEAK, warmup_steps=round(share * total), kind=kind)
    assert 0 <= rate <= PEAK
