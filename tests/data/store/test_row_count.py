"""How many rows a file has is known, about, before it is read."""

import os

import pytest

from mlxtune.data.store import row_count
from mlxtune.data.store.row_count import estimate_rows


@pytest.mark.parametrize(("content", "rows"), [(b"", 0), (b"{}\n", 1), (b"{}\n{}", 2), (b"{}\r\n{}\r\n", 2)])
def test_a_small_file_is_counted(tmp_path, content, rows):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    assert estimate_rows(path) == rows


def test_a_large_file_is_guessed_from_its_beginning(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "a"}\n' * 1000)
    monkeypatch.setattr(row_count, "LOOKED_AT", 777)
    assert abs(estimate_rows(path) - 1000) < 20


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl.gz", "gone.jsonl"])
def test_what_is_not_a_line_a_row_is_not_guessed(tmp_path, name):
    if name != "gone.jsonl":
        (tmp_path / name).write_bytes(b"\n" * 50)
    assert estimate_rows(tmp_path / name) == 0


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "rows.jsonl")
    assert estimate_rows(tmp_path / "rows.jsonl") == 0
