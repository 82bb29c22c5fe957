"""The loss of drawn answers is the paper's, and so is its gradient, in whatever parts it is read."""

import mlx.core as mx
import numpy as np
import pytest
from adapted import started_llama
from hypothesis import given
from hypothesis import strategies as st
from mlx import nn
from mlx.utils import tree_flatten
from reference import grpo as paper
from reference.preference import slopes

from mlxtune.data.batch import make_batch
from mlxtune.data.render import Rendered
from mlxtune.inference.likelihood import make_reader
from mlxtune.iteration.rollouts import Drawn
from mlxtune.training.objectives.grpo import advantages, grpo

LENGTHS = (3, 6, 1, 4)
REWARDS = (1.0, 0.0, 0.5, 1.0)
LONGEST = 8
PROMPT = 9
UNDERFLOW = -104
"""Nats below which float32 knows no probability but 0."""

KINDS = {
    "as drawn": {},
    "kept close": {"beta": 0.3},
    "again": {"num_iterations": 2},
    "again, kept close": {"num_iterations": 2, "beta": 0.3},
    "clipped otherwise above": {"num_iterations": 2, "epsilon": 0.1, "epsilon_high": 0.6},
    "dr. grpo": {"loss": "dr_grpo"},
    "dr. grpo, again, kept close": {"loss": "dr_grpo", "num_iterations": 2, "beta": 0.3},
}


@given(rewards=st.lists(st.floats(-2, 2), min_size=2, max_size=8), by_deviation=st.booleans())
def test_an_advantage_is_the_papers(rewards, by_deviation):
    if 0 < np.std(rewards) < 1e-5:
        return  # what differs by rounding alone counts as the same
    found = advantages(np.array(rewards), by_deviation=by_deviation)
    np.testing.assert_allclose(found, paper.advantages(rewards, by_deviation=by_deviation), atol=1e-6)


def test_groups_are_compared_within_themselves():
    found = advantages(np.array([[1.0, 0.0], [5.0, 5.0]]), by_deviation=True)
    assert found.tolist() == [[1, -1], [0, 0]]


def answers():
    """A group: one prompt, and answers of several lengths."""
    draw = np.random.default_rng(0)
    prompt = draw.integers(3, 250, PROMPT)
    rows = [np.concatenate([prompt, draw.integers(3, 250, length)]).astype(np.int32) for length in LENGTHS]
    return [Rendered(ids, np.arange(len(ids)) >= PROMPT, "rows.jsonl:1") for ids in rows]


def log_probabilities(made, rows):
    """Of each row's targets, by whole logits, lazily."""
    found = []
    for row in rows:
        logits = made(mx.array(row.token_ids[None, :-1]))[0]
        logits = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        at = np.flatnonzero(row.is_target)
        found.append(mx.take_along_axis(logits[mx.array(at - 1)], mx.array(row.token_ids[at])[:, None], axis=-1)[:, 0])
    return found


def elsewhere(now, seed):
    """Log-probabilities a little off, some by more than clipping allows."""
    draw = np.random.default_rng(seed)
    return [values + draw.normal(0, 0.3, len(values)).astype(np.float32) for values in now]


def setting(kind):
    """The objective, a network, drawn answers as the objective is given them, and the paper's loss of [targets]."""
    options = {"group_size": len(REWARDS), "max_tokens": LONGEST, **KINDS[kind]}
    objective, made, rows = grpo(**options), started_llama(), answers()
    now = [np.array(values) for values in log_probabilities(made, rows)]
    then, start = elsewhere(now, 1), elsewhere(now, 2)
    drawing = objective.drawing
    scores = advantages(np.array([REWARDS]), by_deviation=drawing.by_deviation)[0]
    told = np.array([scores, REWARDS, [np.std(REWARDS)] * len(rows), [0, 1, 0, 0]], np.float32).T
    kinds = [values for values, is_there in ((then, drawing.remembers), (start, drawing.compares)) if is_there]
    epsilon = options.get("epsilon", 0.2)
    cuts = np.cumsum(LENGTHS)[:-1]

    def loss(*flat):
        return paper.grpo_loss(
            np.split(np.array(flat), cuts),
            then if drawing.remembers else now,
            start,
            REWARDS,
            beta=options.get("beta", 0.0),
            below=epsilon,
            above=options.get("epsilon_high", epsilon),
            length=LONGEST if options.get("loss") == "dr_grpo" else None,
        )

    return objective, made, Drawn(rows, told, kinds), np.concatenate(now), loss


def read(objective, made, drawn, numbers, multiple=1):
    """Loss, figures and gradient of some of the answers, as sums."""
    batch = make_batch(drawn.rows, numbers, share_prefix=True, multiple=multiple)
    beside = drawn.beside(numbers, batch.target_id.size)
    reader = make_reader(made)
    figures = []

    def loss():
        batch_loss, sums = objective.loss(reader, type(batch).of_arrays([*batch.arrays(), *beside]))
        figures[:] = sums
        return batch_loss

    found, gradients = nn.value_and_grad(made, loss)()
    return float(found), [float(one) for one in figures], dict(tree_flatten(gradients))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("multiple", [1, 8], ids=["as they are", "padded"])
