"""metrics.jsonl as one reader sees it grow, be torn, be cut back and written again."""

import json
import os

import pytest

from mlxtune.runs import tail
from mlxtune.runs.tail import Tail


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def line(step, **values):
    return json.dumps({"step": step, **values}) + "\n"


def add(path, text):
    with path.open("a") as file:
        file.write(text)


def steps(looked):
    lines, anew, _ = looked
    return [one["step"] for one in lines], anew


def test_each_look_gives_what_is_new(path):
    reader = Tail(path)
    assert steps(reader.look()) == ([], False)
    add(path, line(1) + line(2))
    assert steps(reader.look()) == ([1, 2], False)
    assert steps(reader.look()) == ([], False)
    add(path, line(3))
    assert steps(reader.look()) == ([3], False)


def test_what_was_read_is_not_read_again(path, monkeypatch):
    asked = []
    real = os.pread

    def counting(descriptor, size, offset):
        content = real(descriptor, size, offset)
        asked.append(len(content))
        return content

    monkeypatch.setattr(tail.os, "pread", counting)
    add(path, "".join(line(step) for step in range(1000)))
    reader = Tail(path)
    reader.look()
    asked.clear()
    add(path, line(1000))
    assert steps(reader.look()) == ([1000], False)
    assert sum(asked) <= tail.COMPARED_BYTES + len(line(1000))


def test_a_torn_last_line_waits_until_it_is_whole(path):
    reader = Tail(path)
    whole = line(2)
    add(path, line(1) + whole[:5])
    assert steps(reader.look()) == ([1], False)
    add(path, whole[5:])
    assert steps(reader.look()) == ([2], False)


def test_a_letter_of_several_bytes_may_be_torn_too(path):
    content = json.dumps({"step": 1, "rows": ["zürich"]}, ensure_ascii=False).encode() + b"\n"
    cut = content.index(b"\xc3") + 1
    reader = Tail(path)
    path.write_bytes(content[:cut])
    assert steps(reader.look()) == ([], False)
    path.write_bytes(content)
    assert steps(reader.look()) == ([1], False)


@pytest.mark.parametrize("nonsense", ["{half a li\n", "7\n", "[]\n", "\n", "[" * 100_000 + "\n", "\x00\x00\n"])
def test_what_is_no_line_is_passed_over(path, nonsense):
    add(path, line(1) + nonsense + line(2))
    assert steps(Tail(path).look()) == ([1, 2], False)


def test_a_file_that_was_cut_back_is_read_anew(path):
    reader = Tail(path)
    add(path, line(1) + line(2) + line(3))
    reader.look()
    os.truncate(path, len(line(1)))
    assert steps(reader.look()) == ([1], True)
    add(path, line(2))
    assert steps(reader.look()) == ([2], False)


def test_so_is_one_that_has_grown_past_that_since(path):
    """Steps come again with other times, as a resumed run writes them."""
    reader = Tail(path)
    add(path, line(1, seconds=1) + line(2, seconds=1) + line(3, seconds=1))
    reader.look()
    os.truncate(path, len(line(1, seconds=1)))
    add(path, line(2, seconds=2) + line(3, seconds=2) + line(4, seconds=2) + line(5, seconds=2))
    assert steps(reader.look()) == ([1, 2, 3, 4, 5], True)


def test_a_torn_line_that_is_cut_off_was_never_read(path):
    reader = Tail(path)
    add(path, line(1) + '{"step": 2, "lo')
    reader.look()
    os.truncate(path, len(line(1)))
    add(path, line(2))
    assert steps(reader.look()) == ([2], False)


def test_a_file_that_goes_and_comes_back_is_a_new_one(path):
    reader = Tail(path)
    add(path, line(1))
    reader.look()
    path.unlink()
    assert steps(reader.look()) == ([], True)
    assert steps(reader.look()) == ([], False)
    add(path, line(7))
    assert steps(reader.look()) == ([7], False)


def test_a_long_file_comes_in_several_looks(path, monkeypatch):
    monkeypatch.setattr(tail, "READ_AT_ONCE", 100)
    add(path, "".join(line(step) for step in range(50)))
    reader, found, is_more = Tail(path), [], True
    looks = 0
    while is_more:
        lines, _, is_more = reader.look()
        found += [one["step"] for one in lines]
        looks += 1
    assert found == list(range(50))
    assert looks > 5


def test_a_pipe_is_not_waited_at(path):
    os.mkfifo(path)
    assert steps(Tail(path).look()) == ([], False)
