"""In every family an answer is what the network itself says, however prompts are batched and read."""

import mlx.core as mx
import numpy as np
import pytest
from families import FAMILIES, tiny_network
from mlx_lm.models.cache import KVCache, make_prompt_cache
from tiny import tiny_llama, tiny_tokenizer

from mlxtune.device import exponentials
from mlxtune.device.precision import GPU_BFLOAT16, apply_precision
from mlxtune.inference.engine import can_batch
from mlxtune.inference.generate import generate
from mlxtune.inference.likelihood import make_reader, target_logits
from mlxtune.inference.model_functions import ModelFunctions
from mlxtune.inference.shared_prefix import needs_caches

FAST = ("llama", "mistral", "gemma2", "gemma3n", "qwen3_5", "lfm2", "mamba")
ONE_BY_ONE = ("gemma2", "mamba", "jamba", "nemotron_h", "rwkv7")
NO_PREFIX = ("gemma2", "mistral3", "deepseek_v3")
"""Of those whose layers keep all keys."""
TOKENS = 8

each_family = pytest.mark.parametrize(
    "family", [family if family in FAST else pytest.param(family, marks=pytest.mark.slow) for family in FAMILIES]
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def greedy(network, prompt, end):
    """The likeliest token after all before it, one forward pass of everything for each."""
    ids = list(prompt)
    while len(ids) < len(prompt) + TOKENS:
        logits = network(mx.array([ids]), cache=make_prompt_cache(network))[0, -1]
        if (token := int(mx.argmax(logits).item())) == end:
            break
        ids.append(token)
    return tuple(ids[len(prompt) :])


@each_family
def test_prompts_of_many_lengths_get_what_each_gets_alone(family, tokenizer):
    network = tiny_network(family)
    generator = np.random.default_rng(1)
    prefix = generator.integers(3, 250, 11).tolist()
    like = [prefix + generator.integers(3, 250, length).tolist() for length in (3, 17, 9)]
    for prompts in (like, [*like, [7, 8]]):  # with a prefix that they share, and without
        answers = generate(network, tokenizer, prompts, max_tokens=TOKENS)
        assert [answer.token_ids for answer in answers] == [greedy(network, prompt, 2) for prompt in prompts]


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "qwen3_5"])
def test_numpys_exponentials_know_of_windows_and_padding_too(family, tokenizer, monkeypatch):
    monkeypatch.setattr(exponentials, "are_slow", lambda: True)
    monkeypatch.setattr(exponentials, "FEW", 0)
    network = tiny_network(family)
    prompts = [np.random.default_rng(length).integers(3, 250, length).tolist() for length in (2, 17, 31, 40)]
    answers = generate(network, tokenizer, prompts, max_tokens=TOKENS)
    assert [answer.token_ids for answer in answers] == [greedy(network, prompt, 2) for prompt in prompts]


@each_family
def test_families_that_do_not_batch_are_found_out(family):
    assert can_batch(tiny_network(family)) is (family not in ONE_BY_ONE)


@each_family
def test_families_that_keep_all_keys_share_those_of_a_beginning(family):
    network = tiny_network(family)
    keeps_all = all(type(layer) is KVCache for layer in make_prompt_cache(network))
    with ModelFunctions(network).in_place():
        assert can_batch(network, prefix=[1, 2, 3]) is (keeps_all and family not in NO_PREFIX)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_gemma2_does_not_batch_however_many_heads_share(kv_heads):
    """Its mask meets as many heads of keys as there are prompts by chance, and else does not fit at all."""
    assert not can_batch(tiny_network("gemma2", num_attention_heads=8, num_key_value_heads=kv_heads))


def test_an_error_that_is_not_about_shapes_is_not_taken_for_an_answer():
    network = tiny_llama()

    class Broken(type(network)):
        def __call__(self, *_, **__):
            raise ValueError("no such thing")

    network.__class__ = Broken
    with pytest.raises(ValueError, match="no such thing"):
        can_batch(network)


@pytest.mark.parametrize("quantized", [False, True])
def test_16_bits_batch_too(quantized):
    network = tiny_llama(quantized=quantized)
    apply_precision(network, GPU_BFLOAT16)
    assert can_batch(network)


@each_family
def test_a_reader_reads_the_network_that_answers(family):
    network = tiny_network(family)
    assert needs_caches(network) is (family == "gemma3n")
    reader = make_reader(network)
    inputs = mx.array([[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]])
    states = reader.forward(inputs, cache=None)
    expected = network(inputs, cache=make_prompt_cache(network))[0]
    np.testing.assert_allclose(target_logits(reader, states[0]), expected, rtol=1e-4, atol=1e-4)