def test_loss_and_gradient_are_the_papers(kind, multiple):
    objective, made, drawn, now, loss = setting(kind)
    found, _, gradients = read(objective, made, drawn, range(len(REWARDS)), multiple)
    assert found / len(REWARDS) + np.mean(REWARDS) == pytest.approx(loss(*now), abs=2e-5)
    slope = np.split(len(REWARDS) * np.array(slopes(loss, now.astype(float))), np.cumsum(LENGTHS)[:-1])

    def weighed():
        terms = zip(log_probabilities(made, drawn.rows), slope, strict=True)
        return sum(mx.sum(values * mx.array(weights.astype(np.float32))) for values, weights in terms)

    _, whole = nn.value_and_grad(made, weighed)()
    largest = max(float(mx.abs(array).max()) for _, array in tree_flatten(whole))
    assert largest > 1e-3
    for name, other in tree_flatten(whole):
        np.testing.assert_allclose(np.array(gradients[name]), np.array(other), atol=2e-3 * largest, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_the_figures_are_means_over_answers(kind):
    objective, made, drawn, now, _ = setting(kind)
    _, sums, _ = read(objective, made, drawn, range(len(REWARDS)))
    figures = dict(zip(objective.figures, np.array(sums) / len(REWARDS), strict=True))
    told = {"reward": np.mean(REWARDS), "reward_deviation": np.std(REWARDS), "answer_tokens": np.mean(LENGTHS)}
    for name, value in {**told, "cut_share": 0.25}.items():
        assert figures.pop(name) == pytest.approx(value, rel=1e-5)
    per_answer = np.split(now, np.cumsum(LENGTHS)[:-1])
    if "kl" in figures:
        each = [np.mean(paper.kl_estimate(*pair)) for pair in zip(per_answer, drawn.log_probabilities[-1], strict=True)]
        assert figures.pop("kl") == pytest.approx(np.mean(each), rel=1e-3)
    if "clipped_share" in figures:
        options = KINDS[kind]
        below, above = options.get("epsilon", 0.2), options.get("epsilon_high", options.get("epsilon", 0.2))
        scores, stopped = drawn.told[:, 0], []
        for score, values, then in zip(scores, per_answer, drawn.log_probabilities[0], strict=True):
            ratio = np.exp(values - then)
            stopped.append(np.mean(ratio > 1 + above if score > 0 else (ratio < 1 - below) & (score < 0)))
        assert 0 < np.mean(stopped) < 1
        assert figures.pop("clipped_share") == pytest.approx(np.mean(stopped), rel=1e-4)
    assert not figures


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_may_be_read_in_parts(kind):
    objective, made, drawn, _, _ = setting(kind)
    loss, figures, gradients = read(objective, made, drawn, range(len(REWARDS)))
    parts = [read(objective, made, drawn, numbers) for numbers in ((0, 1), (2,), (3,))]
    assert sum(part[0] for part in parts) == pytest.approx(loss, abs=1e-4)
    np.testing.assert_allclose(np.sum([part[1] for part in parts], axis=0), figures, rtol=1e-4, atol=1e-5)
    for name, whole in gradients.items():
        together = sum(np.array(part[2][name]) for part in parts)
        np.testing.assert_allclose(together, np.array(whole), atol=1e-4 * max(1e-2, float(mx.abs(whole).max())))


def test_answers_that_are_all_alike_teach_nothing():
    objective, made, drawn, _, _ = setting("as drawn")
    drawn.told[:, 0] = advantages(np.array([1.0, 1.0, 1.0, 1.0]), by_deviation=True)
    _, _, gradients = read(objective, made, drawn, range(len(REWARDS)))
    assert all(float(mx.abs(array).max()) == 0 for array in gradients.values())


@pytest.mark.parametrize("kind", ["kept close", "again, kept close"])
def test_padding_that_is_as_unlikely_as_can_be_has_no_part_in_it(kind):
    objective, made, drawn, _, _ = setting(kind)
    made.model.norm.weight = made.model.norm.weight * 100
    now = [np.array(values) for values in log_probabilities(made, drawn.rows)]
    for row in drawn.rows:
        logits = made(mx.array(row.token_ids[None]))[0]
        unlikely = logits[:, 0] - mx.logsumexp(logits, axis=-1)  # token 0, which padding has
        assert float(mx.max(unlikely).item()) < UNDERFLOW
    drawn = Drawn(drawn.rows, drawn.told, [now] * len(drawn.log_probabilities))
    alone, padded = (read(objective, made, drawn, range(len(REWARDS)), multiple) for multiple in (1, 8))
    assert np.isfinite(alone[0])
    assert padded[0] == pytest.approx(alone[0], abs=1e-3)
    for name, gradient in alone[2].items():
        assert np.isfinite(np.array(padded[2][name])).all()
        np.testing.assert_allclose(
            np.array(padded[2][name]), np.array(gradient), atol=1e-2 * float(mx.abs(gradient).max())
        )
