"""One set of rows in every kind of file, packed and not: what is read is the same, and how it was read can be told."""

import csv
import gzip
import io
import json
import sys

import pytest
from whole_file import read_records

from mlxtune.data.read import describe_file, read_stream
from mlxtune.errors import DataError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ROWS = [
    {"text": "a, b; c", "label": "1"},
    {"text": 'two "quoted"\nlines\u2028 and é', "label": "two"},
    {"text": " 日本語\t😀 ", "label": ""},
]


def as_table(kind):
    import pyarrow as pa
    from pyarrow import ipc, parquet

    table, file = pa.Table.from_pylist(ROWS), io.BytesIO()
    if kind == "parquet":
        parquet.write_table(table, file)
    else:
        with (ipc.new_file if kind == "feather" else ipc.new_stream)(file, table.schema) as writer:
            writer.write_table(table)
    return file.getvalue()


def as_delimited(delimiter, ending="\n"):
    file = io.StringIO()
    writer = csv.DictWriter(file, ["text", "label"], delimiter=delimiter, lineterminator=ending)
    writer.writeheader()
    writer.writerows(ROWS)
    return file.getvalue().encode()


WRITTEN = {
    "rows.jsonl": lambda: "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode(),
    "rows.ndjson": lambda: "".join(json.dumps(row) + "\r\n" for row in ROWS).encode(),
    "rows.json": lambda: json.dumps(ROWS, indent=2).encode(),
    "one_line.json": lambda: json.dumps(ROWS).encode(),
    "lines.json": lambda: "\n".join(json.dumps(row) for row in ROWS).encode(),
    "object.json": lambda: json.dumps({"version": "1.1", "tags": ["a"], "data": ROWS}).encode(),
    "rows.csv": lambda: as_delimited(","),
    "semicolons.csv": lambda: as_delimited(";"),
    "windows.csv": lambda: as_delimited(",", "\r\n"),
    "rows.TSV": lambda: as_delimited("\t"),
    "rows.parquet": lambda: as_table("parquet"),
    "rows.arrow": lambda: as_table("arrow"),
    "rows.feather": lambda: as_table("feather"),
}
PACKED = {"": lambda content: content, ".gz": gzip.compress, ".zst": zstd.compress}


@pytest.mark.parametrize("ending", PACKED)
@pytest.mark.parametrize("name", WRITTEN)
def test_the_same_rows_come_from_every_kind_of_file(tmp_path, name, ending):
    path = tmp_path / (name + ending)
    path.write_bytes(PACKED[ending](WRITTEN[name]()))
    assert [record.fields for record in read_records(path)] == ROWS
    assert [record.path for record in read_records(path)] == [path] * 3


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("rows.jsonl", [1, 2, 3]),
        ("rows.json", [1, 2, 3]),  # rows, since all may stand on one line
        ("object.json", [1, 2, 3]),
        ("rows.csv", [2, 3, 5]),  # the second goes over two lines
        ("rows.parquet", [1, 2, 3]),
    ],
)
def test_a_place_is_a_line_of_text_and_elsewhere_the_number_of_the_row(tmp_path, name, lines):
    (tmp_path / name).write_bytes(WRITTEN[name]())
    assert [record.line for record in read_records(tmp_path / name)] == lines


@pytest.mark.parametrize("ending", PACKED)
@pytest.mark.parametrize("name", ["a.txt", "a.md"])
def test_a_text_is_one_row_without_carriage_returns_at_line_ends(tmp_path, name, ending):
    path = tmp_path / (name + ending)
    path.write_bytes(PACKED[ending](b"\xef\xbb\xbf# One\r\n\r\ntwo \xe2\x80\xa8 three\r\n"))
    (record,) = read_records(path)
    assert (record.fields, record.line) == ({"text": "# One\n\ntwo \u2028 three\n"}, 1)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("rows.jsonl.gz", "jsonl, gzip, UTF-8"),
        ("rows.json", "json, UTF-8"),
        ("semicolons.csv", "csv, UTF-8, fields end with ;"),
        ("rows.TSV", "tsv, UTF-8, fields end with a tab"),
        ("rows.parquet.zst", "parquet, zstd"),
    ],
)
def test_how_a_file_is_read_can_be_told(tmp_path, name, said):
    plain, dot, ending = name.rpartition(".")
    ending = dot + ending if plain in WRITTEN else ""
    (tmp_path / name).write_bytes(PACKED[ending](WRITTEN[plain if ending else name]()))
    assert str(describe_file(tmp_path / name)) == said


@pytest.mark.parametrize("name", ["rows.xlsx", "rows.zip", "rows.jsonl.xz", "rows.pdf"])
def test_a_kind_that_is_not_read_is_refused_by_its_ending(tmp_path, name):
    (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(DataError, match="no rows that can be read") as caught:
        list(read_stream(tmp_path / name))
    assert ".parquet" in str(caught.value.remedy)


def test_a_name_without_an_ending_is_json_lines(tmp_path):
    (tmp_path / "rows").write_bytes(b'{"text": "a"}\n')
    assert read_records(tmp_path / "rows")[0].fields == {"text": "a"}
