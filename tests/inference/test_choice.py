"""The label that is chosen is the one that scoring every label in full finds likeliest, though few of them are read."""

import mlx.core as mx
import numpy as np
import pytest
from families import tiny_network
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx import nn
from mlx_lm.models.cache import make_prompt_cache
from tiny import VOCABULARY_SIZE, tiny_llama

from mlxtune.device.precision import GPU_BFLOAT16, apply_precision
from mlxtune.inference.choice import choose, make_tree, score_labels
from mlxtune.inference.likelihood import make_reader

END = 2
LABELS = ([10, 11, END], [10, 11, 12, END], [10, END], [13, END], [14, 15, 16, 17, END], [14, 15, 18, END])
"""Of three the words of one are the beginning of the next one's."""
FAMILIES = ("llama", "mistral", "gemma2", "gemma3n", "qwen3_5", "lfm2", "mamba")


def plain(network, prompt, labels):
    """Every label alone after the whole prompt, straight from the network: [C] nats, in float64."""
    scores = []
    for label in labels:
        ids = mx.array([[*prompt, *label[:-1]]])
        logits = np.array(network(ids, cache=make_prompt_cache(network)).astype(mx.float32), np.float64)
        logits = logits[0, len(prompt) - 1 :]
        logits -= np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True)) + logits.max(
            -1, keepdims=True
        )
        scores.append(logits[np.arange(len(label)), label].sum())
    return np.array(scores)


def random_rows(generator, count, least, most):
    return [generator.integers(3, 60, generator.integers(least, most + 1)).tolist() for _ in range(count)]


def knowing_llama(*, quantized=False):
    """A tiny network that finds the tokens of labels far likelier than others, as one that knows the task does: each of
    them is wanted by random rows, so that every label is likely after some prompt.
    """
    network = tiny_llama(hidden=32, heads=2, kv_heads=1, tied=False)
    wanted = sorted({token for label in LABELS for token in label})
    scale = np.full((VOCABULARY_SIZE, 1), 0.2, np.float32)
    scale[wanted] = 16
    network.lm_head.weight = network.lm_head.weight * mx.array(scale)
    if quantized:
        nn.quantize(network, group_size=32, bits=4)
    return network


@pytest.fixture(scope="module")
def network():
    return knowing_llama()


@pytest.fixture(scope="module")
def reader(network):
    return make_reader(network)


