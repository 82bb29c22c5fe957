"""Each device's number formats reach every weight, and no product widens them."""

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.nn.losses import cross_entropy
from mlx.nn.utils import value_and_grad
from mlx.utils import tree_flatten
from tiny import tiny_llama

from mlxtune.device.precision import CPU_FLOAT32, GPU_BFLOAT16, apply_precision

TOKENS = mx.array([[1, 60, 61, 62, 63, 64, 65, 2]])


def parameters(network) -> dict[str, mx.array]:
    return dict(tree_flatten(network.parameters()))


def floating_dtypes(network) -> set[mx.Dtype]:
    return {array.dtype for array in parameters(network).values() if mx.issubdtype(array.dtype, mx.floating)}


def as_gguf_stores_it():
    """A quantized tiny network with float16 scales and float32 norms, as a GGUF file has them."""
    network = tiny_llama(quantized=True)
    for name, array in parameters(network).items():
        if name.endswith((".scales", ".biases")):
            network.load_weights([(name, array.astype(mx.float16))], strict=False)
    assert floating_dtypes(network) == {mx.float16, mx.float32}
    return network


def residual_stream(network) -> list[mx.array]:
    """What enters the first block, what leaves each block and the last norm, and the logits."""
    inner = network.model
    stream = [inner.embed_tokens(TOKENS)]
    for layer in inner.layers:
        stream.append(layer(stream[-1], "causal", None))
    return [*stream, inner.norm(stream[-1]), network(TOKENS)]


def test_the_gpu_policy_keeps_quantized_weights_and_every_activation_in_bfloat16():
    network = as_gguf_stores_it()
    packed = {name: np.array(a) for name, a in parameters(network).items() if a.dtype == mx.uint32}
    apply_precision(network, GPU_BFLOAT16)
    assert floating_dtypes(network) == {mx.bfloat16}
    assert [activation.dtype for activation in residual_stream(network)] == [mx.bfloat16] * 5
    after = parameters(network)
    assert packed
    assert all(np.array_equal(a, np.array(after[name])) for name, a in packed.items())


def test_without_the_policy_float16_scales_would_widen_bfloat16_activations():
    network = as_gguf_stores_it()
    layer = network.model.layers[0].self_attn.q_proj
    assert layer(mx.ones((1, 64), dtype=mx.bfloat16)).dtype == mx.float32


def test_a_gradient_through_the_gpu_policy_is_finite():
    network = as_gguf_stores_it()
    apply_precision(network, GPU_BFLOAT16)
    network.model.norm.unfreeze()

    def loss(network):
        return cross_entropy(network(TOKENS[:, :-1]), TOKENS[:, 1:]).astype(mx.float32).mean()

    _, gradients = value_and_grad(network, loss)(network)
    (norm,) = dict(tree_flatten(gradients)).values()
    assert norm.dtype == mx.bfloat16
    assert 0 < float(mx.abs(norm).max()) < float("inf")


def test_the_cpu_policy_expands_quantized_weights_in_float32():
    network = as_gguf_stores_it()
    layer = network.model.layers[1].mlp.down_proj
    packed, scales, biases = (np.array(a) for a in (layer.weight, layer.scales, layer.biases))
    apply_precision(network, CPU_FLOAT32)
    assert floating_dtypes(network) == {mx.float32}
    assert not any(isinstance(m, nn.QuantizedLinear | nn.QuantizedEmbedding) for m in network.modules())
    assert [activation.dtype for activation in residual_stream(network)] == [mx.float32] * 5
    weight = np.array(network.model.layers[1].mlp.down_proj.weight)

    by_mlx = mx.dequantize(
        mx.array(packed), mx.array(scales, mx.float32), mx.array(biases, mx.float32), group_size=32, bits=4
    )
    np.testing.assert_array_equal(weight, np.array(by_mlx))
    # Eight 4-bit numbers a word, the lowest bits first; 32 numbers in a row share a scale and a bias.
    numbers = (packed[:, :, None] >> (4 * np.arange(8, dtype=np.uint32)) & 15).reshape(len(packed), -1)
    by_formula = np.repeat(scales.astype("float64"), 32, 1) * numbers + np.repeat(biases.astype("float64"), 32, 1)
    np.testing.assert_allclose(weight, by_formula, rtol=1e-6, atol=1e-7)


def test_both_policies_say_nearly_the_same():
    at_cpu, at_gpu = as_gguf_stores_it(), as_gguf_stores_it()
    apply_precision(at_cpu, CPU_FLOAT32)
    apply_precision(at_gpu, GPU_BFLOAT16)
    logits, rough = at_cpu(TOKENS), at_gpu(TOKENS).astype(mx.float32)
    assert float(mx.abs(logits - rough).max()) < 0.05 * float(mx.abs(logits).max())


@pytest.mark.parametrize("precision", [GPU_BFLOAT16, CPU_FLOAT32])
def test_weights_that_a_family_keeps_from_16_bits_stay_in_float32(precision):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = [{"A_log": mx.ones(4), "norm": nn.RMSNorm(4)}]

        @property
        def cast_predicate(self):
            return lambda name: not name.endswith("A_log")

    network = Recurrent()
    apply_precision(network, precision)
    assert network.layers[0]["A_log"].dtype == mx.float32
    assert network.layers[0]["norm"].weight.dtype == precision.dtype
