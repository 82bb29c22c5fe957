"""Splitting a file: by content, byte for byte, whole or not at all."""

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxtune.data.example import Example, content_hash
from mlxtune.data.split import SPLITS, _folder_beside, split_file, split_of
from mlxtune.errors import DataError, OutputExistsError


def rows(numbers):
    return [json.dumps({"text": f"row {n}"}).encode() + b"\n" for n in numbers]


@pytest.fixture
def written(tmp_path):
    def write(lines, name="all.jsonl"):
        path = tmp_path / name
        path.write_bytes(b"".join(lines))
        return path

    return write


def read_splits(folder):
    return {split: (folder / f"{split}.jsonl").read_bytes().splitlines(keepends=True) for split in SPLITS}


def test_each_line_goes_byte_for_byte_to_one_split_in_its_order(written):
    lines = [*rows(range(200)), b'{ "id":1,"text" : "caf\\u00e9" }\r\n', b"\n", b'{"text": "no newline"}']
    report = split_file(written([b"\xef\xbb\xbf", *lines]))
    parts = read_splits(report.folder)
    wanted = [*lines[:-2], lines[-1] + b"\n"]
    assert sorted(line for part in parts.values() for line in part) == sorted(wanted)
    for split, part in parts.items():
        assert part == sorted(part, key=wanted.index)
        assert report.rows[split] == len(part)
    assert report.duplicates == 0
    assert report.moved == ()


def test_the_folder_is_beside_the_file_and_named_after_it(written, tmp_path):
    assert split_file(written(rows(range(50)), "tickets.v2.jsonl")).folder == tmp_path / "tickets.v2"
    assert split_file(written(rows(range(50)), "tickets")).folder == tmp_path / "tickets.split"
    assert _folder_beside(tmp_path / "tickets.v2.jsonl.gz") == tmp_path / "tickets.v2"


def test_shares_are_met_on_average():
    places = [split_of(content_hash(Example("text", "", text=f"row {n}"))) for n in range(10_000)]
    # Three standard deviations of a binomial count: 90 rows at p = 0.1.
    assert abs(places.count("test") - 1000) < 90
    assert abs(places.count("valid") - 1000) < 90


def test_rows_added_later_move_no_old_ones(written, tmp_path):
    before = read_splits(split_file(written(rows(range(100)))).folder)
    after = read_splits(split_file(written(rows(range(300))), tmp_path / "more").folder)
    for split in SPLITS:
        assert set(before[split]) <= set(after[split])


def test_equal_rows_stand_on_one_side_however_they_are_written(written):
    turns = [{"role": "user", "content": "caf\u00e9"}, {"role": "assistant", "content": "yes"}]
    same = [
        json.dumps({"messages": turns}).encode() + b"\n",
        json.dumps({"id": 5, "messages": [dict(reversed(turn.items())) for turn in turns]}, ensure_ascii=False).encode()
        + b"\r\n",
        json.dumps({"messages": turns}, indent=None, separators=(",", ":")).encode() + b"\n",
    ]
    others = [
        json.dumps({"messages": [{"role": "user", "content": f"{n}"}, turns[1]]}).encode() + b"\n" for n in range(30)
    ]
    report = split_file(written([same[0], *others, *same[1:]]))
    parts = read_splits(report.folder)
    assert report.duplicates == 2
    assert [sum(line in part for line in same) for part in parts.values() if set(same) & set(part)] == [3]


@given(st.sets(st.integers(0, 10**9), min_size=3, max_size=8))
@settings(max_examples=12)  # each one writes and flushes three files
def test_no_split_stays_empty_where_there_are_three_different_rows(tmp_path_factory, numbers):
    path = tmp_path_factory.mktemp("split") / "all.jsonl"
    path.write_bytes(b"".join(rows(numbers)))
    report = split_file(path)
    assert min(report.rows.values()) >= 1
    assert sum(report.rows.values()) == len(numbers)
    assert len(report.moved) <= 2


def test_fewer_than_three_different_rows_are_refused(written, tmp_path):
    with pytest.raises(DataError, match="the file has 2 different rows"):
        split_file(written(rows([1, 2, 1, 2])))
    assert not (tmp_path / "all").exists()


def test_a_bad_row_leaves_nothing_behind(written, tmp_path):
    with pytest.raises(DataError):
        split_file(written([*rows(range(50)), b'{"text": ""}\n']))
    assert [path.name for path in tmp_path.iterdir()] == ["all.jsonl"]


def test_an_output_that_is_there_is_overwritten_by_force_alone_and_nothing_else_in_it(written, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    (out / "train.jsonl").write_text("old")
    path = written(rows(range(50)))
    with pytest.raises(OutputExistsError):
        split_file(path, out)
    assert (out / "train.jsonl").read_text() == "old"
    split_file(path, out, force=True)
    assert sum(map(len, read_splits(out).values())) == 50
    assert (out / "notes.txt").read_text() == "mine"


def test_a_disk_that_fills_up_while_overwriting_leaves_all_three_as_they_were(written, tmp_path, monkeypatch):
    folder = split_file(written(rows(range(50)))).folder
    before = read_splits(folder)
    calls = itertools.count(1)

    def full_disk(_: int) -> None:
        if next(calls) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("mlxtune.files.flush", full_disk)
    with pytest.raises(OSError, match="No space"):
        split_file(written(rows(range(100, 200))), folder, force=True)
    assert read_splits(folder) == before
    assert len(list(folder.iterdir())) == 3


def test_a_folder_in_the_place_of_a_split_is_refused_before_anything_is_written(written, tmp_path):
    (tmp_path / "out" / "valid.jsonl").mkdir(parents=True)
    with pytest.raises(OutputExistsError, match="a folder has this name"):
        split_file(written(rows(range(50))), tmp_path / "out", force=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["valid.jsonl"]


def test_a_file_never_overwrites_itself(written, tmp_path):
    path = written(rows(range(50)), "train.jsonl")
    with pytest.raises(OutputExistsError, match="overwrite itself"):
        split_file(path, tmp_path, force=True)
    assert path.read_bytes() == b"".join(rows(range(50)))


def test_an_output_that_is_a_file_is_refused(written, tmp_path):
    path = written(rows(range(50)))
    with pytest.raises(OutputExistsError, match="no folder"):
        split_file(path, path, force=True)
