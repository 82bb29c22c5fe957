import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten
from reference.cross_entropy import cross_entropy, cross_entropy_gradient
from tiny import VOCABULARY_SIZE, tiny_llama

from mlxtune.inference import likelihood
from mlxtune.inference.likelihood import make_reader, target_loss_sum, target_losses, target_states

T = 23


def head_in_numpy(network) -> np.ndarray:
    return np.array(network.model.embed_tokens.weight if "lm_head" not in network else network.lm_head.weight)


@pytest.fixture(params=[True, False], ids=["tied head", "own head"])
def network(request):
    return tiny_llama(tied=request.param)


@pytest.fixture
def targets():
    generator = np.random.default_rng(0)
    states = generator.normal(size=(T, 64)).astype(np.float32)
    ids = generator.integers(0, VOCABULARY_SIZE, T).astype(np.int32)
    weight = generator.uniform(0.1, 2.0, T).astype(np.float32)
    return states, ids, weight


def test_loss_and_gradient_are_the_formulas(network, targets):
    states, ids, weight = targets
    reader = make_reader(network)
    loss, gradient = mx.value_and_grad(lambda s: target_loss_sum(reader, s, mx.array(ids), mx.array(weight)))(
        mx.array(states)
    )
    head = head_in_numpy(network).astype(np.float64)
    logits = states @ head.T
    assert loss.item() == pytest.approx((weight * cross_entropy(logits, ids)).sum(), rel=1e-5)
    np.testing.assert_allclose(np.array(gradient), cross_entropy_gradient(logits, ids, weight) @ head, atol=2e-5)


def test_loss_and_gradient_do_not_depend_on_the_chunks(network, targets, monkeypatch):
    states, ids, weight = (mx.array(array) for array in targets)
    reader = make_reader(network)
    found = []
    for chunk_rows in (1, 7, T):
        monkeypatch.setattr(likelihood, "CHUNK_BYTES", 4 * VOCABULARY_SIZE * chunk_rows)
        found.append(mx.value_and_grad(lambda s: target_loss_sum(reader, s, ids, weight))(states))
    for loss, gradient in found[1:]:
        assert loss.item() == pytest.approx(found[0][0].item(), rel=1e-6)
        np.testing.assert_allclose(np.array(gradient), np.array(found[0][1]), atol=1e-6)


@pytest.mark.parametrize("chunk_rows", [7, T])
def test_evaluation_gives_each_targets_loss_whether_it_was_likeliest_and_how_likely_that_was(
    network, targets, monkeypatch, chunk_rows
):
    monkeypatch.setattr(likelihood, "CHUNK_BYTES", 4 * VOCABULARY_SIZE * chunk_rows)
    states, ids, _ = targets
    reader = make_reader(network)
    logits = states @ head_in_numpy(network).T
    ids[::2] = logits.argmax(axis=1)[::2]
    found = target_losses(reader, mx.array(states), mx.array(ids))
    np.testing.assert_allclose(np.array(found.nats), cross_entropy(logits, ids), rtol=1e-4)
    np.testing.assert_array_equal(np.array(found.is_likeliest), logits.argmax(axis=1) == ids)
    highest = np.exp(-cross_entropy(logits, logits.argmax(axis=1)))
    np.testing.assert_allclose(np.array(found.top_probability), highest, rtol=1e-4)


def test_a_family_without_an_anatomy_is_read_through_its_full_logits(network, targets):
    _, ids, weight = targets
    rows = mx.array(np.random.default_rng(1).integers(0, VOCABULARY_SIZE, (2, 16)))
    index = mx.array(np.arange(T, dtype=np.int32))
    losses = []
    for reader in (make_reader(network), likelihood.Reader(network, None, None)):
        states = target_states(reader, mx.zeros(0, mx.int32), rows, index)
        losses.append(target_loss_sum(reader, states, mx.array(ids), mx.array(weight)).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("chunk_rows", [7, T])
def test_a_head_that_trains_gets_its_gradient_by_the_formula_and_keeps_its_weight(
    network, targets, monkeypatch, chunk_rows
):
    states, ids, weight = targets
    monkeypatch.setattr(likelihood, "CHUNK_BYTES", 4 * VOCABULARY_SIZE * chunk_rows)
    reader = make_reader(network)
    head = reader.anatomy.head
    head.unfreeze()
    before = np.array(head.weight)

    def loss_of(parameters, states):
        head.update(parameters)
        return target_loss_sum(reader, states, mx.array(ids), mx.array(weight))

    parameters = head.trainable_parameters()
    loss, (found, of_states) = mx.value_and_grad(loss_of, argnums=(0, 1))(parameters, mx.array(states))
    head.update(parameters)
    logits = states @ before.astype(np.float64).T
    expected = cross_entropy_gradient(logits, ids, weight)
    assert loss.item() == pytest.approx((weight * cross_entropy(logits, ids)).sum(), rel=1e-5)
    np.testing.assert_allclose(np.array(found["weight"]), expected.T @ states, atol=2e-5)
    np.testing.assert_allclose(np.array(of_states), expected @ before, atol=2e-5)
    assert np.array_equal(np.array(head.weight), before)


def test_the_gpus_precision_keeps_states_in_bfloat16_and_the_loss_in_float32(targets):
    network = tiny_llama(quantized=True)
    network.set_dtype(mx.bfloat16)
    states, ids, weight = (mx.array(array) for array in targets)
    reader = make_reader(network)
    loss, gradient = mx.value_and_grad(lambda s: target_loss_sum(reader, s, ids, weight))(states.astype(mx.bfloat16))
    assert (loss.dtype, gradient.dtype) == (mx.float32, mx.bfloat16)
    plain = mx.value_and_grad(
        lambda s: mx.sum(
            weight
            * nn.losses.cross_entropy(network.model.embed_tokens.as_linear(s).astype(mx.float32), ids, reduction="none")
        )
    )(states.astype(mx.bfloat16))
    assert loss.item() == pytest.approx(plain[0].item(), rel=1e-3)
    scale = float(mx.abs(plain[1]).max().item())
    assert float(mx.abs(plain[1] - gradient).max().item()) < 0.05 * scale
    assert tree_flatten(network.trainable_parameters()) == []
