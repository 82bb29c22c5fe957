"""Reading JSONL: what is taken, and how every bad line is told."""

import json

import pytest
from whole_file import read_records

from mlxtune.errors import DataError


def written(tmp_path, content: bytes):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    return path


def refusal(path) -> DataError:
    with pytest.raises(DataError) as caught:
        read_records(path)
    return caught.value


def test_every_object_comes_with_its_file_and_line(tmp_path):
    path = written(tmp_path, b'{"text": "a"}\n\n  \n{"text": "b", "n": [1.5, null]}\n')
    records = read_records(path)
    assert [record.fields for record in records] == [{"text": "a"}, {"text": "b", "n": [1.5, None]}]
    assert [record.where for record in records] == [f"{path}:1", f"{path}:4"]


def test_a_byte_order_mark_carriage_returns_and_a_missing_last_newline_are_no_matter(tmp_path):
    path = written(tmp_path, b'\xef\xbb\xbf{"text": "a"}\r\n\r\n{"text": "b"}')
    assert [record.fields["text"] for record in read_records(path)] == ["a", "b"]


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_only_a_newline_ends_a_line(tmp_path, character):
    line = '{"text": "a%sb"}\n' % (character if character > "\x20" else json.dumps(character)[1:-1])
    path = written(tmp_path, (line * 2).encode())
    assert [record.fields["text"] for record in read_records(path)] == [f"a{character}b"] * 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"text": "a"', "not JSON"),
        (b"text", "not JSON"),
        (b'{"text": "a"} {"text": "b"}', "not JSON"),
        (b'{"text": "a\tb"}', "not JSON"),
        (b'["a"]', "a list where an object should be"),
        (b'"a"', "a string where an object should be"),
        (b"3", "a number where an object should be"),
        (b"null", "null where an object should be"),
        (b"true", "a boolean where an object should be"),
        (b'{"text": NaN}', "NaN is no JSON value"),
        (b'{"text": [-Infinity]}', "-Infinity is no JSON value"),
        (b'{"text": "a", "text": "b"}', "the key 'text' stands twice"),
        (b'{"a": [{"k": 1, "k": 2}]}', "the key 'k' stands twice"),
        (b'{"text": "a\\ud83d"}', "half of a surrogate pair"),
        (b'{"a": [{"\\udc00": 1}]}', "half of a surrogate pair"),
        (b'{"text": "a\\u0000"}', "NUL"),
        (b'{"text": "caf\xe9"}', "not UTF-8: byte 0xe9 at position 14"),
        (b'{"a": ' * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "more than 4,300 digits"),
    ],
)
def test_a_bad_line_is_named_with_what_is_wrong(tmp_path, line, said):
    error = refusal(written(tmp_path, b'{"text": "good"}\n' + line + b"\n"))
    assert error.where == str(tmp_path / "rows.jsonl") + ":2"
    assert said in error.message
    assert error.remedy


def test_a_whole_surrogate_pair_and_other_escapes_are_text(tmp_path):
    path = written(tmp_path, rb'{"text": "\ud83d\ude00 \u00e9"}')
    assert read_records(path)[0].fields["text"] == "\U0001f600 é"


def test_all_bad_lines_are_told_at_once_up_to_twenty(tmp_path):
    path = written(tmp_path, b'{"text": "a"}\n' + b"oops\n" * 25)
    error = refusal(path)
    lines = error.message.split("\n")
    assert lines[0] == "25 problems"
    assert [line.split(": ")[0].strip() for line in lines[1:21]] == [f"{path}:{n}" for n in range(2, 22)]
    assert lines[21:] == ["  and 5 more"]


def test_one_json_list_over_many_lines_is_recognized(tmp_path):
    error = refusal(written(tmp_path, b'[\n{"text": "a"},\n{"text": "b"}\n]\n'))
    assert error.message == "the file is one JSON list, not JSON Lines"


@pytest.mark.parametrize("content", [b"", b"\n \r\n\t\n", b"\xef\xbb\xbf"])
def test_a_file_of_blank_lines_has_no_rows(tmp_path, content):
    assert read_records(written(tmp_path, content)) == []


def test_utf_16_with_its_mark_is_decoded(tmp_path):
    (record,) = read_records(written(tmp_path, '{"text": "é"}\n'.encode("utf-16")))
    assert record.fields == {"text": "é"}


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert refusal(tmp_path / "none.jsonl").message == "there is no such file"
    assert refusal(tmp_path).message == "cannot be read: Is a directory"
