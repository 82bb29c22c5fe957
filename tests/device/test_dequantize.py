"""Quantized layers are expanded in float32, to what MLX multiplies with them."""

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx_lm.models.mla import MultiLinear
from mlx_lm.models.switch_layers import SwitchLinear
from reference.lora import affine_dequantize

from mlxtune.device.dequantize import dequantize_network, is_quantized, rounded_weight, unpacked_weight

MODES = [("affine", 32, 4), ("affine", 64, 8), ("mxfp4", 32, 4), ("mxfp8", 32, 8), ("nvfp4", 16, 4)]


def packed(layer: nn.Module, mode: str = "affine", group_size: int = 32, bits: int = 4, **settings) -> nn.Module:
    layer.weight = mx.random.normal(layer.weight.shape, key=mx.random.key(1))
    return layer.to_quantized(group_size=group_size, bits=bits, mode=mode, **settings)


@pytest.mark.parametrize("bits", [4, 8])
def test_affine_values_are_the_definitions_whatever_the_scales_are_stored_in(bits):
    layer = packed(nn.Linear(64, 8), bits=bits)
    layer.set_dtype(mx.float16)
    expected = affine_dequantize(layer.weight, layer.scales, layer.biases, bits=bits)
    values = unpacked_weight(layer)
    assert values.dtype == mx.float32
    np.testing.assert_allclose(np.array(values), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_unpacked_as_mlx_multiplies_it(mode):
    layer = packed(nn.Linear(64, 8, bias=False), *mode)
    values = unpacked_weight(layer)
    assert values.dtype == mx.float32
    np.testing.assert_allclose(np.array(values), np.array(layer(mx.eye(64))).T, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_rounding_leaves_what_a_quantized_layer_has(mode):
    layer = nn.Linear(64, 8, bias=False)
    quantized = packed(layer, *mode)
    values = rounded_weight(layer.weight, {"mode": mode[0], "group_size": mode[1], "bits": mode[2]})
    assert values.dtype == mx.float32
    np.testing.assert_array_equal(np.array(values), np.array(unpacked_weight(quantized)))


def network_of(layer: nn.Module) -> nn.Module:
    network = nn.Module()
    network.layer = layer
    return network


KINDS = {
    "linear": (lambda: nn.Linear(64, 64), nn.Linear, (mx.eye(64),)),
    "linear without bias": (lambda: nn.Linear(64, 64, bias=False), nn.Linear, (mx.eye(64),)),
    "embedding": (lambda: nn.Embedding(16, 64), nn.Embedding, (mx.arange(16),)),
    "heads": (lambda: MultiLinear(64, 32, 2), MultiLinear, (mx.eye(64)[None],)),
    "experts": (lambda: SwitchLinear(64, 32, 3), SwitchLinear, (mx.eye(64)[:, None, None], mx.array([[2]] * 64))),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_layer_of_float32_stands_in_the_place_of_a_quantized_one_and_gives_the_same(kind, mode):
    make, plain, inputs = KINDS[kind]
    layer = packed(make(), *mode)
    network = network_of(layer)
    dequantize_network(network)
    assert type(network.layer) is plain
    assert ("bias" in network.layer) == ("bias" in layer)
    assert {array.dtype for array in network.layer.values()} == {mx.float32}
    np.testing.assert_allclose(
        np.array(network.layer(*inputs)), np.array(layer(*inputs).astype(mx.float32)), rtol=0, atol=1e-5
    )


def test_a_scale_of_the_whole_weight_counts():
    layer = packed(SwitchLinear(64, 32, 3, bias=False), *MODES[-1], global_scale=True)
    network = network_of(layer)
    dequantize_network(network)
    original = mx.random.normal((3, 32, 64), key=mx.random.key(1))
    error = mx.mean(mx.square(network.layer.weight - original)) / mx.mean(mx.square(original))
    assert error.item() < 0.02  # four bits lose about 1 % of the variance


def test_layers_to_keep_are_not_touched():
    network = network_of(packed(nn.Linear(64, 64)))
    kept = network.layer
    dequantize_network(network, kept=["layer"])
    assert network.layer is kept
    assert is_quantized(kept)
