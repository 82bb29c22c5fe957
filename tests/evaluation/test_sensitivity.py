"""What a layer loses at few bits, foretold from gradients: held against formula and measurement."""

from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from tiny import tiny_llama

from mlxtune.data.render import Rendered
from mlxtune.evaluation import sensitivity
from mlxtune.evaluation.fidelity import compare, read_distributions
from mlxtune.evaluation.sensitivity import foretell_losses, most_together
from mlxtune.inference.likelihood import make_reader

SHAPE = {"hidden": 32, "heads": 2, "kv_heads": 1}


def make_rows(count, length=24):
    draw = np.random.default_rng(2)
    ids = draw.integers(3, 250, (count, length)).astype(np.int32)
    return [Rendered(row, np.arange(length) > 3, f"rows.jsonl:{i + 1}") for i, row in enumerate(ids)]


def linears(network):
    return {path: module for path, module in network.named_modules() if hasattr(module, "to_quantized")}


def shifted(path, weight, bits):
    """In place of a grid, whose error has no closed form: a random step that halves with every bit."""
    key = mx.random.key(sum(map(ord, path)))
    return weight.astype(mx.float32) + 0.02 / 2**bits * mx.random.normal(weight.shape, key=key)


@pytest.fixture(scope="module")
def network():
    return tiny_llama(**SHAPE)


@pytest.fixture(scope="module")
def rows():
    return make_rows(60)


@pytest.fixture(scope="module")
def foretold(network, rows):
    return foretell_losses(make_reader(network), linears(network), rows, (0, 1), shifted)


def test_the_kl_that_is_foretold_is_the_kl_that_is_measured(network, rows, foretold):
    reader, layers = make_reader(network), linears(network)
    reference = read_distributions(reader, rows)
    for path in ("model.embed_tokens", "model.layers.0.self_attn.v_proj", "model.layers.1.mlp.down_proj"):
        weight = layers[path].weight
        layers[path].weight = shifted(path, weight, 0)
        measured = compare(reference, reader).mean_kl
        layers[path].weight = weight
        assert foretold[path][0] == pytest.approx(measured, rel=0.35)


def test_half_the_error_is_a_quarter_of_the_loss(foretold):
    for losses in foretold.values():
        assert losses[0] == pytest.approx(4 * losses[1], rel=1e-3)


def test_a_large_error_does_not_swallow_the_many_small_ones(rows, monkeypatch):
    """Of one step of 2^12 and 4 million of 1, added up in one float32 the latter would be nothing."""
    error = mx.ones((4096, 1024))
    error[0, 0] = 2.0**12
    monkeypatch.setattr(sensitivity, "_fisher", lambda *_: {"layer": mx.ones(error.shape)})
    layers = {"layer": SimpleNamespace(weight=mx.zeros(error.shape))}

    found = foretell_losses(None, layers, rows[:1], (4,), lambda *_: error)

    target_count = rows[0].is_target.sum()
    expected = np.square(np.array(error, np.float64)).sum() / (2 * target_count)
    assert found["layer"][4] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("sizes", "most"), [([10, 20], 30), ([60, 50, 40], 100), ([30, 250, 10], 250), ([], 0)])
def test_a_layer_larger_than_goes_together_counts_whole(monkeypatch, sizes, most):
    monkeypatch.setattr(sensitivity, "WEIGHTS_TOGETHER", 100)
    assert most_together(sizes) == most


def test_the_network_is_left_as_it_was(network, foretold):
    fresh = tiny_llama(**SHAPE)
    for path, layer in linears(network).items():
        assert mx.array_equal(layer.weight, linears(fresh)[path].weight)


def test_layers_looked_at_a_few_at_a_time_give_the_same(network, rows, foretold, monkeypatch):
    monkeypatch.setattr(sensitivity, "WEIGHTS_TOGETHER", 5000)
    told = []

    found = foretell_losses(
        make_reader(network), linears(network), rows, (0,), shifted, progress=lambda *at: told.append(at[1:])
    )

    assert {path: losses[0] for path, losses in found.items()} == pytest.approx(
        {path: losses[0] for path, losses in foretold.items()}, rel=1e-5
    )
    assert told[-1][0] == told[-1][1] > len(rows)


def test_a_head_of_its_own_and_a_family_without_anatomy_are_looked_at_too(rows):
    network = tiny_llama(**SHAPE, tied=False)
    whole = foretell_losses(make_reader(network), linears(network), rows[:4], (0,), shifted)

    network.__class__ = type("Stranger", (type(network),), {})
    found = foretell_losses(make_reader(network), linears(network), rows[:4], (0,), shifted)

    assert whole["lm_head"][0] > 0
    assert found["lm_head"][0] == pytest.approx(whole["lm_head"][0], rel=1e-3)
