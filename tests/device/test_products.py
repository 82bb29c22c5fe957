"""Few rows times a layer's weights is the same product, whichever way it goes."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx import nn

from mlxtune.device import products
from mlxtune.device.blas import Blas

SIZES = st.sampled_from([1, 7, 32, 64, 96, 576])


def drawn(seed, *shape):
    return mx.array(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


@pytest.fixture(scope="module", params=["Haswell", "SkylakeX", None], autouse=True)
def kernels(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "open_blas", lambda: Blas("any", "", fast=True, kernels=request.param))
        yield request.param


@given(rows=st.integers(0, 40), inputs=SIZES, outputs=SIZES, seed=st.integers(0, 9))
def test_the_product_is_that_of_the_matrices(rows, inputs, outputs, seed):
    x, weight = drawn(seed, rows, inputs), drawn(seed + 10, outputs, inputs)
    expected = np.array(x, np.float64) @ np.array(weight, np.float64).T
    np.testing.assert_allclose(np.array(products.few_rows(x, weight)), expected, atol=2e-4)


@pytest.mark.parametrize("shape", [(5,), (2, 1), (1, 3), (12, 1), (3, 4, 2)])
@pytest.mark.parametrize("limits", [{}, {"SMALL": 10}, {"MANY_OUTPUTS": 16}], ids=["as it is", "large", "many outputs"])
def test_leading_axes_stay(shape, limits, monkeypatch):
    for name, value in limits.items():
        monkeypatch.setattr(products, name, value)
    x, weight = drawn(1, *shape, 48), drawn(2, 64, 48)
    found = products.few_rows(x, weight)
    assert found.shape == (*shape, 64)
    np.testing.assert_allclose(np.array(found), np.array(x) @ np.array(weight).T, atol=2e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_layers_give_what_they_give(bias):
    layer, embedding, x = nn.Linear(48, 64, bias=bias), nn.Embedding(96, 48), drawn(3, 2, 1, 48)
    assert mx.allclose(products.linear(layer, x), layer(x), atol=1e-5)
    assert mx.allclose(products.embedding_as_linear(embedding, x), embedding.as_linear(x), atol=1e-5)


def test_pieces_go_where_the_blas_has_kernels_for_them(kernels):
    weight = drawn(5, 64, 48)
    batched = []

    class Watched:
        """Weights that tell of being cut."""

        shape, dtype, T = weight.shape, weight.dtype, weight.T

        def reshape(self, *shape):
            batched.append(shape)
            return weight.reshape(*shape)

        def __matmul__(self, other):
            return weight @ other

    products.few_rows(drawn(4, 2, 48), Watched())
    assert batched == ([(-1, products.PIECE, 48)] if kernels == "SkylakeX" else [])


def test_other_types_stay_what_they_are():
    x, weight = drawn(4, 2, 48).astype(mx.bfloat16), drawn(5, 64, 48).astype(mx.bfloat16)
    assert mx.array_equal(products.few_rows(x, weight), x @ weight.T)