@pytest.mark.parametrize("shared", [0, 9], ids=["prompts alike in nothing", "prompts that begin alike"])
@pytest.mark.parametrize("labels", [LABELS, [[5, *label] for label in LABELS]], ids=["apart", "all begin alike"])
def test_the_label_is_the_likeliest_of_all_read_in_full(network, reader, labels, shared):
    generator = np.random.default_rng(4)
    before = generator.integers(3, 60, shared).tolist()
    prompts = [before + row for row in random_rows(generator, 24, 1, 7)]
    expected = np.array([plain(network, prompt, labels) for prompt in prompts])
    chosen = choose(reader, prompts, labels)
    assert len(set(expected.argmax(axis=1))) > 1  # the prompts do not all say the same
    assert [one.label for one in chosen] == expected.argmax(axis=1).tolist()
    np.testing.assert_allclose([one.log_probability for one in chosen], expected.max(axis=1), atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_chooses_what_reading_all_labels_chooses(family):
    network = tiny_network(family)
    prompts = random_rows(np.random.default_rng(2), 6, 3, 5)
    expected = np.array([plain(network, prompt, LABELS) for prompt in prompts])
    chosen = choose(make_reader(network), prompts, LABELS)
    assert [one.label for one in chosen] == expected.argmax(axis=1).tolist()
    np.testing.assert_allclose([one.log_probability for one in chosen], expected.max(axis=1), atol=2e-4)


@st.composite
def trees(draw):
    """Labels of few different tokens, so that many begin alike, each with its end."""
    words = st.lists(st.integers(3, 5), max_size=5).map(tuple)
    return [[*words, END] for words in draw(st.lists(words, min_size=1, max_size=12, unique=True))]


@settings(max_examples=60)
@given(labels=trees(), seed=st.integers(0, 2**16), sharpness=st.sampled_from([0.0, 1.0, 30.0]))
def test_whatever_the_labels_and_however_sure_the_network_the_choice_is_exact(network, labels, seed, sharpness):
    sharp = Sharper(network, sharpness)
    prompts = random_rows(np.random.default_rng(seed), 3, 2, 4)
    expected = np.array([plain(sharp, prompt, labels) for prompt in prompts])
    chosen = choose(make_reader(sharp), prompts, labels)
    for one, scores in zip(chosen, expected, strict=True):
        assert scores[one.label] >= scores.max() - 1e-3  # of labels that are alike, either
        assert one.log_probability == pytest.approx(scores[one.label], abs=1e-3)


class Sharper:
    """A network whose logits are as many times as far apart; 0 makes all tokens alike."""

    def __init__(self, network, times):
        self.network, self.times = network, times
        self.layers = network.layers

    def get(self, *_):
        return self

    def __call__(self, ids, cache=None):
        return self.times * self.network(ids, cache=cache)


def test_of_labels_that_are_just_as_likely_the_first_is_chosen(network):
    alike = Sharper(network, 0.0)  # every token is as likely as any: labels of like length tie
    (one,) = choose(make_reader(alike), [[7, 8, 9]], [[10, 11, END], [12, END], [13, END], [14, 15, END]])
    assert one.label == 1
    assert one.log_probability == pytest.approx(-2 * np.log(VOCABULARY_SIZE), rel=1e-6)


@pytest.mark.parametrize("quantized", [False, True], ids=["bfloat16", "4-bit"])
def test_in_the_gpus_precision_the_choice_is_that_of_reading_all_labels(quantized):
    network = knowing_llama(quantized=quantized)
    apply_precision(network, GPU_BFLOAT16)
    reader = make_reader(network)
    prompts = random_rows(np.random.default_rng(5), 40, 4, 6)
    expected = np.array([plain(network, prompt, LABELS) for prompt in prompts])
    chosen = choose(reader, prompts, LABELS)
    best, second = -np.sort(-expected, axis=1)[:, :2].T
    clear = best - second > 0.1  # nearer than that, 16 bits in other shapes may tell them apart otherwise
    assert clear.sum() >= 20
    found = np.array([one.label for one in chosen])
    np.testing.assert_array_equal(found[clear], expected.argmax(axis=1)[clear])
    np.testing.assert_allclose(expected[np.arange(40), found], best, atol=0.1)


def test_where_one_label_is_far_likelier_little_more_than_it_is_read():
    labels = [[first, 3, 4, 5, 6, END] for first in range(10, 70)]
    network = FollowsOne(labels[23])
    (one,) = choose(make_reader(network), [[7, 8, 9]], labels)
    assert one.label == 23
    assert one.tokens_read == 5  # of 360: its own, but for the end, which is foretold


class FollowsOne(nn.Module):
    """A network that goes on with one label's tokens, whatever stands before them."""

    def __init__(self, label):
        super().__init__()
        after = np.zeros((VOCABULARY_SIZE, VOCABULARY_SIZE), np.float32)
        after[9, label[0]] = 20
        after[label[:-1], label[1:]] = 20
        self.after = mx.array(after)
        self.layers = []

    def __call__(self, ids, **_):
        return self.after[ids]


def test_a_network_that_shares_nothing_reads_every_label(network):
    reader = make_reader(network)
    alone = type(reader)(reader.network, reader.anatomy, None)
    prompts = random_rows(np.random.default_rng(3), 4, 2, 4)
    expected = [plain(network, prompt, LABELS) for prompt in prompts]
    assert [one.label for one in choose(alone, prompts, LABELS)] == [int(scores.argmax()) for scores in expected]


def test_plain_scores_are_those_of_the_network(network, reader):
    prompt = [3, 4, 5, 6]
    np.testing.assert_allclose(score_labels(reader, prompt, LABELS), plain(network, prompt, LABELS), atol=1e-4)


def test_a_network_that_says_no_numbers_still_gives_an_answer(network):
    (one,) = choose(make_reader(Sharper(network, float("nan"))), [[7, 8, 9]], LABELS)
    assert 0 <= one.label < len(LABELS)


@pytest.mark.parametrize("labels", [[[1, END], [1, END]], [[1], [1, END]], [[], [1, END]]])
def test_labels_that_are_no_leaves_of_a_tree_are_refused(labels):
    with pytest.raises(ValueError, match="beginning of another"):
        make_tree(labels)


def test_a_thousand_labels_that_each_begin_like_the_one_before_are_a_tree():
    tree = make_tree([[7] * length + [END] for length in range(1000)])
    assert len(tree.children) == 2


def test_progress_counts_prompts(reader):
    told = []
    choose(reader, [[3, 4], [5], [6, 7]], LABELS, progress=lambda *what: told.append(what))
    assert told[0] == ("choose: prompts", 0, 3)
    assert told[-1] == ("choose: prompts", 3, 3)
