"""Around one row of a stream a bounded number is held, and what it shares is what its batch shares."""

import itertools

import numpy as np
import pytest

from mlxtune.data.batch import make_batch
from mlxtune.data.example import Example
from mlxtune.data.faults import Fault
from mlxtune.data.inspect import Sharing
from mlxtune.data.inspection.neighbours import find_window, share_in_order, share_in_reading
from mlxtune.data.order import BatchSize, batch_order
from mlxtune.data.render import Rendered


def stream(count, size=1):
    """Rows, every tenth a fault, and how many were taken so far."""
    taken = itertools.count(1)
    for line in range(1, count + 1):
        next(taken)
        where = f"rows.jsonl:{line}"
        yield Fault(where, "bad") if line % 10 == 0 else Example("text", where, text="a" * size)


def lines(items):
    return [int(item.where.rpartition(":")[2]) for item in items]


def test_rows_are_found_by_number_with_as_many_around_them():
    window = find_window(stream(100), 50, 3, around=10)
    assert lines(window.rows) == [50, 51, 52]
    assert lines(window.before) == [45, 46, 47, 48, 49]
    assert lines(window.after) == [53, 54, 55, 56, 57]
    assert (window.start, window.total, window.is_whole) == (45, None, False)
    assert isinstance(window.rows[0], Fault)


def test_no_more_of_a_stream_is_read_than_is_needed():
    rows = stream(10**9)
    find_window(rows, 7, 1, around=10)
    # 2 to 6 are before, 8 to 12 after, 13 tells that there are more, and 14 that 13 is told of in full.
    assert lines([next(rows)]) == [15]


def test_a_row_with_several_faults_is_one_row():
    rows = [Fault("rows.jsonl:1", "'a' is missing"), Fault("rows.jsonl:1", "'b' is empty"), *stream(3)]
    window = find_window(rows[:2] + rows[3:], 1, 1)
    assert window.rows == (Fault("rows.jsonl:1", "'a' is missing; 'b' is empty"),)
    assert (lines(window.after), window.total) == ([2, 3], 3)


def test_a_small_file_is_held_whole_and_its_rows_are_counted():
    window = find_window(stream(8), 2, 1, around=20)
    assert lines([*window.before, *window.rows, *window.after]) == list(range(1, 9))
    assert (window.start, window.total, window.is_whole) == (1, 8, True)


def test_a_row_that_is_not_there_gives_none_and_the_count():
    window = find_window(stream(8), 9, 1, around=4)
    assert (window.rows, window.total) == ((), 8)


@pytest.mark.parametrize("first", [1, 40])
def test_long_rows_are_held_within_a_bound(first):
    window = find_window(stream(80, size=1000), first, 1, around=60, characters=10_000)
    held = sum(len(item.text) for item in (*window.before, *window.after) if isinstance(item, Example))
    assert 0 < held <= 12_000
    assert not window.is_whole


def row(ids, first_target):
    ids = np.array(ids, np.int32)
    return Rendered(ids, np.arange(len(ids)) >= first_target, "rows.jsonl:1")


ROWS = [row([1, 2, 3, 4, 5, 6, number, number + 1], 6) for number in range(20, 28)]


def test_what_is_shared_in_training_is_what_the_batch_of_the_row_shares():
    order = batch_order(ROWS, BatchSize(rows=4), seed=0, share_prefix=True)
    batch = next(rows for rows in order.epoch(0) if 2 in rows)
    wanted = make_batch(ROWS, batch, share_prefix=True)
    assert wanted.prefix_ids.size == 5  # six are alike, and the sixth predicts the first target
    assert share_in_order(ROWS, 2, order, multiple=1, whole=True) == Sharing(5, 4, "its batch in the first epoch")
    sampled = share_in_order(ROWS, 2, order, multiple=4, whole=False)
    assert (sampled.tokens, sampled.rows) == (4, 4)
    assert sampled.known == "a batch made of the 8 rows around it, not of the whole file"


def test_what_is_shared_in_reading_is_what_rows_of_like_length_share():
    assert share_in_reading(ROWS, 3, whole=True) == Sharing(5, 8, "its batch when the loss is measured")
