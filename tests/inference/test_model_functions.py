import pytest
from mlx import nn
from mlx_lm.models import llama
from tiny import tiny_llama

from mlxtune.device import exponentials, products
from mlxtune.inference.attention import attention
from mlxtune.inference.model_functions import ModelFunctions

OWN = llama.scaled_dot_product_attention, llama.swiglu


def test_they_are_there_while_the_block_runs_and_no_longer():
    functions = ModelFunctions(tiny_llama())
    with functions.in_place():
        assert llama.scaled_dot_product_attention is attention
    assert (llama.scaled_dot_product_attention, llama.swiglu) == OWN


def test_they_go_when_the_block_fails():
    with pytest.raises(KeyError), ModelFunctions(tiny_llama()).in_place():
        raise KeyError
    assert (llama.scaled_dot_product_attention, llama.swiglu) == OWN


@pytest.mark.parametrize("slow", [False, True])
def test_mlx_keeps_what_it_does_fast(monkeypatch, slow):
    monkeypatch.setattr(exponentials, "are_slow", lambda: slow)
    with ModelFunctions(tiny_llama()).in_place():
        assert (llama.swiglu is exponentials.swiglu) is slow
        assert (nn.Linear.__call__ is products.linear) is slow
        assert (nn.Embedding.as_linear is products.embedding_as_linear) is slow
