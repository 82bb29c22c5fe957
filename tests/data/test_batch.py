import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxtune.data.batch import make_batch, reading_batches
from mlxtune.data.render import Rendered


@st.composite
def datasets(draw):
    """Rows that begin alike, for some tokens or none; each has a target, anywhere but at its first token."""
    start = draw(st.lists(st.integers(1, 3), max_size=6))
    rows = []
    for number in range(draw(st.integers(1, 6))):
        ids = start + draw(st.lists(st.integers(1, 3), min_size=2, max_size=8))
        positions = draw(st.sets(st.integers(1, len(ids) - 1), min_size=1))
        is_target = np.isin(np.arange(len(ids)), list(positions))
        rows.append(Rendered(np.array(ids, np.int32), is_target, f"rows.jsonl:{number + 1}"))
    return rows


def row(ids, targets):
    return Rendered(np.array(ids, np.int32), np.isin(np.arange(len(ids)), targets), "rows.jsonl:1")


@given(dataset=datasets(), share_prefix=st.booleans())
@settings(max_examples=150, deadline=None)
def test_the_targets_of_a_batch_are_the_masks_and_no_others(dataset, share_prefix):
    batch = make_batch(dataset, range(len(dataset)), share_prefix=share_prefix)
    prefix, length = batch.prefix_ids.shape[0], batch.token_ids.shape[1]
    found = set()
    for index, token in zip(batch.target_index.tolist(), batch.target_id.tolist(), strict=True):
        number, position = index // length, prefix + index % length + 1
        assert dataset[number].token_ids[position] == token
        found.add((number, position))
    wanted = {(i, int(position)) for i, row in enumerate(dataset) for position in np.flatnonzero(row.is_target)}
    assert found == wanted
    assert batch.target_count == len(wanted)
    assert batch.target_weight.tolist() == [1.0] * len(wanted)


@given(dataset=datasets(), share_prefix=st.booleans())
@settings(max_examples=150, deadline=None)
def test_each_target_is_predicted_from_its_own_rows_tokens(dataset, share_prefix):
    batch = make_batch(dataset, range(len(dataset)), share_prefix=share_prefix)
    whole = np.concatenate([np.tile(np.array(batch.prefix_ids), (len(dataset), 1)), np.array(batch.token_ids)], axis=1)
    for i, row in enumerate(dataset):
        last = np.flatnonzero(row.is_target)[-1]
        assert whole[i, :last].tolist() == row.token_ids[:last].tolist()
        assert not whole[i, last:].any()  # padding


@given(dataset=datasets())
@settings(max_examples=100, deadline=None)
def test_a_prefix_is_as_long_as_the_rows_and_their_targets_let_it_be(dataset):
    prefix = make_batch(dataset, range(len(dataset)), share_prefix=True).prefix_ids.tolist()
    limit = min(np.flatnonzero(row.is_target)[0] for row in dataset) - 1
    inputs = [row.token_ids[: np.flatnonzero(row.is_target)[-1]].tolist() for row in dataset]
    shared = [n for n in range(limit + 1) if all(ids[:n] == inputs[0][:n] and len(ids) >= n for ids in inputs)]
    assert prefix == inputs[0][: 0 if len(dataset) == 1 else max(shared)]


def test_rows_that_are_targets_throughout_share_nothing():
    dataset = [row([1, 2, 3, 4], [1, 2, 3]), row([1, 2, 3, 5], [1, 2, 3])]
    assert make_batch(dataset, [0, 1], share_prefix=True).prefix_ids.shape == (0,)


def test_tokens_count_each_row_in_full_and_no_padding():
    dataset = [row([1, 2, 3, 4, 5], [3]), row([1, 2, 3, 9, 9, 9, 9], [4])]
    batch = make_batch(dataset, [0, 1], share_prefix=True)
    assert batch.prefix_ids.tolist() == [1, 2]
    assert batch.tokens == 12
    assert batch.token_ids.shape == (2, 2)


@pytest.mark.parametrize("max_tokens", [1, 11, 4096])
def test_reading_meets_every_row_once_in_batches_of_so_many_tokens(max_tokens):
    dataset = [row([1, 2, *[3] * (i % 4)], [1]) for i in range(11)]
    batches = list(reading_batches(dataset, share_prefix=False, max_tokens=max_tokens))
    assert all(len(b.rows) == 1 or b.tokens <= max_tokens for b in batches)
    assert len(batches) == {1: 11, 11: 5, 4096: 1}[max_tokens]
    assert sorted(number for batch in batches for number in batch.rows) == list(range(11))
    assert sum(batch.target_count for batch in batches) == 11
