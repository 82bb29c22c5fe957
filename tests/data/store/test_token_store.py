"""Rows come out of the store as they went in, whether they are in memory, in a file without a name or in a kept one."""

import errno
import gc
import os
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxtune.data.render import Rendered
from mlxtune.data.store import token_store
from mlxtune.data.store.token_store import StoreWriter, open_store
from mlxtune.errors import DeviceError


@st.composite
def rendered_rows(draw):
    """A row: ids of two bytes or of four, any targets but the first, weights or none."""
    length = draw(st.integers(0, 40))
    most = draw(st.sampled_from([9, 65_535, 65_536, 200_000]))
    ids = draw(st.lists(st.integers(0, most), min_size=length, max_size=length))
    is_target = np.array(draw(st.lists(st.booleans(), min_size=length, max_size=length)), bool)
    is_target[:1] = False
    weight = None
    if draw(st.booleans()):
        values = st.floats(0, 8, width=32)
        weight = np.array(draw(st.lists(values, min_size=length, max_size=length)), np.float32)
    return Rendered(np.array(ids, np.int32), is_target, f"rows.jsonl:{draw(st.integers(1, 99))}", weight)


def written(rows, folder=None):
    writer = StoreWriter(folder)
    for row in rows:
        writer.add(row)
    return writer.finish()


def assert_same(store, rows):
    assert len(store) == len(rows)
    for number, row in enumerate(rows):
        found = store.read(number, row.where)
        assert found.where == row.where
        for ours, theirs in zip(
            (found.token_ids, found.is_target, found.weight), (row.token_ids, row.is_target, row.weight), strict=True
        ):
            assert (ours is None) == (theirs is None)
            if ours is not None:
                assert ours.dtype == theirs.dtype
                assert ours.tobytes() == theirs.tobytes()
                assert not ours.flags.writeable


@given(rows=st.lists(rendered_rows(), max_size=12), spill=st.sampled_from([1, 50, 1 << 20]))
def test_rows_come_back_to_the_last_bit(rows, spill, tmp_path_factory):
    before, token_store.SPILL_BYTES = token_store.SPILL_BYTES, spill
    try:
        store = written(rows)
    finally:
        token_store.SPILL_BYTES = before
    assert_same(store, rows)
    path = tmp_path_factory.mktemp("kept") / "rows"
    with path.open("wb") as file:
        store.copy_to(file)
    opened = open_store(path)
    assert opened is not None
    assert_same(opened, rows)
    for ours, theirs in zip(opened.facts.columns(), store.facts.columns(), strict=True):
        assert ours.tolist() == theirs.tolist()


@given(row=rendered_rows())
def test_facts_are_those_of_the_rows(row):
    facts = written([row]).facts
    targets = np.flatnonzero(row.is_target).tolist()
    expected = (len(row.token_ids), targets[0] if targets else 0, targets[-1] if targets else 0, len(targets))
    assert tuple(column.item() for column in facts.columns()) == expected


@given(row=rendered_rows(), start=st.integers(0, 40), end=st.integers(0, 40))
def test_some_token_ids_of_a_row_are_read_alone(row, start, end):
    end = min(end, len(row.token_ids))
    assert written([row]).read_ids(0, start, end).tolist() == row.token_ids[start:end].tolist()


def rows(count, length=100):
    return [
        Rendered(np.full(length, number, np.int32), np.arange(length) > 0, f"a.jsonl:{number}")
        for number in range(count)
    ]


def test_what_is_written_before_it_is_finished_has_no_name_in_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(token_store, "SPILL_BYTES", 100)
    some = rows(5)
    store = written(some, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert_same(store, some)


def test_a_store_that_nobody_holds_closes_its_file(tmp_path, monkeypatch):
    monkeypatch.setattr(token_store, "SPILL_BYTES", 100)
    dup, opened = os.dup, []
    monkeypatch.setattr(os, "dup", lambda descriptor: opened.append(dup(descriptor)) or opened[-1])
    store = written(rows(5), tmp_path)
    assert os.fstat(opened[0]).st_size > 0
    del store
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened[0])


@pytest.mark.parametrize("damage", ["cut", "empty", "changed", "text"])
def test_a_file_that_is_not_as_it_was_written_is_not_opened(tmp_path, damage):
    path = tmp_path / "rows"
    with path.open("wb") as file:
        written(rows(3)).copy_to(file)
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 1
    path.write_bytes({"cut": whole[:-7], "empty": b"", "changed": bytes(changed), "text": b"text" * 40}[damage])
    assert open_store(path) is None


def test_a_file_that_is_cut_while_it_is_in_use_is_an_error(tmp_path):
    path = tmp_path / "rows"
    with path.open("wb") as file:
        written(rows(3)).copy_to(file)
    store = open_store(path)
    assert store is not None
    os.truncate(path, 10)
    with pytest.raises(DeviceError, match="was cut short while it was in use"):
        store.read(2, "a.jsonl:1")


def test_a_disk_that_takes_nothing_is_an_error_that_says_where(tmp_path, monkeypatch):
    def refuse(descriptor, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(token_store, "SPILL_BYTES", 100)
    with mock.patch.object(os, "write", refuse), pytest.raises(DeviceError, match="cannot be written") as caught:
        written(rows(2), tmp_path)
    assert caught.value.where == str(tmp_path)
    assert "MLXTUNE_CACHE" in str(caught.value.remedy)


def test_where_the_folder_takes_no_file_the_systems_own_does(tmp_path, monkeypatch):
    monkeypatch.setattr(token_store, "SPILL_BYTES", 100)
    some = rows(5)
    assert_same(written(some, tmp_path / "gone"), some)
