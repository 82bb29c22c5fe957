import mlx.core as mx
import numpy as np
import pytest
from families import tiny_network
from mlx_lm.models.cache import make_prompt_cache
from tiny import tiny_llama

from mlxtune.inference.beginnings import WORTH_READING, Beginnings
from mlxtune.inference.model_functions import ModelFunctions
from mlxtune.inference.prefix_cache import WORTH_SHARING

PLENTY = 1 << 30
BEGINNING = np.random.default_rng(0).integers(3, 250, 40).tolist()


class Counted:
    """A network that counts the positions it reads."""

    def __init__(self, network):
        self.network, self.layers, self.positions = network, network.layers, 0

    def __call__(self, ids, cache):
        self.positions += ids.size
        return self.network(ids, cache=cache)


@pytest.fixture(params=[False, True], ids=["copied", "shared"])
def has_prefixes(request):
    return request.param


@pytest.fixture
def network(has_prefixes):
    llama = tiny_llama(hidden=32, heads=2, kv_heads=1)
    with ModelFunctions(llama).in_place():
        yield Counted(llama)


@pytest.fixture
def beginnings(network, has_prefixes):
    return lambda most_bytes=PLENTY: Beginnings(network, most_bytes=most_bytes, has_prefixes=has_prefixes)


def last_logits(network, ids, cache):
    return np.array(network(mx.array([ids]), cache=cache)[0, -1])


def test_nothing_is_kept_at_first(beginnings):
    assert beginnings().longest("base", BEGINNING) == (None, 0)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "qwen3_5", "mamba"])
def test_a_prompt_goes_on_from_what_was_read_of_it_in_every_kind_of_layer(family):
    network = tiny_network(family)
    kept = Beginnings(network, most_bytes=PLENTY)
    kept.read("base", BEGINNING)
    prompt = [*BEGINNING, 7, 8, 9]
    cache, length = kept.longest("base", prompt)
    assert length == len(BEGINNING)
    expected = last_logits(network, prompt, make_prompt_cache(network))
    np.testing.assert_allclose(last_logits(network, prompt[length:], cache), expected, rtol=1e-3, atol=1e-4)


def test_a_copy_is_handed_out(network, beginnings):
    kept = beginnings()
    kept.read("base", BEGINNING)
    found = [last_logits(network, [7, 8], kept.longest("base", [*BEGINNING, 7, 8])[0]) for _ in range(2)]
    assert np.array_equal(*found)


def test_layers_that_can_go_back_serve_prompts_that_turn_off_earlier(network, beginnings):
    kept = beginnings()
    kept.read("base", BEGINNING)
    prompt = [*BEGINNING[:30], 7, 8, 9]
    cache, length = kept.longest("base", prompt)
    assert length == 30
    expected = last_logits(network, prompt, make_prompt_cache(network.network))
    np.testing.assert_allclose(last_logits(network, prompt[length:], cache), expected, rtol=1e-3, atol=1e-4)


def test_at_least_one_token_is_left_to_read(network, beginnings):
    kept = beginnings()
    kept.read("base", BEGINNING)
    for prompt in (BEGINNING, BEGINNING[:20]):
        assert kept.longest("base", prompt)[1] < len(prompt)


def test_what_is_there_is_not_read_again(network, beginnings):
    kept = beginnings()
    kept.read("base", BEGINNING)
    kept.read("base", BEGINNING)
    kept.read("base", BEGINNING[:25])
    assert network.positions == len(BEGINNING)
    kept.read("base", [*BEGINNING, *[5] * WORTH_READING])
    assert network.positions == len(BEGINNING) + WORTH_READING
    kept.read("base", [*BEGINNING, *[6] * (WORTH_READING - 1)])
    assert network.positions == len(BEGINNING) + WORTH_READING


def test_adapters_have_their_own(network, beginnings):
    kept = beginnings()
    kept.read("left", BEGINNING)
    assert kept.longest("right", [*BEGINNING, 7]) == (None, 0)


def test_the_oldest_go_where_memory_is_short(network, beginnings):
    one = beginnings()
    one.read("base", BEGINNING)
    kept = beginnings(2 * one.nbytes)
    for first in range(10, 15):
        kept.read("base", [first, *BEGINNING[1:]])
        assert kept.nbytes <= 2 * one.nbytes
    assert kept.longest("base", [14, *BEGINNING[1:], 7])[1] == len(BEGINNING)
    assert kept.longest("base", [10, *BEGINNING[1:], 7])[1] == 0


LONG = np.random.default_rng(1).integers(10, 250, WORTH_SHARING + 40).tolist()


def test_prompts_get_one_prefix_wherever_they_part_from_what_was_read(network):
    kept = Beginnings(network, most_bytes=PLENTY, has_prefixes=True)
    kept.read("base", LONG)
    read = kept.nbytes
    for length in (len(LONG), len(LONG) - WORTH_READING):
        kept.read("base", LONG[:length])
        left, right = (kept.longest("base", [*LONG[:length], last, 9])[0] for last in (7, 8))
        assert left[0].prefix is right[0].prefix
        assert len(left[0].prefix) == length
    assert network.positions == len(LONG)
    assert kept.nbytes == read


def test_a_short_beginning_is_each_prompts_own(network):
    kept = Beginnings(network, most_bytes=PLENTY, has_prefixes=True)
    for length in (WORTH_SHARING - 1, len(LONG)):
        kept.read("base", LONG[:length])
        cache, found = kept.longest("base", [*LONG[: WORTH_SHARING - 1], 7, 9])
        assert found == WORTH_SHARING - 1
        assert cache[0].prefix is None
        assert cache[0].own.offset == found


def test_a_turn_that_was_kept_shares_the_memory_of_its_beginning(network):
    kept = Beginnings(network, most_bytes=PLENTY, has_prefixes=True)
    kept.read("base", LONG)
    read = kept.nbytes
    for last in (7, 8):
        cache, length = kept.longest("base", [*LONG, last, 9])
        last_logits(network, [last, 9], cache)
        kept.keep("base", [*LONG, last, 9], [layer.first(length + 2) for layer in cache])
    assert kept.nbytes == read + 2 * 2 * read // len(LONG)
    assert kept.longest("base", [*LONG, 8, 9, 5])[1] == len(LONG) + 2


def test_a_part_of_a_prefix_counts_as_all_of_its_memory(network):
    kept = Beginnings(network, most_bytes=PLENTY, has_prefixes=True)
    kept.read("base", LONG)
    read = kept.nbytes
    turn = [*LONG[:WORTH_SHARING], 7, 9]
    cache, length = kept.longest("base", turn)
    last_logits(network, turn[length:], cache)
    only = Beginnings(network, most_bytes=PLENTY, has_prefixes=True)
    only.keep("base", turn, [layer.first(len(turn)) for layer in cache])
    assert only.nbytes == read + 2 * read // len(LONG)


@pytest.mark.parametrize("has_prefixes", [False], indirect=True)
def test_a_turn_takes_the_place_of_those_before_it(network, beginnings):
    kept = beginnings()
    for length in (20, 30, 40):
        cache = make_prompt_cache(network)
        last_logits(network, BEGINNING[:length], cache)
        kept.keep("base", BEGINNING[:length], cache)
    assert kept.nbytes == sum(layer.nbytes for layer in cache)
