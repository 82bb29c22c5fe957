"""Losses of pairs are those of their papers, and their gradients those of the network's log-probabilities."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from adapted import started_llama
from hypothesis import given
from hypothesis import strategies as st
from mlx import nn
from mlx.utils import tree_flatten
from reference.preference import dpo_loss, ipo_loss, kto_loss, orpo_loss, slopes

from mlxtune.data.batch import make_batch
from mlxtune.data.render import Rendered
from mlxtune.inference.likelihood import make_reader
from mlxtune.training.objectives import OBJECTIVES, dpo, kto, orpo
from mlxtune.training.objectives.objective import RowSums

NATS = st.floats(-30, -0.5)
PAIR = st.tuples(NATS, NATS, NATS, NATS)
BETA = 0.3
POINT = 2.0


def loss_of(objective, *values, count=(4, 6), point=0.0):
    """Of one pair: (w, l, w_ref, l_ref), or (w, l)."""
    w, l, *references = values  # noqa: E741 - the papers' letters
    rows = RowSums(*(mx.array(one, mx.float32) for one in ([w, l], list(count), references or [0, 0])), point)
    loss, figures = objective.of_rows(rows)
    return float(loss), dict(zip(objective.figures, map(float, figures), strict=True))


@given(pair=PAIR, smoothing=st.sampled_from([0.0, 0.1, 0.4]))
def test_dpo_is_the_papers(pair, smoothing):
    found, figures = loss_of(dpo(beta=BETA, label_smoothing=smoothing), *pair)
    assert found == pytest.approx(dpo_loss(*pair, beta=BETA, smoothing=smoothing), rel=1e-4, abs=1e-5)
    w, l, w_ref, l_ref = pair  # noqa: E741
    assert figures["reward_margin"] == pytest.approx(BETA * ((w - w_ref) - (l - l_ref)), abs=1e-4)
    assert figures["reward_chosen"] == pytest.approx(BETA * (w - w_ref), abs=1e-4)


@given(pair=PAIR)
def test_ipo_is_the_papers(pair):
    found, _ = loss_of(dpo(beta=BETA, loss="ipo"), *pair)
    assert found == pytest.approx(ipo_loss(*pair, tau=BETA), rel=1e-3, abs=1e-3)


@given(pair=PAIR)
def test_normalized_by_length_nats_are_those_of_a_token(pair):
    w, l, w_ref, l_ref = pair  # noqa: E741
    found, _ = loss_of(dpo(beta=BETA, length_normalized=True), *pair)
    assert found == pytest.approx(dpo_loss(w / 4, l / 6, w_ref / 4, l_ref / 6, beta=BETA), rel=1e-4, abs=1e-5)


@given(w=NATS, l=NATS)
def test_orpo_is_the_papers(w, l):  # noqa: E741
    found, _ = loss_of(orpo(beta=BETA), w, l)
    assert found == pytest.approx(orpo_loss(w / 4, l / 6, weight=BETA), rel=1e-3, abs=1e-4)


@given(pair=PAIR, others=st.lists(st.tuples(NATS, NATS), min_size=1, max_size=4))
def test_kto_is_the_papers(pair, others):
    point = max(0.0, float(np.mean([now - then for now, then in others])))
    weights = {"desirable_weight": 1.2, "undesirable_weight": 0.7}
    found, figures = loss_of(kto(beta=BETA, **weights), *pair, point=point)
    expected = kto_loss(*pair, beta=BETA, mismatched=others, desirable=1.2, undesirable=0.7)
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert figures["kl"] == pytest.approx(point, abs=1e-5)


@pytest.mark.parametrize(
    ("objective", "paper"),
    [
        (dpo(beta=BETA), lambda w, l: dpo_loss(w, l, -9.0, -8.0, beta=BETA)),  # noqa: E741
        (
            dpo(beta=BETA, label_smoothing=0.2),
            lambda w, l: dpo_loss(w, l, -9.0, -8.0, beta=BETA, smoothing=0.2),  # noqa: E741
        ),
        (dpo(beta=BETA, loss="ipo"), lambda w, l: ipo_loss(w, l, -9.0, -8.0, tau=BETA)),  # noqa: E741
        (
            dpo(beta=BETA, length_normalized=True),
            lambda w, l: dpo_loss(w / 4, l / 6, -9.0 / 4, -8.0 / 6, beta=BETA),  # noqa: E741
        ),
        (orpo(beta=BETA), lambda w, l: orpo_loss(w / 4, l / 6, weight=BETA)),  # noqa: E741
        (kto(beta=BETA), lambda w, l: kto_loss(w, l, -9.0, -8.0, beta=BETA, mismatched=[(-6.0, -7.0)])),  # noqa: E741
    ],
    ids=["sigmoid", "smoothed", "ipo", "length normalized", "orpo", "kto"],
)
@given(answers=st.tuples(NATS, NATS))
def test_the_slopes_are_those_of_the_paper(objective, paper, answers):
    reference = mx.array([-9.0, -8.0])

    def loss(log_probability):
        return objective.of_rows(RowSums(log_probability, mx.array([4.0, 6.0]), reference, 1.0))[0]

    found = np.array(mx.grad(loss)(mx.array(answers, mx.float32)))
    np.testing.assert_allclose(found, slopes(paper, answers), rtol=1e-3, atol=1e-4)


def test_an_answer_that_is_certain_has_finite_odds():
    assert np.isfinite(loss_of(orpo(beta=BETA), 0.0, -50.0)[0])


# --- through a network


def rows(*, prompt=9, seed=0):
    """Two pairs, each with its own prompt, and answers of several lengths."""
    draw, found = np.random.default_rng(seed), []
    for number in range(2):
        before = draw.integers(3, 250, prompt)
        for answer in (4, 7):
            ids = np.concatenate([before, draw.integers(3, 250, answer)]).astype(np.int32)
            found.append(Rendered(ids, np.arange(len(ids)) >= prompt, f"rows.jsonl:{number + 1}"))
    return found


def plain(made, objective, data, reference):
    """The loss by whole logits and MLX's own gradient, row by row."""

    def loss():
        sums, counts = [], []
        for row in data:
            logits = made(mx.array(row.token_ids[None, :-1]))[0]
            logits = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
            targets = np.flatnonzero(row.is_target)
            picked = mx.take_along_axis(
                logits[mx.array(targets - 1)], mx.array(row.token_ids[targets])[:, None], axis=-1
            )
            sums.append(mx.sum(picked))
            counts.append(float(len(targets)))
        return objective.of_rows(RowSums(mx.stack(sums), mx.array(counts), mx.array(reference), POINT))[0]

    return nn.value_and_grad(made, loss)()


