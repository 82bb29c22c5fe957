"""What is asked of all rows at once is answered alike for rows in a list and for those of a data set."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxtune.data.batch import make_batch, shape_of
from mlxtune.data.render import Rendered
from mlxtune.data.store.rows import Beginnings, PartsWriter, PlacesWriter, epoch_rows, facts_of, places_of, take_rows
from mlxtune.data.store.token_store import StoreWriter


@st.composite
def plain_rows(draw):
    """Rows that begin alike more or less, each with a target."""
    rows = []
    for number in range(draw(st.integers(1, 6))):
        ids = draw(st.lists(st.integers(0, 2), min_size=2, max_size=12))
        is_target = np.array(draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids))), bool)
        is_target[0], is_target[-1] = False, is_target[-1] or not is_target[1:].any()
        rows.append(Rendered(np.array(ids, np.int32), is_target, f"{'ab'[number % 2]}.jsonl:{number}"))
    return rows


def stored(rows):
    """The same rows, as a data set has them."""
    store, places = StoreWriter(None), PlacesWriter()
    for row in rows:
        store.add(row)
        places.add(row.where)
    everyone = np.ones(len(rows))
    return epoch_rows(store.finish(), places.finish(), everyone.astype(int), everyone.astype(bool), PartsWriter())[0]


@given(rows=plain_rows(), data=st.data())
def test_lengths_targets_places_and_beginnings_are_the_same(rows, data):
    numbers = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=5)), int)
    for plain, lazy in ((rows, stored(rows)), (take_rows(rows, numbers), take_rows(stored(rows), numbers))):
        for ours, theirs in zip(facts_of(lazy).columns(), facts_of(plain).columns(), strict=True):
            assert ours.tolist() == theirs.tolist()
        assert list(places_of(lazy)) == list(places_of(plain))
        lengths = [len(row.token_ids) - 1 for row in plain]
        for ours, theirs in zip(Beginnings(lazy, lengths), Beginnings(plain, lengths), strict=True):
            assert ours.tolist() == theirs.tolist()


@given(rows=plain_rows(), share_prefix=st.booleans(), multiple=st.sampled_from([1, 4]))
def test_batches_and_their_shapes_are_the_same(rows, share_prefix, multiple):
    numbers = range(len(rows))
    settings = {"share_prefix": share_prefix, "multiple": multiple}
    ours, theirs = (make_batch(some, numbers, **settings) for some in (stored(rows), rows))
    for mine, other in zip(ours.arrays(), theirs.arrays(), strict=True):
        assert mine.tolist() == other.tolist()
    shape = shape_of(stored(rows), numbers, **settings)
    assert shape == shape_of(rows, numbers, **settings)
    assert (shape.prefix, shape.rows, shape.length) == (ours.prefix_ids.shape[0], *ours.token_ids.shape)
    assert shape.filled == shape.prefix + sum(ours.lengths)


@pytest.mark.parametrize("where", ["rows.jsonl:7", "/a:b/rows.csv:12", "C:rows.jsonl:3000000000"])
def test_a_place_is_told_as_it_was(where):
    places = PlacesWriter()
    places.add("other.jsonl:1")
    places.add(where)
    assert list(places.finish()) == ["other.jsonl:1", where]
