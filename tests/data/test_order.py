"""Which rows go together, and when: every row once an epoch, little padding, common beginnings together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxtune.data import order as order_module
from mlxtune.data.order import GROUP_BATCHES, SHARED_TOKENS, BatchOrder, BatchSize, batch_order, prefix_groups
from mlxtune.data.render import Rendered

SIZES = st.one_of(
    st.integers(1, 9).map(lambda rows: BatchSize(rows=rows)),
    st.integers(1, 300).map(lambda tokens: BatchSize(tokens=tokens)),
)


def plain(lengths, size, *, seed=0):
    """The order of rows that share nothing."""
    return BatchOrder(tuple(lengths), (tuple(range(len(lengths))),), size, seed)


def rows_with_starts(starts, *, length=40, seed=0):
    """Chat-like rows: one of the starts, then tokens of their own, of which the second half are targets."""
    generator = np.random.default_rng(seed)
    rows = []
    for start in starts:
        own = generator.integers(1000, 2000, length)
        ids = np.concatenate([start, own]).astype(np.int32)
        rows.append(Rendered(ids, np.arange(len(ids)) >= len(start) + length // 2, "rows.jsonl:1"))
    return rows


def waste(order, epoch=0):
    """The share of padding in what an epoch's batches compute."""
    batches = order.epoch(epoch)
    return sum(len(rows) * max(order.lengths[row] for row in rows) for rows in batches) / sum(order.lengths) - 1


