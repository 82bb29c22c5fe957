"""Curves: a planted fault is found with its numbers, and a sound run, however noisy, has no finding."""

import numpy as np
import pytest
from planted_runs import LEARNS, curve, evidence, looks

from mlxtune.iteration.diagnose import findings_of
from mlxtune.iteration.diagnose.learning import learning_rate_too_high, overfitting, underfitting


def kinds(found):
    return [(one.kind, one.severity) for one in findings_of(found)]


@pytest.mark.parametrize("noise", [0.05, 0.2, 0.4])
@pytest.mark.parametrize("seed", range(20))
def test_a_run_that_learns_and_flattens_has_no_finding(noise, seed):
    metrics = [*curve((1, 1.5), (60, 0.45), (150, 0.4), noise=noise, seed=seed), *looks((75, 0.5), (150, 0.46))]
    assert findings_of(evidence(metrics=metrics)) == []


@pytest.mark.parametrize("seed", range(20))
def test_a_long_text_whose_loss_falls_by_little_has_no_finding(seed):
    """Text goes on from a base that knows most of it: 2.9 to 2.75 nats, in batches that differ by more."""
    metrics = [*curve((1, 2.9), (200, 2.78), (600, 2.75), noise=0.08, seed=seed), *looks((300, 2.8), (600, 2.79))]
    scores = {"base": {"loss": {"mean": 2.95}}, "tuned": {"loss": {"mean": 2.79}}}
    assert findings_of(evidence(metrics=metrics, scores=scores)) == []


def test_a_curve_of_a_few_steps_says_nothing():
    for metrics in ([], curve((1, 5.0), (20, 9.0)), looks((1, 2.0))):
        assert findings_of(evidence(metrics=metrics, scores={"tuned": {"loss": {"mean": 3.0}}})) == []


def test_a_validation_loss_that_rises_while_the_training_loss_falls_is_overfitting():
    metrics = [*curve((1, 1.5), (50, 0.6), (150, 0.1)), *looks((50, 0.62), (100, 0.71), (150, 0.9))]
    (found,) = findings_of(evidence(metrics=metrics, scores={"tuned": {"loss": {"mean": 0.55}}}))
    assert (found.kind, found.severity, found.key) == (
        "overfitting",
        "hint",
        "evaluation.early_stopping_patience",
    )
    assert found.evidence["best_step"] == 50
    assert (found.evidence["best_valid_loss"], found.evidence["last_valid_loss"]) == (0.62, 0.9)
    assert found.evidence["train_loss_after"] < found.evidence["train_loss_before"]


def test_a_rise_of_a_percent_or_near_zero_is_none():
    for best, last in ((0.5, 0.52), (0.01, 0.02)):
        metrics = [*LEARNS[:150], *looks((50, 0.6), (100, best), (150, last))]
        assert overfitting(evidence(metrics=metrics, scores={"tuned": {"loss": {"mean": 0.5}}})) is None


def test_an_unseen_loss_worse_than_the_bases_is_overfitting_and_a_problem():
    scores = {"tuned": {"loss": {"mean": 1.9}}, "differences": {"loss": {"verdict": "worse"}}}
    found = overfitting(evidence(scores=scores, manifest={"finished": {"ended_by": "max_steps"}}))
    assert found is not None
    assert (found.severity, found.key) == ("problem", "training.max_steps")
    assert (found.evidence["unseen_loss_of_base"], found.evidence["unseen_loss_of_tuned"]) == (1.5, 1.9)


def test_rows_known_by_heart_beside_unseen_ones_that_are_not_are_overfitting():
    metrics = curve((1, 1.5), (100, 0.02), (150, 0.01))
    found = overfitting(evidence(metrics=metrics, scores={"tuned": {"loss": {"mean": 1.2}}}))
    assert found is not None
    assert found.evidence == {"train_loss_at_end": pytest.approx(0.012, abs=0.005), "unseen_loss_of_tuned": 1.2}
    assert overfitting(evidence(metrics=metrics, scores={"tuned": {"loss": {"mean": 0.3}}})) is None
    of_pairs = {"objective": {"type": "dpo"}}  # whose loss is of another kind
    assert overfitting(evidence(metrics=metrics, scores={"tuned": {"loss": {"mean": 1.2}}}, recipe=of_pairs)) is None


