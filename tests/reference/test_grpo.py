"""The reference of GRPO says what its papers say, where that can be worked out by hand."""

import numpy as np
import pytest
from reference.grpo import advantages, clip_share, grpo_loss, kl_estimate
from reference.preference import slopes

REWARDS = [1.0, 0.0, 0.0, 1.0]
LENGTHS = [1, 2, 3, 4]
DRAWN = [[-1.0] * length for length in LENGTHS]


def test_advantages_are_rewards_beside_the_group_s():
    assert advantages(REWARDS).tolist() == [1, -1, -1, 1]
    assert advantages(REWARDS, by_deviation=False).tolist() == [0.5, -0.5, -0.5, 0.5]
    assert advantages([1.0, 1.0]).tolist() == [0, 0]


@pytest.mark.parametrize(("length", "each"), [(None, [1.0, -0.5, -1 / 3, 0.25]), (10, [0.05, -0.05, -0.05, 0.05])])
def test_where_answers_were_drawn_the_slope_is_that_of_the_policy_gradient(length, each):
    for answer, expected in enumerate(each):

        def loss(shift, answer=answer):
            now = [[value + shift * (i == answer) for value in row[:1]] + row[1:] for i, row in enumerate(DRAWN)]
            return grpo_loss(now, DRAWN, DRAWN, REWARDS, beta=0.0, length=length)

        assert slopes(loss, [0.0])[0] == pytest.approx(-expected / 4, rel=1e-5)


def test_a_token_that_has_gone_far_enough_pushes_no_further():
    now = [[-0.5], *DRAWN[1:]]

    def loss(value):
        return grpo_loss([[value], *DRAWN[1:]], DRAWN, DRAWN, REWARDS, beta=0.0)

    assert slopes(loss, [-0.5]) == [0]
    assert clip_share(now, DRAWN, REWARDS) == 0.1


def test_the_divergence_is_least_at_the_reference():
    assert kl_estimate([-1.0, -2.0], [-1.0, -2.0]).tolist() == [0, 0]
    assert (kl_estimate([-1.0, -2.0], [-1.5, -1.5]) > 0).all()
    draw = np.random.default_rng(0).choice(3, 200_000, p=[0.5, 0.3, 0.2])
    policy, reference = np.log([0.5, 0.3, 0.2]), np.log([0.2, 0.3, 0.5])
    exact = np.sum(np.exp(policy) * (policy - reference))
    assert np.mean(kl_estimate(policy[draw], reference[draw])) == pytest.approx(exact, rel=0.02)
