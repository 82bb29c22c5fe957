"""Parquet and Arrow: values as JSON has them, bytes left out, damage and claims beyond measure refused."""

import datetime as dt
import io
import json
import sys
from decimal import Decimal

import pyarrow as pa
import pytest
from pyarrow import ipc, parquet
from whole_file import read_records

from mlxtune.data.faults import Fault
from mlxtune.data.read import describe_file, read_stream
from mlxtune.errors import DataError, DeviceError


def write(path, table, **options):
    if path.suffix == ".parquet":
        parquet.write_table(table, path, **options)
    else:
        with ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table)
    return path


def refusal(path) -> DataError:
    with pytest.raises(DataError) as caught:
        list(read_stream(path))
    assert caught.value.remedy
    return caught.value


@pytest.fixture(params=["rows.parquet", "rows.arrow"])
def path(request, tmp_path):
    return tmp_path / request.param


def test_values_are_those_of_json(path):
    rows = [
        {
            "messages": [{"role": "user", "content": "a"}],
            "n": 2**40,
            "x": 0.5,
            "is": True,
            "none": None,
            "day": dt.date(2026, 1, 2),
            "price": Decimal("1.50"),
        }
    ]
    write(
        path, pa.Table.from_pylist(rows).append_column("map", pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())))
    )
    (record,) = read_records(path)
    assert record.fields == rows[0] | {"day": "2026-01-02", "price": "1.50", "map": {"k": 1}}
    assert json.loads(json.dumps(record.fields)) == record.fields


def test_columns_of_bytes_are_left_out_and_that_is_told(path):
    image = pa.array([{"bytes": b"\x89PNG", "path": "a.png"}])
    write(path, pa.table({"text": ["a"], "image": image, "raw": [b"x"]}))
    assert read_records(path)[0].fields == {"text": "a"}
    assert describe_file(path).left_out == ("image", "raw")


def test_text_in_a_dictionary_is_text(path):
    write(path, pa.table({"label": pa.array(["a", "b", "a"]).dictionary_encode()}))
    assert [record.fields["label"] for record in read_records(path)] == ["a", "b", "a"]


def test_many_batches_and_row_groups_are_one_file(tmp_path):
    table = pa.table({"n": list(range(1000))})
    write(tmp_path / "rows.parquet", table, row_group_size=300)
    records = read_records(tmp_path / "rows.parquet")
    assert [record.fields["n"] for record in records] == list(range(1000))
    assert [record.line for record in records] == list(range(1, 1001))


def test_what_json_does_not_have_is_a_fault_in_its_row(path):
    write(path, pa.table({"x": [1.0, float("nan"), float("inf")], "t": ["a", "b", "c"]}))
    good, nan, infinite = read_stream(path)
    assert good.fields == {"x": 1.0, "t": "a"}
    assert "NaN is no JSON value" in nan.message
    assert "inf is no JSON value" in infinite.message
    write(path, pa.table({"t": ["a", "b\0", "c"]}))
    assert [isinstance(row, Fault) for row in read_stream(path)] == [False, True, False]


def test_strings_that_are_not_utf_8_are_never_read(tmp_path):
    bad = pa.array([b"good", b"caf\xe9"]).view(pa.string())
    write(tmp_path / "rows.parquet", pa.table({"t": bad}))
    good, fault = read_stream(tmp_path / "rows.parquet")
    assert (good.fields, fault.where) == ({"t": "good"}, f"{tmp_path / 'rows.parquet'}:2")
    assert fault.message == "a string is not UTF-8: byte 0xe9 at position 4"
    write(tmp_path / "rows.arrow", pa.table({"t": bad}))
    assert "UTF8" in refusal(tmp_path / "rows.arrow").message


def test_a_file_that_is_cut_short_damaged_or_of_another_kind_is_refused(path):
    write(path, pa.table({"t": ["some text"] * 1000}))
    content = path.read_bytes()
    for bad in (content[:-1], content[: len(content) // 2], content[:10], b"", b'{"t": "a"}\n' * 50):
        path.write_bytes(bad)
        assert "damaged, cut short or of another kind" in refusal(path).message


def test_two_columns_of_one_name_and_none_that_can_be_read_are_refused(path):
    write(path, pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["t", "t"]))
    assert refusal(path).message == "two columns are named 't'"
    write(path, pa.table({"raw": [b"x"]}))
    assert "no columns of text or numbers" in refusal(path).message


def test_columns_that_claim_to_expand_beyond_all_measure_are_refused(tmp_path):
    table = pa.table({"t": ["x" * (1 << 20)] * 100})
    path = write(tmp_path / "rows.parquet", table, compression="zstd", use_dictionary=False)
    assert path.stat().st_size < 1 << 19
    assert "column 't' expands to more than 200 times its size" in refusal(path).message


def test_without_pyarrow_the_extra_to_install_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "rows.parquet", pa.table({"t": ["a"]}))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DeviceError) as caught:
        list(read_stream(path))
    assert caught.value.remedy == "pip install 'mlxtune[parquet]'"


def test_an_arrow_stream_is_read_like_a_file(tmp_path):
    table, file = pa.table({"t": ["a", "b"]}), io.BytesIO()
    with ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    (tmp_path / "rows.arrow").write_bytes(file.getvalue())
    assert [record.fields for record in read_records(tmp_path / "rows.arrow")] == [{"t": "a"}, {"t": "b"}]
