"""A file becomes rows, and each row that is cut or left out is counted and named."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import CHATML, tiny_tokenizer

from mlxtune.data.dataset import Dropped, fit, load_rendered
from mlxtune.data.render import Rendered
from mlxtune.errors import DataError


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return tiny_tokenizer(tmp_path_factory.mktemp("chatml"))


@pytest.fixture
def written(tmp_path):
    def write(*rows):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


def texts(*lengths):
    """Rows of so many letters, each a token; EOS makes one more."""
    return [{"text": "a" * length} for length in lengths]


def test_the_report_counts_rows_tokens_and_targets(tokenizer, written):
    dataset = load_rendered(written(*texts(3, 5)), tokenizer, max_seq_length=6)
    assert [len(row.token_ids) for row in dataset.rows] == [4, 6]
    assert asdict(dataset.report) == {
        "format": "text",
        "rows_read": 2,
        "rows": 2,
        "tokens": 10,
        "target_tokens": 8,
        "dropped": (),
        "truncated": (),
    }


def test_rows_that_are_too_long_are_an_error_that_names_them_all(tokenizer, written):
    path = written(*texts(3, 9, 4, 12))
    with pytest.raises(DataError) as caught:
        load_rendered(path, tokenizer, max_seq_length=5)
    assert caught.value.message.split("\n") == [
        "2 problems",
        f"  {path}:2: the row has 10 tokens; data.max_seq_length is 5",
        f"  {path}:4: the row has 13 tokens; data.max_seq_length is 5",
    ]
    assert "data.max_seq_length to 13" in str(caught.value.remedy)


def test_drop_leaves_long_rows_out_and_names_them(tokenizer, written):
    path = written(*texts(3, 9, 4))
    dataset = load_rendered(path, tokenizer, max_seq_length=5, overflow="drop")
    assert [row.where for row in dataset.rows] == [f"{path}:1", f"{path}:3"]
    assert dataset.report.rows_read == 3
    assert dataset.report.dropped == (Dropped(f"{path}:2", "the row has 10 tokens; data.max_seq_length is 5"),)


def test_truncation_keeps_the_end_or_the_beginning_and_names_the_row(tokenizer, written):
    path = written({"text": "abcdef"}, {"text": "x"})
    left = load_rendered(path, tokenizer, max_seq_length=3, overflow="truncate_left")
    right = load_rendered(path, tokenizer, max_seq_length=3, overflow="truncate_right")
    assert tokenizer.decode(left.rows[0].token_ids.tolist()) == "ef<|im_end|>"
    assert tokenizer.decode(right.rows[0].token_ids.tolist()) == "abc"
    assert left.rows[0].is_target.tolist() == right.rows[0].is_target.tolist() == [False, True, True]
    assert left.report.truncated == right.report.truncated == (f"{path}:1",)


def test_a_row_that_keeps_no_target_is_dropped_and_counted(tokenizer, written):
    path = written({"prompt": "a" * 50, "completion": "b"}, {"prompt": "a", "completion": "b"})
    dataset = load_rendered(path, tokenizer, max_seq_length=80, overflow="truncate_right")
    assert [row.where for row in dataset.rows] == [f"{path}:2"]
    (dropped,) = dataset.report.dropped
    assert dropped.where == f"{path}:1"
    assert dropped.why.startswith("no target is among the 80 tokens left of ")


def test_a_data_set_with_no_row_left_is_an_error(tokenizer, written):
    with pytest.raises(DataError, match="none of the 2 rows is left"):
        load_rendered(written(*texts(9, 9)), tokenizer, max_seq_length=5, overflow="drop")


def test_every_row_that_the_template_refuses_is_named(tmp_path, written):
    refusing = CHATML.replace("message['content']", "message['content'] | replace('bad', '')")
    tokenizer = tiny_tokenizer(tmp_path, chat_template=refusing)
    good, bad = ({"prompt": "a", "completion": words} for words in ("good", "bad"))
    path = written(good, bad, good, bad)
    with pytest.raises(DataError) as caught:
        load_rendered(path, tokenizer, max_seq_length=500)
    places = [line.split(": ")[0].strip() for line in caught.value.message.split("\n")[1:]]
    assert places == [f"{path}:2", f"{path}:4"]
    assert caught.value.remedy


def test_progress_ends_at_the_number_of_rows(tokenizer, written):
    told = []
    path = written(*texts(1, 2, 3))
    load_rendered(path, tokenizer, max_seq_length=9, progress=lambda *report: told.append(report))
    assert told == [("render rows.jsonl: rows", 0, 3), ("render rows.jsonl: rows", 3, 3)]


@given(length=st.integers(2, 40), limit=st.integers(3, 20), before=st.sampled_from([(), (0,), (99,)]))
def test_a_row_that_is_split_keeps_every_target_once_each_with_what_stands_before_it(length, limit, before):
    row = Rendered(np.arange(length, dtype=np.int32), np.arange(length) % 3 > 0, "rows.jsonl:1")
    parts = fit(row, limit, "split", before=before)
    assert all(len(part.token_ids) <= limit for part in parts)
    targets = [part.token_ids[i] for part in parts for i in np.flatnonzero(part.is_target)]
    assert targets == row.token_ids[row.is_target].tolist()
    for part in parts:
        for i in np.flatnonzero(part.is_target):
            assert part.token_ids[i - 1] == part.token_ids[i] - 1
        assert before != (0,) or part.token_ids[0] == 0


def test_split_names_the_rows_and_counts_their_parts(tokenizer, written):
    path = written(*texts(3, 9, 4))
    dataset = load_rendered(path, tokenizer, max_seq_length=5, overflow="split")
    assert [row.where for row in dataset.rows] == [f"{path}:{line}" for line in (1, 2, 2, 2, 3)]
    assert dataset.report.truncated == (f"{path}:2",)
    assert (dataset.report.rows_read, dataset.report.rows, len(dataset.examples)) == (3, 5, 3)
    whole = load_rendered(path, tokenizer, max_seq_length=50)
    assert dataset.report.target_tokens == whole.report.target_tokens


@given(
    length=st.integers(1, 20),
    limit=st.integers(2, 20),
    overflow=st.sampled_from(["error", "drop", "truncate_left", "truncate_right"]),
    before=st.sampled_from([(), (0,), (99,)]),
)
def test_what_is_left_is_an_end_of_the_row_within_the_limit(length, limit, overflow, before):
    row = Rendered(np.arange(length, dtype=np.int32), np.arange(length) > 0, "rows.jsonl:1")
    left = fit(row, limit, overflow, before=before)
    if length <= limit:
        assert left == [row]
    elif overflow in ("error", "drop"):
        assert left == []
    else:
        (left,) = left
        wanted = list(range(length))[:limit] if overflow == "truncate_right" else list(range(length))[-limit:]
        if before == (0,) and overflow == "truncate_left":
            wanted[0] = 0
        assert left.token_ids.tolist() == wanted
        assert left.is_target.tolist() == [False] + [True] * (limit - 1)
        assert left.token_ids.dtype == np.int32
