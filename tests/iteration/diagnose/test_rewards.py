"""Runs that learn from drawn answers: what their rewards say, and that no threshold of nats is held against them."""

import numpy as np
import pytest
from planted_runs import evidence

from mlxtune.iteration.diagnose import findings_of, findings_so_far

RECIPE = {"objective": {"type": "grpo", "max_tokens": 48}}


def rewards(start, end, *, steps=60, deviation=0.3, cut=0.0, noise=0.1, seed=0):
    """A line a step, as the loop has them: a loss that is less the reward, and the figures of grpo."""
    drawn = np.linspace(start, end, steps) + noise * np.random.default_rng(seed).standard_normal(steps)
    figures = {"reward_deviation": deviation, "answer_tokens": 20.0, "cut_share": cut, "kl": 0.01}
    line = {"learning_rate": 2e-4, "grad_norm": 1.0}
    return [
        {"step": number, "loss": -float(reward), "reward": float(reward), **figures, **line}
        for number, reward in enumerate(drawn, 1)
    ]


def found_in(metrics, **planted):
    return findings_of(evidence(metrics=metrics, recipe=RECIPE, **planted))


@pytest.mark.parametrize("seed", range(20))
def test_rewards_that_rise_have_no_finding(seed):
    assert found_in(rewards(0.2, 0.9, seed=seed)) == []


def test_nor_has_a_loss_on_written_answers_that_is_worse_nor_a_validation_that_varies():
    """What is rewarded need not be what rows say; and of a greedy answer to few rows one more is wrong by chance."""
    looks = [{"step": step, "valid_loss": loss, "valid_seconds": 1.0} for step, loss in ((20, -0.9), (60, -0.85))]
    scores = {"tuned": {"loss": {"mean": 1.9}}, "differences": {"loss": {"verdict": "worse"}}}
    assert found_in([*rewards(0.2, 0.9), *looks], scores=scores) == []


@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_groups_whose_answers_are_all_worth_the_same_are_a_problem_and_the_adapters_idleness_its_effect(reward):
    metrics = rewards(reward, reward, deviation=0.0, noise=0.0)
    (found,) = found_in(metrics, manifest={"update": {"relative_norm": 0.0, "largest": 0.0}})
    assert (found.kind, found.severity, found.key) == ("nothing_to_prefer", "problem", "objective.rewards")
    assert found.evidence["updates_alike"] == 60
    assert "model.adapter" in found.remedy


def test_rewards_that_fell_are_steps_that_were_too_large():
    (found,) = found_in(rewards(0.8, 0.2))
    assert (found.kind, found.severity, found.key) == ("learning_rate_too_high", "problem", "training.learning_rate")
    assert found.evidence["reward_at_start"] > found.evidence["reward_at_end"]
    assert found.sentence.startswith("the mean reward of the answers that were drawn fell: 0.7")
    assert findings_so_far(evidence(metrics=rewards(0.8, 0.2), recipe=RECIPE)) == [found]


def test_answers_that_are_cut_are_a_hint():
    (found,) = found_in(rewards(0.2, 0.9, cut=0.75))
    assert (found.kind, found.severity, found.key) == ("answers_are_cut", "hint", "objective.max_tokens")
    assert found.evidence == {"cut_share_at_end": 0.75, "max_tokens": 48}


def test_rewards_that_did_not_rise_are_a_hint_once_the_run_is_over():
    metrics = rewards(0.4, 0.4)
    (found,) = found_in(metrics)
    assert (found.kind, found.severity, found.key) == ("underfitting", "hint", "training.epochs")
    assert findings_so_far(evidence(metrics=metrics, recipe=RECIPE)) == []


def test_a_few_steps_say_nothing():
    assert found_in(rewards(0.9, 0.0, steps=20, cut=1.0)) == []


def test_updates_that_were_left_out_are_told_as_ever():
    skipped = [{"step": 61, "skipped": "gradient", "seconds": 1.0, "rows": ["a:1"]}]
    (found,) = found_in([*rewards(0.2, 0.9), *skipped])
    assert found.sentence.startswith("1 of 61 updates were left out")
