"""Two updates of a tiny network against numpy: loss, mask, LoRA, clipping, AdamW, from their formulas in float64."""

import numpy as np
import pytest
from mlx.utils import tree_flatten
from reference.cross_entropy import cross_entropy
from reference.optimizers import AdamW
from reference.transformer import Llama, central_differences

LAYERS, RANK, ALPHA = 2, 2, 4.0
RATE, WEIGHT_DECAY, MAX_NORM = 1e-2, 0.1, 0.25


@pytest.fixture(scope="module")
def state(tiny_training):
    return tiny_training.state(hidden=8, heads=2, kv_heads=1, weight_decay=WEIGHT_DECAY)


def test_two_updates_are_those_of_the_formulas(tiny_training, state):
    rows = tiny_training.rows([3, 6, 4, 5], prefix=4)
    plan = tiny_training.plan(
        rows,
        gradient_accumulation_steps=2,
        epochs=None,
        max_steps=2,
        learning_rate=RATE,
        max_grad_norm=MAX_NORM,
        warmup_ratio=1.0,
    )
    weights = {
        name: np.array(array, np.float64) for name, array in dict(tree_flatten(state.network.parameters())).items()
    }
    llama = Llama(LAYERS, heads=2, kv_heads=1, theta=10000.0, eps=1e-5, alpha=ALPHA)
    targets = [np.flatnonzero(row.is_target) for row in rows]
    count = sum(map(len, targets))

    def loss(weights):
        total = 0.0
        for row, positions in zip(rows, targets, strict=True):
            logits = llama.logits(weights, row.token_ids)
            total += cross_entropy(logits[positions - 1], row.token_ids[positions]).sum()
        return total / count

    trained = tiny_training.train(state, plan, rows)
    names = list(tiny_training.adapter(state))
    optimizers = {name: AdamW(weight_decay=WEIGHT_DECAY) for name in names}
    for line, rate in zip(trained.lines, (RATE / 2, RATE), strict=True):
        assert line["loss"] == pytest.approx(loss(weights), rel=1e-6)
        assert line["target_tokens"] == count
        assert line["learning_rate"] == pytest.approx(rate)
        gradients = central_differences(loss, weights, names, h=1e-5)
        norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients.values()))
        assert norm > MAX_NORM
        assert line["grad_norm"] == pytest.approx(norm, rel=1e-5)
        for name in names:
            weights[name] = optimizers[name].step(weights[name], gradients[name] * MAX_NORM / norm, rate)
    for name, array in tiny_training.adapter(state).items():
        np.testing.assert_allclose(array, weights[name], rtol=0, atol=1e-6, err_msg=name)
