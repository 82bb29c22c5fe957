"""Each optimizer makes the updates of its paper's formula, decays matrices alone, and trains a factor that is zero."""

from typing import get_args

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_map
from reference.optimizers import Adafactor, Adam, AdamW, Lion, Muon, Sgd

from mlxtune.recipe.choices import OptimizerName
from mlxtune.training.optimizer import OPTIMIZERS, make_optimizer

NAMES = get_args(OptimizerName)
REFERENCES = {
    "adamw": AdamW,
    "adam": lambda weight_decay: Adam(),  # noqa: ARG005 - it has no decay
    "sgd": Sgd,
    "lion": Lion,
    "adafactor": Adafactor,
    "muon": Muon,
}
RATES = (1e-2, 3e-2, 2e-2, 0.0, 1e-2, 5e-3)
SHAPES = [(3, 4), (5, 2), (4, 4)]
"""Wide, tall, square."""


def test_each_has_a_reference():
    assert REFERENCES.keys() == OPTIMIZERS.keys() == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("shape", SHAPES)
def test_its_updates_are_those_of_the_formula_while_the_rate_changes(name, weight_decay, shape):
    generator = np.random.default_rng(0)
    layer = nn.Linear(*shape[::-1], bias=False)
    layer.weight = mx.array(generator.normal(size=shape))
    optimizer = make_optimizer(name, weight_decay=weight_decay)
    reference, expected = REFERENCES[name](weight_decay=weight_decay), np.array(layer.weight, np.float64)
    for rate in RATES:
        gradient = generator.normal(size=shape).astype(np.float32)
        optimizer.learning_rate = rate
        optimizer.update(layer, {"weight": mx.array(gradient)})
        expected = reference.step(expected, gradient.astype(np.float64), rate)
        np.testing.assert_allclose(np.array(layer.weight), expected, rtol=0, atol=3e-6)


@pytest.mark.parametrize("name", NAMES)
def test_biases_and_norms_are_left_out_of_the_decay(name):
    def trained(weight_decay):
        network = nn.Sequential(nn.Linear(4, 3), nn.RMSNorm(3))
        generator = np.random.default_rng(1)
        draw = lambda array: mx.array(generator.normal(size=array.shape).astype(np.float32))  # noqa: E731 - one line
        parameters = {"layers": [{"weight": mx.zeros((3, 4)), "bias": mx.zeros(3)}, {"weight": mx.zeros(3)}]}
        network.update(tree_map(draw, parameters))
        optimizer = make_optimizer(name, weight_decay=weight_decay)
        for rate in RATES:
            optimizer.learning_rate = rate
            optimizer.update(network, tree_map(draw, parameters))
        linear, norm = network.layers
        return [np.array(array) for array in (linear.weight, linear.bias, norm.weight)]

    (weight, *vectors), (plain, *plain_vectors) = trained(0.1), trained(0.0)
    assert np.array_equal(weight, plain) == (name == "adam")
    for vector, expected in zip(vectors, plain_vectors, strict=True):
        assert np.array_equal(vector, expected)


@pytest.mark.parametrize("name", NAMES)
def test_decay_is_a_share_of_the_weight_however_short_the_gradient(name):
    """A gradient that is clipped or small must not hand its direction to the decay."""
    generator = np.random.default_rng(2)
    start, gradient = generator.normal(size=(2, 3, 4))
    moved = []
    for weight_decay in (0.1, 0.0):
        layer = nn.Linear(4, 3, bias=False)
        layer.weight = mx.array(start)
        optimizer = make_optimizer(name, weight_decay=weight_decay)
        optimizer.learning_rate = 1e-2
        optimizer.update(layer, {"weight": mx.array(1e-5 * gradient)})
        moved.append(np.array(layer.weight))
    decay = 0.0 if name == "adam" else 0.1
    np.testing.assert_allclose(moved[0] - moved[1], -1e-2 * decay * start, atol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "adam", "lion", "adafactor", "muon"])
def test_a_factor_that_is_zero_moves_by_about_the_rate(name):
    """As LoRA's B does at the start; SGD moves it by the gradient's length."""
    layer = nn.Linear(6, 6, bias=False)
    layer.weight = mx.zeros((6, 6))
    optimizer = make_optimizer(name, weight_decay=0.0)
    optimizer.learning_rate = 1e-3
    optimizer.update(layer, {"weight": mx.array(0.02 * np.random.default_rng(3).normal(size=(6, 6)))})
    assert 0.2e-3 < float(mx.sqrt(mx.mean(layer.weight**2))) < 1.5e-3


def test_the_first_update_is_as_long_as_the_rate():
    layer = nn.Linear(4, 3, bias=False)
    before = np.array(layer.weight)
    optimizer = make_optimizer("adamw", weight_decay=0.0)
    optimizer.learning_rate = 1e-3
    optimizer.update(layer, {"weight": 0.02 * mx.ones((3, 4))})
    np.testing.assert_allclose(np.array(layer.weight) - before, -1e-3, rtol=1e-3)
