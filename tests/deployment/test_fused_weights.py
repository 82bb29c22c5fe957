"""What a number format keeps of an update, layer by layer; what the adapter did not touch stays as it is stored."""

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from tiny import tiny_llama

from mlxtune.adapters.attach import LoraShape, adapter_parameters, attach_lora, load_adapter_parameters
from mlxtune.deployment.fused_weights import Form, FusedWeights, _survival, is_kept
from mlxtune.device.precision import CPU_FLOAT32, apply_precision

LAYER = "model.layers.1.self_attn.q_proj"
SHAPE = LoraShape(rank=2, alpha=4.0, target_modules=("q_proj",), layers=1)


def fused(form, *, change=0.05, quantized=False):
    """A pass over a tiny network with an adapter on one layer; what came of it, and the layer's W and D in numpy."""
    plain, network = tiny_llama(quantized=quantized), tiny_llama(quantized=quantized)
    attach_lora(network, SHAPE, seed=0)
    noise = {
        name: change * mx.random.normal(array.shape, key=mx.random.key(i))
        for i, (name, array) in enumerate(adapter_parameters(network).items())
    }
    load_adapter_parameters(network, noise)
    weights = FusedWeights(network, plain, form)
    stored = dict(weights)
    apply_precision(plain, CPU_FLOAT32)
    base = np.array(dict(tree_flatten(plain.parameters()))[f"{LAYER}.weight"], np.float64)
    a, b = (np.array(noise[f"{LAYER}.{factor}"], np.float64) for factor in ("lora_a", "lora_b"))
    return weights, stored, base, 2.0 * (a @ b).T


def expanded(stored, setting):
    scales, biases = (stored[f"{LAYER}.{part}"].astype(mx.float32) for part in ("scales", "biases"))
    return np.array(mx.dequantize(stored[f"{LAYER}.weight"], scales, biases, **setting), np.float64)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_share_is_the_formulas_for_floats(dtype):
    weights, stored, base, update = fused(Form(dtype))
    left = np.array(stored[f"{LAYER}.weight"].astype(mx.float32), np.float64) - base
    assert weights.survival.keys() == {LAYER}
    assert weights.survival[LAYER].share == pytest.approx((left * update).sum() / (update**2).sum(), abs=1e-5)
    assert weights.settings == {}


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_the_share_is_the_formulas_for_every_number_of_bits(bits):
    weights, stored, base, update = fused(Form("float16", (bits,)), quantized=True)
    left = expanded(stored, weights.settings[LAYER]) - base
    assert weights.settings[LAYER] == {"bits": bits, "group_size": 32, "mode": "affine"}
    assert weights.survival[LAYER].share == pytest.approx((left * update).sum() / (update**2).sum(), abs=1e-3)


def test_an_update_smaller_than_half_a_step_of_the_grid_is_seen_to_be_lost():
    shares = [fused(Form(dtype), change=2e-4)[0].survival[LAYER].share for dtype in ("float32", "bfloat16")]
    assert shares[0] == pytest.approx(1.0, abs=1e-2)
    assert not is_kept(shares[1])


def test_layers_without_an_update_pass_through_to_the_last_bit():
    _, stored, _, _ = fused(Form("float16", (8,)), quantized=True)
    before = dict(tree_flatten(tiny_llama(quantized=True).parameters()))
    same = {
        name
        for name in before
        if stored[name].shape == before[name].shape and mx.array_equal(stored[name], before[name])
    }
    assert {name for name in before if name.endswith(".weight") and "norm" not in name} - same == {f"{LAYER}.weight"}


def test_layers_with_more_bits_than_asked_for_get_fewer_too():
    weights, stored, _, _ = fused(Form("float16", (2,)), quantized=True)
    assert {setting["bits"] for setting in weights.settings.values()} == {2}
    assert len(weights.settings) == 15  # seven a block, and the embedding
    assert stored["model.embed_tokens.weight"].dtype == mx.uint32


def test_of_several_numbers_of_bits_the_first_that_keeps_enough_is_taken():
    def weights(*bits):
        return fused(Form("float16", bits, may_stay_float=len(bits) > 1), quantized=True, change=0.1)[0]

    first = next(bits for bits in (2, 4, 8) if is_kept(weights(bits).survival[LAYER].share))
    assert weights(2, 4, 8).settings[LAYER]["bits"] == first


def test_a_layer_that_no_number_of_bits_suits_may_stay_float():
    tiny = {"quantized": True, "change": 1e-3}
    assert fused(Form("float32", (2,)), **tiny)[0].survival[LAYER].share > 100  # drowned
    weights, stored, _, _ = fused(Form("float32", (2,), may_stay_float=True), **tiny)
    assert LAYER not in weights.settings
    assert stored[f"{LAYER}.weight"].dtype == mx.float32
    assert weights.survival[LAYER].share == pytest.approx(1.0, abs=1e-3)


def test_the_share_of_a_large_layer_is_that_of_double_precision():
    keys = mx.random.split(mx.random.key(0), 2)
    base, change = (
        0.02 * mx.random.normal((4096, 4096), key=keys[0]),
        1e-3 * mx.random.normal((4096, 4096), key=keys[1]),
    )
    stored = (base + change).astype(mx.bfloat16).astype(mx.float32)
    b, d, s = (np.array(array, np.float64) for array in (base, change, stored))
    assert _survival(stored, base, change).share == pytest.approx(((s - b) * d).sum() / (d * d).sum(), rel=1e-6)


def test_an_adapter_that_changes_nothing_has_lost_nothing():
    assert fused(Form("bfloat16"), change=0.0)[0].survival[LAYER].share == 1.0