@given(count=st.integers(1, 200), size=SIZES, groups=st.integers(1, 4), epoch=st.integers(0, 9))
@settings(max_examples=100)
def test_every_row_comes_exactly_once_an_epoch(count, size, groups, epoch):
    lengths = tuple(np.random.default_rng(count).integers(2, 50, count).tolist())
    parts = tuple(tuple(range(first, count, groups)) for first in range(min(groups, count)))
    order = BatchOrder(lengths, parts, size, seed=3)
    batches = order.epoch(epoch)
    assert sorted(row for rows in batches for row in rows) == list(range(count))
    assert order.count_batches(epoch) == len(batches)
    if size.rows:
        assert sorted(map(len, batches)) == sorted(
            [size.rows] * (count // size.rows) + [count % size.rows] * (count % size.rows > 0)
        )
    else:
        assert all(len(rows) == 1 or len(rows) * max(lengths[row] for row in rows) <= size.tokens for rows in batches)


def test_the_order_depends_on_seed_and_epoch_alone():
    lengths = np.random.default_rng(0).integers(2, 50, 60).tolist()
    order = plain(lengths, BatchSize(rows=4), seed=3).epoch(1)
    np.random.seed(99)  # noqa: NPY002 - the global state that must not matter
    assert plain(lengths, BatchSize(rows=4), seed=3).epoch(1) == order
    assert plain(lengths, BatchSize(rows=4), seed=3).epoch(2) != order
    assert plain(lengths, BatchSize(rows=4), seed=4).epoch(1) != order


@pytest.mark.parametrize("size", [BatchSize(rows=8), BatchSize(tokens=600)])
def test_rows_of_like_length_go_together_so_that_little_is_padding(size):
    lengths = np.random.default_rng(0).lognormal(4.0, 0.6, 1000).astype(int).tolist()
    unsorted = sum(8 * max(lengths[i : i + 8]) for i in range(0, 1000, 8)) / sum(lengths) - 1
    assert unsorted > 0.5
    assert waste(plain(lengths, size)) < 0.1


def test_batches_of_like_length_are_not_met_in_the_order_of_length():
    lengths = list(range(2, 130))
    means = [np.mean([lengths[row] for row in rows]) for rows in plain(lengths, BatchSize(rows=8)).epoch(0)]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.5


def test_rows_that_begin_alike_are_batched_together():
    instructions = np.arange(3 * 60).reshape(3, 60)
    dataset = rows_with_starts([instructions[i % 3] for i in range(96)])
    order = batch_order(dataset, BatchSize(rows=4), seed=0, share_prefix=True)
    assert sorted(map(len, order.groups)) == [32, 32, 32]
    for rows in order.epoch(0):
        assert len({row % 3 for row in rows}) == 1


def test_what_is_left_over_of_the_groups_is_batched_together():
    instructions = np.arange(2 * 60).reshape(2, 60)
    dataset = rows_with_starts([instructions[i % 2] for i in range(4 * 9 + 2)])  # 19 of each, in batches of 4
    batches = batch_order(dataset, BatchSize(rows=4), seed=0, share_prefix=True).epoch(0)
    assert sorted(map(len, batches)) == [2] + [4] * 9
    assert sum(len({row % 2 for row in rows}) == 2 for rows in batches) <= 2


@pytest.mark.parametrize(
    ("starts", "why"),
    [
        ([np.arange(60)] * 64, "one beginning for all"),
        ([np.arange(i % 2 * 100, i % 2 * 100 + SHARED_TOKENS - 1) for i in range(64)], "too little shared"),
        ([np.arange(i * 100, i * 100 + 60) for i in range(64)], "too few rows each"),
        ([np.arange(60)] * 15 + [np.arange(i * 100, i * 100 + 60) for i in range(1, 50)], "too few rows in the group"),
    ],
)
def test_no_groups_are_formed_where_they_would_save_nothing(starts, why):
    dataset = rows_with_starts(starts)
    order = batch_order(dataset, BatchSize(rows=4), seed=0, share_prefix=True)
    assert order.groups == (tuple(range(64)),), why


def test_nothing_is_grouped_for_a_network_that_shares_no_prefixes():
    dataset = rows_with_starts([np.arange(i % 2 * 100, i % 2 * 100 + 60) for i in range(64)])
    assert len(batch_order(dataset, BatchSize(rows=4), seed=0, share_prefix=True).groups) == 2
    assert len(batch_order(dataset, BatchSize(rows=4), seed=0, share_prefix=False).groups) == 1


def test_text_rows_share_nothing_since_their_first_tokens_are_targets():
    ids = np.arange(60, dtype=np.int32)
    dataset = [Rendered(ids, np.arange(60) > 0, "rows.jsonl:1")] * 64
    assert batch_order(dataset, BatchSize(rows=4), seed=0, share_prefix=True).groups == (tuple(range(64)),)


@given(
    starts=st.lists(
        st.lists(st.integers(0, 1), min_size=0, max_size=6).map(lambda bits: np.repeat(bits, SHARED_TOKENS)),
        min_size=1,
        max_size=40,
    ),
    least=st.integers(1, 6),
)
@settings(max_examples=100)
def test_each_row_is_in_one_group_and_a_group_is_large_or_what_is_left(starts, least):
    groups = prefix_groups(starts, [len(start) + 10 for start in starts], least_rows=least)
    assert sorted(row for group in groups for row in group) == list(range(len(starts)))
    assert groups == sorted(groups)
    large = [group for group in groups if len(group) >= least]
    # What is left is one group at each of the (here six) lengths at which rows part, around a large one that begins so.
    assert len(groups) == 1 or len(groups) - len(large) <= 6 * len(large)


def test_a_group_fills_at_least_so_many_batches():
    starts = [np.arange(60)] * (4 * GROUP_BATCHES) + [np.arange(100, 160)] * (4 * GROUP_BATCHES)
    assert len(batch_order(rows_with_starts(starts), BatchSize(rows=4), seed=0, share_prefix=True).groups) == 2
    assert len(batch_order(rows_with_starts(starts), BatchSize(rows=5), seed=0, share_prefix=True).groups) == 1


@given(
    starts=st.lists(
        st.lists(st.lists(st.integers(0, 70_000), max_size=2), max_size=5).map(
            lambda parts: np.concatenate([np.zeros(0, np.int32), *(np.repeat(part, 9) for part in parts)])
        ),
        min_size=1,
        max_size=30,
    )
)
def test_rows_are_sorted_by_what_they_begin_with_as_if_all_of_it_were_compared(starts):
    found, alike = order_module._sorted_by_start(starts)
    plain = [start.tolist() for start in starts]
    assert found == sorted(range(len(starts)), key=lambda row: plain[row])
    for place, shared in enumerate(alike):
        one, other = plain[found[place]], plain[found[place + 1]]
        assert one[:shared] == other[:shared]
        assert one[shared : shared + 1] != other[shared : shared + 1] or len(one) == len(other) == shared
