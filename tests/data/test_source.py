"""Where rows come from: files, folders, several with weights; each location has its form, and a hash covers all."""

import hashlib
import json
from pathlib import Path

import pytest

from mlxtune.data.example import Example
from mlxtune.data.faults import Fault
from mlxtune.data.normalize import Shape
from mlxtune.data.reading.locations import find_files
from mlxtune.data.source import find_source, hash_of, iterate, open_file, read_examples, stream_of
from mlxtune.errors import DataError


def write(path: Path, *rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def texts(source) -> list[str]:
    return [row.text for row in iterate(source) if isinstance(row, Example)]


def source_at(*places, split="train", shape=None):
    pairs = [place if isinstance(place, tuple) else (place, 1.0) for place in places]
    return find_source([(str(place), weight) for place, weight in pairs], split, shape)


def test_a_folder_is_read_in_the_order_of_names_and_a_split_takes_its_own(tmp_path):
    for name in ("b/train.jsonl", "a/train.jsonl", "a/test.jsonl"):
        write(tmp_path / name, {"text": name})
    assert texts(source_at(tmp_path)) == ["a/train.jsonl", "b/train.jsonl"]
    assert texts(source_at(tmp_path, split="test")) == ["a/test.jsonl"]
    with pytest.raises(DataError, match="none of valid"):
        source_at(tmp_path, split="valid")


def test_a_folder_of_texts_is_a_row_a_file(tmp_path):
    for name in ("b.md", "a.txt", ".hidden.txt", "deep/c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"text of {name}")
    assert texts(source_at(tmp_path)) == ["text of a.txt", "text of b.md", "text of deep/c.txt"]


def test_each_location_has_its_own_form_and_weight(tmp_path):
    chats = write(tmp_path / "chats.jsonl", {"prompt": "a", "completion": "b"})
    plain = write(tmp_path / "plain.jsonl", {"text": "c"})
    source = source_at((chats, 2.0), plain)
    assert [row.kind for row in read_examples(source)] == ["prompt_completion", "text"]
    assert [file.weight for file in stream_of(source).files] == [2.0, 1.0]
    assert [open_file(file, source.shape).form for file in source.files] == ["prompt_completion", "text"]


def test_a_stream_can_be_gone_through_again(tmp_path):
    stream = stream_of(source_at(write(tmp_path / "a.jsonl", {"text": "a"}, {"text": "b"})))
    for _ in range(2):
        assert [row.text for file in stream.files for row in file.open()] == ["a", "b"]
    assert stream.total == 2


def test_the_hash_of_one_file_is_its_own_and_of_several_depends_on_content_order_and_weight(tmp_path):
    one, two = write(tmp_path / "1.jsonl", {"text": "1"}), write(tmp_path / "2.jsonl", {"text": "2"})
    assert hash_of(source_at(one)) == hashlib.sha256(one.read_bytes()).hexdigest()
    hashes = [
        source_at(one, two),
        source_at(two, one),
        source_at((one, 2.0), two),
        source_at((one, 2.0)),
        source_at(one),
    ]
    assert len({hash_of(source) for source in hashes}) == 5
    before = hash_of(source_at(one, two))
    write(two, {"text": "3"})
    assert hash_of(source_at(one, two)) != before


def test_faults_stand_in_place_of_bad_rows_and_are_told_at_once_where_rows_are_needed(tmp_path):
    path = write(tmp_path / "a.jsonl", {"text": "a"}, {"text": 3}, ["x"], {"text": "b"})
    rows = list(iterate(source_at(path)))
    assert [isinstance(row, Fault) for row in rows] == [False, True, True, False]
    with pytest.raises(DataError, match="2 problems"):
        read_examples(source_at(path))


def test_columns_are_mapped_for_every_location(tmp_path):
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("Q,A\nwhat,that\n")
    shape = Shape(columns={"prompt": "Q", "completion": "A"})
    source = source_at(tmp_path / "a.csv", tmp_path / "b.csv", shape=shape)
    assert [row.messages[1].content for row in read_examples(source)] == ["that", "that"]


@pytest.mark.parametrize("content", ["", "\n"])
def test_a_location_without_rows_is_refused(tmp_path, content):
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(DataError, match="no rows"):
        read_examples(source_at(tmp_path / "a.jsonl"))


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(DataError, match="there is no such file"):
        source_at(tmp_path / "gone.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no files of rows"):
        source_at(tmp_path / "empty")


def test_links_are_followed_and_circles_refused(tmp_path):
    rows, folder = write(tmp_path / "elsewhere" / "x.jsonl", {"text": "a"}), tmp_path / "folder"
    folder.mkdir()
    (folder / "a.jsonl").symlink_to(rows)
    (folder / "inside").symlink_to(rows.parent)
    (folder / "again").symlink_to(rows.parent)
    # The linked folder is gone through once, whatever it is called.
    assert [path.name for path in find_files(str(folder), "train").paths] == ["a.jsonl", "x.jsonl"]
    (folder / "inside").unlink()
    (folder / "again").unlink()
    (folder / "deep").mkdir()
    (folder / "deep" / "up").symlink_to(folder)
    with pytest.raises(DataError, match="lead in a circle"):
        source_at(folder)
    (folder / "deep" / "up").unlink()
    (folder / "b.jsonl").symlink_to("b.jsonl")
    with pytest.raises(DataError, match="leads to nothing, or in a circle"):
        source_at(folder)


def test_packed_parquet_of_the_hubs_layout_is_read(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    (tmp_path / "data").mkdir()
    for number in range(2):
        parquet.write_table(pa.table({"text": [f"t{number}"]}), tmp_path / f"data/train-0000{number}-of-00002.parquet")
    assert texts(source_at(tmp_path)) == ["t0", "t1"]