@pytest.mark.parametrize(
    "objective",
    [dpo(beta=0.5), dpo(beta=0.5, loss="ipo"), dpo(beta=0.5, length_normalized=True), orpo(beta=0.5), kto(beta=0.5)],
    ids=["sigmoid", "ipo", "length normalized", "orpo", "kto"],
)
@pytest.mark.parametrize("numbers", [(0, 1), (0, 1, 2, 3)], ids=["one pair, whose prompt is shared", "two pairs"])
@pytest.mark.parametrize("multiple", [1, 8], ids=["as they are", "padded"])
def test_the_gradient_is_that_of_whole_logits(objective, numbers, multiple):
    made, data = started_llama(), rows()
    reference = np.array([-20.0, -33.0, -21.0, -30.0], np.float32)[list(numbers)]
    batch = make_batch(data, numbers, share_prefix=True, multiple=multiple)
    if objective.needs_reference:
        batch = replace(batch, beside=(mx.array(reference), mx.array(POINT))[: 1 + objective.needs_reference_point])
    assert bool(batch.prefix_ids.size) == (len(numbers) == 2)
    found, gradients = nn.value_and_grad(made, lambda: objective.loss(make_reader(made), batch)[0])()
    expected, whole = plain(made, objective, [data[number] for number in numbers], reference)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    largest = max(float(mx.abs(array).max()) for _, array in tree_flatten(whole))
    assert largest > 1e-3
    for (name, one), (_, other) in zip(tree_flatten(gradients), tree_flatten(whole), strict=True):
        np.testing.assert_allclose(np.array(one), np.array(other), atol=1e-4 * largest, err_msg=name)


def test_objectives_are_those_of_the_schema():
    from mlxtune.recipe.schema import json_schema

    sections = json_schema()["$defs"].values()
    named = {one["properties"]["type"]["const"] for one in sections if "type" in one["properties"]}
    assert set(OBJECTIVES) == named - {"lora", "dora", "full"}
