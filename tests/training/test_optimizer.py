import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from reference.adamw import AdamW

from mlxtune.training.optimizer import make_optimizer


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adamw_makes_the_papers_updates(weight_decay):
    generator = np.random.default_rng(0)
    layer = nn.Linear(4, 3, bias=False)
    layer.weight = mx.array(generator.normal(size=(3, 4)))
    optimizer = make_optimizer("adamw", weight_decay=weight_decay)
    reference, expected = AdamW(weight_decay=weight_decay), np.array(layer.weight)
    for rate in (1e-2, 3e-2, 2e-2, 0.0, 1e-2):
        gradient = generator.normal(size=(3, 4)).astype(np.float32)
        optimizer.learning_rate = rate
        optimizer.update(layer, {"weight": mx.array(gradient)})
        expected = reference.step(expected, gradient, rate)
        np.testing.assert_allclose(np.array(layer.weight), expected, atol=2e-6)


def test_the_first_update_is_as_long_as_the_rate():
    layer = nn.Linear(4, 3, bias=False)
    before = np.array(layer.weight)
    optimizer = make_optimizer("adamw", weight_decay=0.0)
    optimizer.learning_rate = 1e-3
    optimizer.update(layer, {"weight": 0.02 * mx.ones((3, 4))})
    np.testing.assert_allclose(np.array(layer.weight) - before, -1e-3, rtol=1e-3)
