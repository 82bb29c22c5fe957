"""A JSON file: a list read object by object, or one object with such a list; what is not, is told with its place."""

import json
import tracemalloc

import pytest
from whole_file import read_records

from mlxtune.data.faults import Fault
from mlxtune.data.read import read_stream
from mlxtune.data.reading import json_file
from mlxtune.errors import DataError


def told(tmp_path, content):
    """Of each row: what it says, or what is wrong with it."""
    path = tmp_path / "rows.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [row.message if isinstance(row, Fault) else row.fields for row in read_stream(path)]


def refusal(tmp_path, content) -> DataError:
    with pytest.raises(DataError) as caught:
        told(tmp_path, content)
    return caught.value


def test_a_list_larger_than_the_window_is_read_whole_in_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(json_file, "WINDOW", 1 << 14)
    rows = [{"n": number, "text": "é" * (number % 100)} for number in range(2000)]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    assert path.stat().st_size > 3 * json_file.WINDOW
    tracemalloc.start()
    assert all(row.fields == wanted for row, wanted in zip(read_stream(path), rows, strict=True))
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_row_larger_than_the_window_is_read(tmp_path):
    rows = [{"text": "x" * (3 * json_file.WINDOW)}, {"text": "y"}]
    assert told(tmp_path, json.dumps(rows)) == rows


def test_bad_rows_are_faults_in_their_places_and_the_others_are_read(tmp_path):
    content = '[{"a": 1},\n[1], {"a": NaN},\n {"b": 1, "b": 2}, "x", {"c": "\\u0000"}, {"c": "\\ud800"}, {"d": 4}]'
    first, *bad, last = told(tmp_path, content)
    assert (first, last) == ({"a": 1}, {"d": 4})
    for message, said in zip(
        bad,
        ["a list where", "NaN is no JSON value (line 2)", "'b' stands twice", "a string where", "NUL", "half of a"],
        strict=True,
    ):
        assert said in message
    rows = list(read_stream(tmp_path / "rows.json"))
    assert [row.line for row in rows] == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('[{"a": 1}', "the list never ends (line 1)"),
        ('[{"a": 1},', "not JSON"),
        ('[{"a": 1}\n{"a": 2}]', "something other than a comma stands after it (line 2)"),
        ('[{"a": 1}] x', "something stands after the list"),
        ('[{"a": 1}, {"a": ]', "not JSON"),
        ('[{"a": 1}, ' + '{"a": ' * 100_000, "nested too deeply"),
        ('[{"a": 1}, {"a": ' + "9" * 5000 + "}]", "limit"),
    ],
)
def test_where_the_json_ends_to_be_json_is_the_last_fault(tmp_path, content, said):
    first, last = told(tmp_path, content)
    assert first == {"a": 1}
    assert said in last


def test_of_one_object_the_only_list_of_objects_has_the_rows(tmp_path):
    assert told(tmp_path, '{"version": 1, "names": ["x"], "rows": [{"a": 1}, 3]}') == [
        {"a": 1},
        "a number where an object should be (in 'rows')",
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"train": [{"a": 1}], "test": [{"a": 1}]}', "several lists of objects: 'train', 'test'"),
        ('{"text": "a"}', "holds no list of objects"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "its rows, or the turns of a single row"),
        ("3", "no JSON that has rows"),
        ("<html>", "no JSON that has rows"),
    ],
)
def test_what_could_be_read_in_several_ways_or_in_none_is_refused(tmp_path, content, said):
    error = refusal(tmp_path, content)
    assert said in error.message
    assert error.remedy


@pytest.mark.parametrize("content", ["", " \n", "[]", " [ ] "])
def test_a_file_without_rows_has_none(tmp_path, content):
    assert told(tmp_path, content) == []


def test_json_lines_under_the_name_json_are_read_as_such(tmp_path):
    assert told(tmp_path, '{"a": 1}\n{"a": 2}\n') == [{"a": 1}, {"a": 2}]
    (tmp_path / "rows.json").write_text('{"a": 1}\noops\n{"a": 3}\n')
    good, bad, other = read_stream(tmp_path / "rows.json")
    assert (good.line, bad.line, other.line) == (1, 2, 3)
    assert "not JSON" in bad.message


def test_an_object_that_is_too_large_is_refused_without_being_held(tmp_path, monkeypatch):
    monkeypatch.setattr(json_file, "LONGEST", 2 * json_file.WINDOW)
    assert "one object longer than" in refusal(tmp_path, '{"a": "' + "x" * (5 * json_file.WINDOW) + '"}').message
    good, bad = told(tmp_path, '[{"a": 1}, {"a": "' + "x" * (5 * json_file.WINDOW) + '"}]')
    assert good == {"a": 1}
    assert "longer than" in bad


def test_a_list_of_rows_read_as_json_lines_is_told_to_be_one(tmp_path):
    (tmp_path / "rows.jsonl").write_text('[{"a": 1}]')
    with pytest.raises(DataError, match="one JSON list") as caught:
        read_records(tmp_path / "rows.jsonl")
    assert ".json" in str(caught.value.remedy)
