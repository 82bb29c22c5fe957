"""Two networks on the same rows: held against numpy and full logits, and never in memory together."""

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from tiny import VOCABULARY_SIZE, tiny_llama

from mlxtune.data.render import Rendered
from mlxtune.errors import DataError
from mlxtune.evaluation.fidelity import choose_rows, compare, read_distributions
from mlxtune.inference.likelihood import make_reader

SHAPE = {"hidden": 32, "heads": 2, "kv_heads": 1}


def make_rows(count, *, prompt=7, answer=3, common=4):
    """Rows that begin alike, whose last tokens are targets; row i has i tokens more than the first."""
    draw = np.random.default_rng(5)
    head = draw.integers(3, 250, common)
    rows = []
    for i in range(count):
        ids = np.concatenate([head, draw.integers(3, 250, prompt - common + i + answer)]).astype(np.int32)
        rows.append(Rendered(ids, np.arange(len(ids)) >= prompt + i, f"rows.jsonl:{i + 1}"))
    return rows


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def in_numpy(reference, other, rows):
    """Mean KL and agreement from full logits, row by row, in float64."""
    kl, same = [], []
    for row in rows:
        at = np.flatnonzero(row.is_target) - 1
        p, q = (softmax(np.array(net(mx.array(row.token_ids[None]))[0], np.float64)[at]) for net in (reference, other))
        kl += (p * np.log(p / q)).sum(axis=-1).tolist()
        same += (p.argmax(axis=-1) == q.argmax(axis=-1)).tolist()
    return len(kl), np.mean(kl), np.mean(same)


def disturbed(seed=1):
    """A network near `tiny_llama`, near enough that some likeliest tokens stay."""
    network = tiny_llama(**SHAPE)
    keys = mx.random.split(mx.random.key(seed), 100)
    weights = tree_flatten(network.parameters())
    network.load_weights(
        [(name, w + 0.02 * mx.random.normal(w.shape, key=key)) for (name, w), key in zip(weights, keys, strict=False)]
    )
    return network


def test_kl_and_agreement_are_those_of_full_logits_in_numpy():
    rows, reference, other = make_rows(8), tiny_llama(**SHAPE), disturbed()

    found = compare(read_distributions(make_reader(reference), rows), make_reader(other))

    positions, kl, agreement = in_numpy(reference, other, rows)
    assert found.positions == positions == 24
    assert found.mean_kl == pytest.approx(kl, rel=1e-4)
    assert found.mean_kl > 0.01
    assert found.token_agreement == pytest.approx(agreement)
    assert 0 < found.token_agreement < 1


def test_a_network_agrees_with_itself_to_the_last_bit():
    reader = make_reader(tiny_llama(**SHAPE))

    found = compare(read_distributions(reader, make_rows(4)), reader)

    assert (found.mean_kl, found.token_agreement) == (0.0, 1.0)


def test_a_family_without_anatomy_and_without_shared_prefixes_gives_the_same():
    rows = make_rows(5)
    reference, other = tiny_llama(**SHAPE), disturbed()
    whole = compare(read_distributions(make_reader(reference), rows), make_reader(other))

    class Stranger(type(reference)):
        """A class that no table knows."""

    reference.__class__ = other.__class__ = Stranger
    found = compare(read_distributions(make_reader(reference), rows), make_reader(other))

    assert make_reader(reference).anatomy is None
    assert found.mean_kl == pytest.approx(whole.mean_kl, rel=1e-4)


def test_what_is_kept_of_the_reference_is_bounded_and_spread_over_the_rows():
    rows = make_rows(8)
    row_bytes = 4 * VOCABULARY_SIZE

    kept = read_distributions(make_reader(tiny_llama(**SHAPE)), rows, max_bytes=5 * row_bytes)

    assert sum(chunk.nbytes for chunk in kept.log_probabilities) == 5 * row_bytes
    assert [row.where for row in kept.rows] == [f"rows.jsonl:{number}" for number in (1, 3, 5, 6, 8)]


def test_what_is_read_is_bounded_and_spread_over_the_rows():
    rows = make_rows(20, common=0)

    chosen = choose_rows(rows, max_tokens=100, max_targets=1000)

    assert [row.where for row in chosen] == [f"rows.jsonl:{number}" for number in (1, 6, 11, 15, 20)]
    assert sum(len(row.token_ids) for row in chosen) <= 100


def test_a_row_that_is_too_long_is_left_out_and_takes_no_others_place():
    """Whoever renders cuts rows: only there it is known what a family's rows must begin with."""
    long, short = *make_rows(1, prompt=5000), *make_rows(1)

    (row,) = choose_rows([long, short, long], max_tokens=40, max_targets=1000)

    np.testing.assert_array_equal(row.token_ids, short.token_ids)


@pytest.mark.parametrize("length", [50, 30])
def test_rows_that_are_too_long_or_without_a_target_are_refused(length):
    row = Rendered(np.arange(length, dtype=np.int32), np.full(length, length > 40), "rows.jsonl:1")

    with pytest.raises(DataError, match=r"rows.jsonl:1: no row has a target and at most 40 tokens"):
        choose_rows([row], max_tokens=40, max_targets=1000)


def test_a_network_that_says_no_numbers_is_near_to_none():
    rows, network, broken = make_rows(3), tiny_llama(**SHAPE), tiny_llama(**SHAPE)
    broken.model.norm.weight = broken.model.norm.weight * float("nan")

    found = compare(read_distributions(make_reader(network), rows), make_reader(broken))

    assert np.isnan(found.mean_kl)
    assert np.isnan(compare(read_distributions(make_reader(broken), rows), make_reader(network)).mean_kl)


class Forbidding(type(tiny_llama(**SHAPE))):
    """A network that says of token 7 that it never comes."""

    def __call__(self, inputs, cache=None):
        return mx.where(mx.arange(VOCABULARY_SIZE) == 7, -mx.inf, super().__call__(inputs, cache=cache))


def test_a_token_that_both_forbid_is_no_difference_and_one_that_only_the_other_forbids_is_infinite():
    rows, reference, other = make_rows(3), tiny_llama(**SHAPE), disturbed()
    free = compare(read_distributions(make_reader(reference), rows), make_reader(other))

    reference.__class__ = Forbidding
    one_sided = compare(read_distributions(make_reader(reference), rows), make_reader(other))
    other.__class__ = Forbidding
    both = compare(read_distributions(make_reader(reference), rows), make_reader(other))
    reference.__class__ = type(tiny_llama(**SHAPE))
    unforeseen = compare(read_distributions(make_reader(reference), rows), make_reader(other))

    assert both.mean_kl == pytest.approx(free.mean_kl, rel=0.1)
    assert free.mean_kl / 2 < one_sided.mean_kl < np.inf
    assert unforeseen.mean_kl == np.inf
