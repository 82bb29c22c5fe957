"""Validation: every problem of every split, what it is called, how grave it is, and what to do."""

import json
from dataclasses import replace

import pytest
from tiny import tiny_tokenizer

from mlxtune.data import validate as module
from mlxtune.data.example import Example, Message
from mlxtune.data.faults import Fault
from mlxtune.data.render import Renderer
from mlxtune.data.source import find_source, stream_of
from mlxtune.data.store.census import Stream, Weighted
from mlxtune.data.validate import ReadAs, Rendering
from mlxtune.errors import DataError

LONG = "my card was swallowed by the machine outside the station this morning and nobody answers the telephone"


@pytest.fixture(scope="module")
def renderer(tmp_path_factory):
    return Renderer(tiny_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def validate(splits, *arguments, **settings):
    """`module.validate` of splits that are lists of rows, a file each."""
    streams = {split: Stream((Weighted(lambda rows=rows: rows, f"{split}.jsonl"),)) for split, rows in splits.items()}
    return module.validate(streams, *arguments, **settings)


def rendering(renderer, **settings):
    return Rendering(renderer, **{"train_on": "completions", "max_seq_length": 200, "overflow": "error"} | settings)


def text(content, where):
    return Example("text", where, text=content)


def asked(question, answer, where):
    return Example("prompt_completion", where, messages=(Message("user", question), Message("assistant", answer)))


def told(found):
    """(severity, split, kind, file:line, other) of all that was kept."""
    return {
        (group.severity, group.split, group.kind, f"{one.file}:{one.line}", one.other)
        for group in found.groups
        for one in group.findings
    }


def test_good_rows_have_no_problems(renderer):
    splits = {"train": [text("one", "t:1"), text("two", "t:2")], "test": [text("three", "e:1")]}
    found = validate(splits, rendering(renderer))
    assert found.groups == ()
    assert found.rows == {"train": 2, "test": 1}


def test_faults_are_errors_with_their_place_kind_and_remedy():
    rows = [Fault("f:1", "not JSON", kind="json", remedy="mend it"), text("a", "f:2"), Fault("f:3", "no key 'text'")]
    found = validate({"train": rows})
    assert told(found) == {("error", "train", "json", "f:1", None), ("error", "train", "row", "f:3", None)}
    assert found.groups[0].findings[0].remedy == "mend it"
    assert found.groups[1].findings[0].remedy
    assert found.rows == {"train": 3}


def test_what_ends_the_reading_of_a_file_is_its_problem_and_the_other_splits_are_still_read():
    def broken():
        yield text("a", "f:1")
        raise DataError("cannot be read", where="f", remedy="name another")

    found = validate({"train": broken(), "valid": [Fault("v:2", "bad")], "test": [text("a", "e:1")]})
    assert told(found) == {
        ("error", "train", "file", "f:0", None),
        ("error", "valid", "row", "v:2", None),
        ("error", "test", "leak", "e:1", "f:1"),
    }


def test_every_file_of_a_split_is_read_though_one_cannot_be():
    def gone():
        raise DataError("there is no such file", where="b.jsonl")

    files = (
        Weighted(lambda: [text("a", "a:1")], "a"),
        Weighted(gone, "b"),
        Weighted(lambda: [Fault("c:2", "bad")], "c"),
    )
    found = module.validate({"train": Stream(files)})
    assert {(group.kind, one.file, one.line) for group in found.groups for one in group.findings} == {
        ("file", "b.jsonl", 0),
        ("row", "c", 2),
    }


def test_a_split_without_rows_is_an_error():
    assert told(validate({"train": [text("a", "f:1")], "valid": []})) == {
        ("error", "valid", "empty", "valid.jsonl:0", None)
    }


def test_a_row_that_the_template_refuses_is_an_error(renderer):
    bad = asked("What ends you?", "It is <|im_end|> of course", "f:1")
    found = validate({"train": [bad, asked("Who?", "Me", "f:2")]}, rendering(renderer))
    assert {(severity, where) for severity, _, _, where, _ in told(found)} == {("error", "f:1")}


@pytest.mark.parametrize(
    ("overflow", "kind", "severity"),
    [
        ("error", "too_long", "error"),
        ("drop", "dropped", "warning"),
        ("truncate_right", "dropped", "warning"),
        ("truncate_left", "cut", "warning"),
        ("split", "cut", "warning"),
    ],
)
def test_a_row_that_is_too_long_is_an_error_only_where_training_refuses_it(renderer, overflow, kind, severity):
    rows = [asked("x" * 300, "yes", "f:1"), asked("short", "yes", "f:2")]
    found = validate({"train": rows}, rendering(renderer, overflow=overflow))
    assert told(found) == {(severity, "train", kind, "f:1", None)}
    assert "data.max_seq_length is 200" in found.groups[0].findings[0].message


def test_without_a_renderer_lengths_are_not_looked_at():
    assert validate({"train": [text("x" * 9999, "f:1")]}).groups == ()


@pytest.mark.parametrize(
    ("copy", "said"),
    [
        (LONG, "says what t:1 (train) says"),
        (f" {LONG.upper()}", "asks what t:1 (train) asks"),
        (f"{LONG} today", "is nearly t:1 (train): 94% of their word trigrams are the same"),
    ],
)
@pytest.mark.parametrize("split", ["valid", "test"])
def test_a_held_out_row_that_is_in_train_is_an_error(split, copy, said):
    found = validate({"train": [text(LONG, "t:1")], split: [text(copy, "e:1")]})
    assert told(found) == {("error", split, "leak", "e:1", "t:1")}
    assert found.groups[0].findings[0].message == said  # 15 of 16 trigrams


def test_every_copy_of_a_held_out_row_leaks():
    found = validate({"train": [text(LONG, "t:1")], "test": [text(f"{LONG} today", f"e:{n}") for n in (1, 2, 3)]})
    leaks = {where for _, _, kind, where, _ in told(found) if kind == "leak"}
    assert leaks == {"e:1", "e:2", "e:3"}


def test_repeats_in_a_split_and_of_valid_in_test_are_warnings():
    splits = {
        "train": [text("one two three four", "t:1"), text("one two three four", "t:2")],
        "valid": [text(LONG, "v:1"), text(f"{LONG} today", "v:2")],
        "test": [text(LONG, "e:1")],
    }
    found = validate(splits)
    assert told(found) == {
        ("warning", "train", "duplicate", "t:2", "t:1"),
        ("warning", "valid", "near_duplicate", "v:2", "v:1"),
        ("warning", "test", "overlap", "e:1", "v:1"),
    }
    assert (found.count("error"), found.count("warning")) == (0, 3)


def test_one_question_with_two_labels_is_a_warning_and_with_two_long_answers_is_not():
    long = "a long answer that nobody would take for the name of a class"
    rows = [
        asked(LONG, "card lost", "t:1"),
        asked(LONG.upper(), "card stolen", "t:2"),
        asked("who is there", long, "t:3"),
        asked("who is there", f"{long} or two", "t:4"),
        asked("and what of this one", "Yes", "t:5"),
        asked("and what of this one?", "no", "t:6"),
    ]
    assert told(validate({"train": rows})) == {
        ("warning", "train", "conflict", "t:2", "t:1"),
        ("warning", "train", "near_duplicate", "t:4", "t:3"),
    }


def test_all_problems_are_counted_though_only_the_first_are_kept(monkeypatch):
    monkeypatch.setattr(module, "KEPT", 2)
    found = validate({"train": [Fault(f"f:{n}", "bad") for n in range(1, 8)]})
    assert found.groups[0].count == found.count("error") == 7
    assert [one.line for one in found.groups[0].findings] == [1, 2]


def test_both_answers_of_a_preference_are_looked_at(renderer):
    def pair(better, worse, where):
        answers = [(Message("assistant", answer),) for answer in (better, worse)]
        return Example("preference", where, (Message("user", "q"), *answers[0]), rejected=answers[1])

    rows = [pair("a", "b" * 300, "t:1"), pair("a" * 300, "b", "t:2"), pair("c", "d", "t:3"), pair(" c", " d", "t:4")]
    found = validate({"train": rows}, rendering(renderer))
    errors = {place for place in told(found) if place[0] == "error"}
    assert errors == {("error", "train", "too_long", f"t:{line}", None) for line in (1, 2)}


def test_what_is_wrong_with_both_answers_of_a_preference_is_said_once(renderer):
    turns = (Message("user", "q"), Message("assistant", "a"), Message("user", "q"))
    row = Example("preference", "t:1", (*turns, Message("assistant", "b")), rejected=(Message("assistant", "c"),))
    bad = replace(row, messages=(turns[0], replace(turns[1], content="a<|im_end|>b"), *row.messages[2:]))
    assert [group.count for group in validate({"train": [bad]}, rendering(renderer)).groups] == [1]


def test_it_says_how_the_rows_of_each_file_were_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a", "category": "b"}\n')
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    stream = stream_of(find_source([(str(path), 1.0), (str(empty), 1.0)], "train"))
    found = module.validate({"train": stream})
    assert found.forms == (ReadAs("train", str(path), "text", "text: the row has 'text'; not used: category"),)


def test_errors_come_before_warnings_and_progress_ends():
    steps = []
    rows = [text("a", "t:1"), text("a", "t:2"), Fault("t:3", "bad")]
    found = validate({"train": rows}, progress=lambda *step: steps.append(step))
    assert [group.severity for group in found.groups] == ["error", "warning"]
    last = {what: (done, total) for what, done, total in steps}
    assert last["check train: rows"] == (3, 3)
    assert last["compare: passes"] == (34, 34)


def test_the_leakage_of_banking77_is_found(shared_data):
    def rows(split):
        path = shared_data / "banking77" / f"{split}.jsonl"
        for line, raw in enumerate(path.read_bytes().splitlines(), start=1):
            fields = json.loads(raw)
            yield asked(fields["text"], fields["category"], f"{split}:{line}")

    found = validate({split: rows(split) for split in ("train", "valid", "test")})
    assert found.rows == {"train": 9224, "valid": 768, "test": 3079}
    leaks = {group.split: group.count for group in found.groups if group.kind == "leak"}
    assert leaks["test"] == 81  # as the data's README counts them
    assert leaks["valid"] == 16  # by brute force
