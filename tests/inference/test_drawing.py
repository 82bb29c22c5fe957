"""Each setting is held against numpy, written from its definition."""

import mlx.core as mx
import numpy as np
import pytest

from mlxtune.device import exponentials
from mlxtune.inference.drawing import sampler_for
from mlxtune.inference.sampling import Sampling

LOGITS = np.array([2.0, 1.0, 0.5, 0.0, -1.0, -3.0])
DRAWS = 4000


def softmax(x):
    p = np.exp(x - x.max())
    return p / p.sum()


def logprobs(logits=LOGITS):
    return mx.array(np.log(softmax(logits))[None].astype(np.float32))


def drawn(count=DRAWS, logits=LOGITS, number=0, constraint=None, **settings):
    sampler = sampler_for(Sampling(max_tokens=1, **settings), number, constraint)
    said = logprobs(logits)
    tokens = [sampler(said) for _ in range(count)]
    return np.array(mx.concatenate(tokens))


def shares(tokens):
    return np.bincount(tokens, minlength=len(LOGITS)) / len(tokens)


def top_k(p, k):
    kept = np.where(p >= np.sort(p)[-k], p, 0)
    return kept / kept.sum()


def top_p(p, mass):
    """The smallest set of the likeliest tokens whose probabilities reach ``mass``."""
    order = np.argsort(-p)
    count = int(np.searchsorted(np.cumsum(p[order]), mass)) + 1
    kept = np.zeros_like(p)
    kept[order[:count]] = p[order[:count]]
    return kept / kept.sum()


def min_p(p, share):
    kept = np.where(p >= share * p.max(), p, 0)
    return kept / kept.sum()


CASES = {
    "temperature 1": ({"temperature": 1.0}, softmax(LOGITS)),
    "all at once": ({"temperature": 2.0, "top_k": 4, "top_p": 0.9, "min_p": 0.5},
                    min_p(top_p(top_k(softmax(LOGITS / 2), 4), 0.9), 0.5)),
    "temperature 0.5": ({"temperature": 0.5}, softmax(LOGITS / 0.5)),
    "top_k": ({"temperature": 1.0, "top_k": 3}, top_k(softmax(LOGITS), 3)),
    "top_k of more than there are": ({"temperature": 1.0, "top_k": 99}, softmax(LOGITS)),
    "top_p": ({"temperature": 1.0, "top_p": 0.8}, top_p(softmax(LOGITS), 0.8)),
    "top_p after the temperature": ({"temperature": 2.0, "top_p": 0.6}, top_p(softmax(LOGITS / 2), 0.6)),
    "min_p": ({"temperature": 1.0, "min_p": 0.2}, min_p(softmax(LOGITS), 0.2)),
    "bias": ({"temperature": 1.0, "logit_bias": {5: 4.0, 0: -100.0}},
             softmax(LOGITS + np.array([-100.0, 0, 0, 0, 0, 4.0]))),
}  # fmt: skip


@pytest.mark.parametrize("slow", [False, True], ids=["MLX", "NumPy"])
@pytest.mark.parametrize("case", CASES)
def test_draws_follow_the_distribution_of_the_definition(case, slow, monkeypatch):
    monkeypatch.setattr(exponentials, "are_slow", lambda: slow)
    settings, expected = CASES[case]
    found = shares(drawn(**settings))
    np.testing.assert_allclose(found, expected, atol=4 * 0.5 / np.sqrt(DRAWS))
    assert not found[expected == 0].any()


@pytest.mark.parametrize("temperature", [1e-4, 1e-40, 5e-324])
def test_a_temperature_near_zero_takes_the_likeliest_whatever_else_is_set(temperature):
    for settings in ({}, {"top_p": 0.9, "min_p": 0.1}):
        for logits in (LOGITS, 20 * LOGITS + 5):
            sampler = sampler_for(Sampling(max_tokens=1, temperature=temperature, **settings))
            assert {sampler(mx.array(logits[None], mx.float32)).item() for _ in range(20)} == {0}


def test_the_likeliest_token_needs_no_sampler():
    assert sampler_for(Sampling(max_tokens=1, top_p=0.5, top_k=3)) is None


def test_penalties_grow_with_what_the_answer_has_had():
    """Greedy: token 0 is 1 ahead of token 1 and 1.5 of token 2; each use takes 0.6 off, the first one 0.3 more."""
    expected, counts = [], np.zeros(len(LOGITS))
    for _ in range(12):
        token = int(np.argmax(LOGITS - 0.6 * counts - 0.3 * (counts > 0)))
        expected.append(token)
        counts[token] += 1
    found = drawn(12, frequency_penalty=0.6, presence_penalty=0.3)
    assert found.tolist() == expected
    assert len(set(expected)) > 2


def test_small_penalties_count_among_logits_of_16_bits():
    logits = mx.array([[20.0, 20.0, 3.0]]).astype(mx.bfloat16)  # whose neighbours are 0.125 apart
    sampler = sampler_for(Sampling(max_tokens=1, presence_penalty=0.03, logit_bias={1: 0.01}))
    assert [sampler(logits).item() for _ in range(4)] == [1, 0, 1, 1]


def test_draws_are_a_function_of_seed_and_number_alone():
    first = drawn(40, temperature=1.0, seed=5, number=2).tolist()
    mx.random.seed(99)
    assert drawn(40, temperature=1.0, seed=5, number=2).tolist() == first
    assert drawn(40, temperature=1.0, seed=5, number=3).tolist() != first
    assert drawn(40, temperature=1.0, seed=6, number=2).tolist() != first


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64 - 1])
def test_any_integer_of_64_bits_is_a_seed(seed):
    assert len(drawn(3, temperature=1.0, seed=seed)) == 3


class OddAfterEven:
    """Tokens whose numbers go even, odd, even, ..."""

    def __init__(self):
        self.accepted = []

    def allowed(self):
        return np.arange(len(LOGITS)) % 2 == len(self.accepted) % 2

    def accept(self, token):
        self.accepted.append(token)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_constraint_sees_each_token_and_allows_the_next(temperature):
    constraint = OddAfterEven()
    tokens = drawn(20, temperature=temperature, constraint=constraint).tolist()
    assert [token % 2 for token in tokens] == [0, 1] * 10
    assert constraint.accepted == tokens[:-1]
