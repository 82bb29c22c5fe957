"""Whatever a file holds, it gives rows, faults with places, or one error with a remedy: never anything else.

The seeds are good files of every kind, made here; hypothesis cuts, overwrites and fills them. (Half an hour of the same
by random bytes found what table_file.py knows of pyarrow: lengths of terabytes, offsets that lead anywhere.)
"""

import gzip
import io
import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import ipc, parquet

from mlxtune.data.faults import Fault
from mlxtune.data.read import Record, describe_file, read_stream
from mlxtune.errors import MlxtuneError

ROWS = [{"text": f"héllo\u2028 {number}", "list": [{"a": "b"}], "n": number} for number in range(5)]


def table(make):
    file = io.BytesIO()
    make(pa.Table.from_pylist(ROWS), file)
    return file.getvalue()


def as_arrow(rows, file):
    with ipc.new_file(file, rows.schema) as writer:
        writer.write_table(rows)


LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
SEEDS = {
    "a.jsonl": LINES,
    "a.jsonl.gz": gzip.compress(LINES),
    "a.json": json.dumps(ROWS, ensure_ascii=False).encode(),
    "a.csv": b'text,label\n"a, ""x""\ny",1\nb,2\n',
    "a.tsv": b"text\tlabel\nq\t1\n",
    "a.md": "# héllo".encode(),
    "u.jsonl": b"\xff\xfe" + LINES.decode().encode("utf-16-le"),
    "a.parquet": table(parquet.write_table),
    "a.arrow": table(as_arrow),
}
NASTY = st.sampled_from([b"\0", b'"', b"\xff", b"[", b"{", b"\n", b"\r", b"NaN", b"\\ud800", b"\x80" * 3, b"[" * 2000])
CHANGES = st.lists(st.tuples(st.floats(0, 1), NASTY | st.binary(max_size=9), st.integers(0, 9)), max_size=5)


def outcome(path):
    try:
        rows = list(read_stream(path))
        describe_file(path)
    except MlxtuneError as error:
        return [], error
    return rows, None


@pytest.mark.parametrize("name", SEEDS)
@given(changes=CHANGES, keep=st.floats(0, 1) | st.just(1.0))
@settings(max_examples=60)
def test_a_malformed_file_gives_rows_faults_or_an_error_with_a_remedy(tmp_path_factory, name, changes, keep):
    content = SEEDS[name]
    for place, bad, size in changes:
        at = int(place * len(content))
        content = content[:at] + bad + content[at + size :]
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(content[: round(keep * len(content))])
    rows, error = outcome(path)
    if error is not None:
        assert str(error.where).startswith(str(path))
        assert error.remedy
        assert "\n" not in error.message
    for row in rows:
        assert isinstance(row, Record | Fault)
        assert row.where == f"{path}:{row.line}"
        if isinstance(row, Record):
            json.dumps(row.fields, allow_nan=False).encode()
            json.dumps(row.fields, ensure_ascii=False).encode()  # no half pairs
