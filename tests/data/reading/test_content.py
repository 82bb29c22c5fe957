"""What keeps a file from filling memory, running for ever, or being read as something else."""

import gzip
import json
import os
import sys
import tracemalloc

import pytest
from whole_file import read_records

from mlxtune.data.faults import Fault
from mlxtune.data.read import read_lines, read_stream
from mlxtune.data.reading import content
from mlxtune.errors import DataError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PACK = {".gz": gzip.compress, ".zst": zstd.compress}
CHECKED = {zstd.CompressionParameter.checksum_flag: 1}
ROWS = b"".join(b'{"text": "%d %s"}\n' % (number, os.urandom(30).hex().encode()) for number in range(2000))


def refusal(path) -> DataError:
    with pytest.raises(DataError) as caught:
        list(read_stream(path))
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize("ending", PACK)
def test_a_packed_file_that_is_cut_short_is_refused_and_never_taken_for_whole(tmp_path, ending):
    packed, path = PACK[ending](ROWS), tmp_path / f"rows.jsonl{ending}"
    for size in (len(packed) - 1, len(packed) // 2, 20):
        path.write_bytes(packed[:size])
        assert refusal(path).message == "the compressed file is cut short"


@pytest.mark.parametrize("ending", PACK)
def test_a_packed_file_that_is_damaged_or_no_packed_file_is_refused(tmp_path, ending):
    path = tmp_path / f"rows.jsonl{ending}"
    packed = gzip.compress(ROWS) if ending == ".gz" else zstd.compress(ROWS, options=CHECKED)
    for bad in (packed[:500] + bytes(200) + packed[700:], ROWS, b"PK\x03\x04" + ROWS):
        path.write_bytes(bad)
        assert "damaged" in refusal(path).message


@pytest.mark.parametrize("ending", PACK)
def test_several_packed_pieces_one_after_the_other_are_one_file(tmp_path, ending):
    path = tmp_path / f"rows.jsonl{ending}"
    path.write_bytes(PACK[ending](ROWS) + PACK[ending](ROWS))
    assert len(read_records(path)) == 4000


@pytest.mark.parametrize("ending", PACK)
@pytest.mark.parametrize("unit", [b"x", b'{"text": "a"}\n', b"\n"])
def test_a_bomb_is_refused_in_bounded_memory(tmp_path, monkeypatch, ending, unit):
    monkeypatch.setattr(content, "ALWAYS_TAKEN", 1 << 16)
    monkeypatch.setattr(content, "RATIO", 20)
    path = tmp_path / f"rows.jsonl{ending}"
    path.write_bytes(PACK[ending](unit * ((4 << 20) // len(unit))))
    taken = 0
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="expands to more than 20 times"):
            for taken, _ in enumerate(read_stream(path)):  # noqa: B007 - how far it came
                pass
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert taken < 100_000


@pytest.mark.parametrize("ending", PACK)
def test_a_packed_file_under_a_plain_name_is_told_to_be_one(tmp_path, ending):
    (tmp_path / "rows.jsonl").write_bytes(PACK[ending](ROWS))
    error = refusal(tmp_path / "rows.jsonl")
    assert "compressed" in error.message
    assert error.remedy == f"add {ending} to its name"


def test_a_huge_line_is_a_fault_and_the_next_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(content, "LONGEST", 1000)
    good = b'{"text": "a"}\n'
    (tmp_path / "rows.jsonl").write_bytes(good + b"x" * 5000 + b"\n" + good + b'{"text": "' + b"y" * 2000)
    rows = list(read_stream(tmp_path / "rows.jsonl"))
    assert [row.line for row in rows] == [1, 2, 3, 4]
    assert [isinstance(row, Fault) for row in rows] == [False, True, False, True]
    assert "the line is longer than" in rows[1].message
    with pytest.raises(DataError, match="longer than"):
        list(read_lines(tmp_path / "rows.jsonl"))


def test_a_line_of_200_megabytes_takes_no_such_memory(tmp_path):
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as file:
        file.truncate(200 << 20)  # a hole: zeros that take no room
        file.seek(0)
        file.write(b'{"text": "')
    tracemalloc.start()
    try:
        (fault,) = read_stream(path)
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()
    assert "longer than 32 MiB" in fault.message


def test_a_pipe_a_device_and_links_that_lead_nowhere_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "circle.jsonl").symlink_to("circle.jsonl")
    (tmp_path / "gone.jsonl").symlink_to("nothing.jsonl")
    assert refusal(tmp_path / "pipe.jsonl").message == "this is a pipe or a device, and no file"
    assert "lead in a circle" in refusal(tmp_path / "circle.jsonl").message
    assert "a link to something that is not there" in refusal(tmp_path / "gone.jsonl").message
    (tmp_path / "null.jsonl").symlink_to("/dev/zero")
    assert "a device" in refusal(tmp_path / "null.jsonl").message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    (tmp_path / "rows.jsonl").touch(mode=0o000)
    assert "Permission denied" in refusal(tmp_path / "rows.jsonl").message


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.jsonl.gz", "a.csv.zst"])
def test_an_empty_file_has_no_rows(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(PACK.get(path.suffix, bytes)(b""))
    assert read_records(path) == []


def test_rows_keep_their_order_and_number_in_a_large_packed_file(tmp_path):
    rows = [{"n": number, "text": "x" * (number % 977)} for number in range(5000)]
    path = tmp_path / "rows.jsonl.zst"
    path.write_bytes(zstd.compress(b"".join(json.dumps(row).encode() + b"\n" for row in rows)))
    assert [record.fields for record in read_records(path)] == rows