def test_a_loss_still_falling_at_the_end_is_underfitting():
    for ended_by, key in (("epochs", "training.epochs"), ("max_minutes", "training.max_minutes")):
        found = underfitting(
            evidence(metrics=curve((1, 2.0), (150, 0.5)), manifest={"finished": {"ended_by": ended_by}})
        )
        assert found is not None
        assert (found.severity, found.key) == ("hint", key)
        assert found.evidence["train_loss_before_the_end"] > found.evidence["train_loss_at_end"]


def test_a_loss_that_never_fell_is_underfitting_and_a_problem():
    flat = curve((1, 1.5), (150, 1.5))
    even = {"differences": {"loss": {"verdict": "not distinguishable"}}, "tuned": {"loss": {"mean": 1.5}}}
    assert kinds(evidence(metrics=flat, scores=even)) == [("underfitting", "problem")]
    assert underfitting(evidence(metrics=flat)) is None  # unseen rows say that it learned


def test_a_loss_that_was_next_to_nothing_from_the_beginning_is_no_underfitting():
    """A run that goes on from an adapter that knows these rows already has nothing to fall by."""
    even = {"differences": {"loss": {"verdict": "not distinguishable"}}, "tuned": {"loss": {"mean": 0.02}}}
    assert findings_of(evidence(metrics=curve((1, 0.02), (150, 0.02)), scores=even)) == []


def test_updates_that_were_left_out_are_a_rate_too_high():
    metrics = [*LEARNS[:150], {"step": 151, "skipped": "gradient", "seconds": 1.0, "rows": ["train.jsonl:3"]}]
    found = learning_rate_too_high(evidence(metrics=metrics))
    assert found is not None
    assert (found.severity, found.key) == ("problem", "training.learning_rate")
    assert found.evidence == {"skipped": 1, "learning_rate": 2e-4}
    assert "1 of 151 updates" in found.sentence


@pytest.mark.parametrize(
    "points",
    [
        ((1, 1.5), (40, 0.6), (60, 2.5), (150, 2.4)),
        ((1, 1.5), (30, 4.0), (150, 6.0)),
        ((1, 1.5), (120, 0.5), (150, 1.3)),
    ],
)
def test_a_loss_that_rises_again_is_a_rate_too_high_and_nothing_else(points):
    (found,) = findings_of(evidence(metrics=curve(*points), scores={"tuned": {"loss": {"mean": 3.0}}}))
    assert found.kind == "learning_rate_too_high"
    assert found.evidence["highest_loss_after"] > found.evidence["lowest_loss"]


def test_a_loss_that_blew_up_in_the_first_steps_and_fell_since_is_a_rate_too_high():
    """As measured at a hundred times the rate: 1.4, 7.8, 29, 82, 102, 69, and down to 6 in forty steps."""
    losses = [
        1.43,
        7.81,
        29.33,
        81.81,
        102.09,
        68.68,
        33.34,
        40.18,
        26.84,
        22.85,
        21.31,
        15.44,
        *np.linspace(15, 6, 28).tolist(),
    ]
    metrics = [{"step": step, "loss": loss} for step, loss in enumerate(losses, 1)]
    (found,) = findings_of(evidence(metrics=metrics))
    assert (found.kind, found.evidence["loss_at_start"]) == ("learning_rate_too_high", 1.43)
    assert found.evidence["highest_loss_after"] > 40


def test_a_single_hard_batch_is_no_rise():
    metrics = curve((1, 1.5), (60, 0.45), (150, 0.4))
    metrics[100]["loss"] = 3.0
    assert learning_rate_too_high(evidence(metrics=metrics)) is None


def test_noise_alone_is_seldom_taken_for_anything():
    """Of a thousand runs that only flicker around one loss, at most a few have a rate that is called too high."""
    flat = [curve((1, 1.0), (200, 1.0), noise=0.3, seed=seed) for seed in range(1000)]
    found = [learning_rate_too_high(evidence(metrics=metrics)) is not None for metrics in flat]
    assert np.mean(found) <= 0.005


def test_a_worse_loss_on_written_answers_is_no_overfitting_where_pairs_were_learned():
    scores = {"tuned": {"loss": {"mean": 1.9}}, "differences": {"loss": {"verdict": "worse"}}}
    assert overfitting(evidence(scores=scores, recipe={"objective": {"type": "dpo"}})) is None
