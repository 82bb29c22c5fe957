"""Rows of three forms become examples of one shape; every fault of every row is told."""

from pathlib import Path

import pytest

from mlxtune.data.normalize import Message, detect_format, normalize, read_examples
from mlxtune.data.read import Record
from mlxtune.errors import DataError

FILE = Path("rows.jsonl")


def records(*rows):
    return [Record(fields, FILE, line) for line, fields in enumerate(rows, start=1)]


def chat(*turns, **more):
    return {"messages": [{"role": role, "content": content} for role, content in turns], **more}


GOOD = chat(("user", "Hi"), ("assistant", "Hello"))


def refusal(*rows, form="auto") -> DataError:
    with pytest.raises(DataError) as caught:
        normalize(records(*rows), form)
    assert caught.value.remedy
    return caught.value


def test_a_chat_keeps_its_turns_in_order():
    row = chat(("system", ""), ("user", "Hi"), ("assistant", " Hello\n"), ("user", "?"), ("assistant", "!"), id=7)
    (example,) = normalize(records(row))
    assert (example.kind, example.where) == ("chat", "rows.jsonl:1")
    assert example.messages[:3] == (Message("system", ""), Message("user", "Hi"), Message("assistant", " Hello\n"))


def test_a_prompt_and_its_completion_are_two_turns():
    (example,) = normalize(records({"prompt": "2+2?", "completion": " 4", "source": "x"}))
    assert example.kind == "prompt_completion"
    assert example.messages == (Message("user", "2+2?"), Message("assistant", " 4"))


def test_a_text_row_is_its_text():
    (example,) = normalize(records({"text": "Q: a\nA: b"}))
    assert (example.kind, example.messages, example.text) == ("text", (), "Q: a\nA: b")


@pytest.mark.parametrize(
    ("rows", "form"),
    [
        ([GOOD, {**GOOD, "prompt": "the first turn again"}], "chat"),
        ([{"prompt": "a", "completion": "b"}], "prompt_completion"),
        ([{"text": "a", "label": 1}, {"txt": "a typing error"}], "text"),
    ],
)
def test_the_form_is_told_by_the_keys_of_all_rows(rows, form):
    assert detect_format(records(*rows)) == form


def test_rows_of_two_forms_are_refused_with_the_candidates():
    error = refusal(GOOD, {"text": "a"}, {"text": "b"})
    assert error.message == (
        "the rows fit more than one form: chat (1 rows, first in line 1), text (2 rows, first in line 2)"
    )
    assert "data.format to chat or text" in str(error.remedy)


def test_rows_that_each_fit_two_forms_are_refused_unless_one_is_chosen():
    row = {"text": "a", "prompt": "b", "completion": "c"}
    assert "prompt_completion (1 rows, first in line 1), text" in refusal(row).message
    assert normalize(records(row), "text")[0].text == "a"


def test_rows_of_no_known_form_are_refused_with_the_keys_found():
    error = refusal({"question": "a", "answer": "b"})
    assert error.message == "the rows fit no known form; keys found: answer, question"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": "Hi"}, "'messages' is a string, not a list"),
        ({"messages": []}, "'messages' is empty"),
        ({"messages": ["Hi"]}, "messages[0]: a string where an object with role and content should be"),
        ({"messages": [{"content": "Hi"}]}, "messages[0]: the key 'role' is missing (known: system, user, assistant)"),
        ({"messages": [{"role": "tool", "content": "Hi"}]}, "messages[0]: unknown role 'tool'"),
        ({"messages": [{"role": "user"}, *GOOD["messages"]]}, "messages[0]: the key 'content' is missing"),
        (chat(("user", None), ("assistant", "a")), "messages[0]: 'content' is null, not a string"),
        (chat(("user", [{"type": "text"}]), ("assistant", "a")), "messages[0]: 'content' is a list, not a string"),
        (chat(("user", "Hi"), ("assistant", "")), "messages[1]: 'content' is empty"),
        (chat(("user", "Hi"), ("assistant", " \n")), "messages[1]: 'content' is empty"),
        (chat(("user", ""), ("assistant", "a")), "messages[0]: 'content' is empty"),
        (chat(("user", "Hi")), "there is no assistant message"),
        (chat(("user", "Hi"), ("assistant", "a"), ("user", "b")), "the last message is the user's"),
        (
            chat(("user", "Hi"), ("system", "b"), ("assistant", "a")),
            "messages[1]: a system message can only be the first",
        ),
        ({**GOOD, "tools": [{"name": "f"}]}, "'tools' is not supported yet"),
        ({"messages": [{"role": "user", "content": "a", "tool_calls": [1]}, GOOD["messages"][1]]}, "'tool_calls'"),
        ({"messages": [{"role": "user", "content": "a"}, {**GOOD["messages"][1], "train": False}]}, "'train'"),
        ({"messages": [{"role": "user", "content": "a"}, {**GOOD["messages"][1], "weight": 0}]}, "'weight'"),
    ],
)
def test_a_bad_chat_row_is_named_with_what_is_wrong(row, said):
    error = refusal(GOOD, row)
    assert error.where == "rows.jsonl:2"
    assert said in error.message


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "a"}, "the key 'completion' is missing"),
        ({"completion": "a"}, "the key 'prompt' is missing"),
        ({"prompt": "a", "completion": ""}, "'completion' is empty"),
        ({"prompt": " ", "completion": "b"}, "'prompt' is empty"),
        ({"prompt": 3, "completion": "b"}, "'prompt' is a number, not a string"),
        ({"prompt": "a", "completion": {}}, "'completion' is an object, not a string"),
    ],
)
def test_a_bad_prompt_completion_row_is_named_with_what_is_wrong(row, said):
    error = refusal({"prompt": "a", "completion": "b"}, row)
    assert (error.where, error.message) == ("rows.jsonl:2", said)


def test_a_bad_text_row_is_named_with_what_is_wrong():
    assert refusal({"text": "a"}, {"text": "\t"}).message == "'text' is empty"
    assert refusal({"text": "a"}, {}).message == "the key 'text' is missing"
    assert refusal({"text": "a"}, form="chat").message == "the key 'messages' is missing"


def test_other_columns_of_a_row_are_left_alone():
    assert normalize(records({"text": "a", "weight": 70, "tools": ["hammer"]}))[0].text == "a"


def test_keys_that_say_nothing_are_no_fault():
    row = {**GOOD, "tools": [], "functions": None}
    row["messages"] = [row["messages"][0], {**row["messages"][1], "tool_calls": None, "train": True, "weight": 1.0}]
    assert len(normalize(records(row))) == 1


def test_all_faults_of_all_rows_are_told_at_once():
    row = chat(("user", ""), ("assistant", ""))
    message = refusal(GOOD, row, GOOD, {"id": 1}).message
    assert message.split("\n") == [
        "3 problems",
        "  rows.jsonl:2: messages[0]: 'content' is empty",
        "  rows.jsonl:2: messages[1]: 'content' is empty",
        "  rows.jsonl:4: the key 'messages' is missing",
    ]


def test_lines_that_are_no_json_and_rows_that_lack_something_are_told_at_once(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"prompt": "a"}\noops\n{"prompt": "a", "completion": "b"}\n{"prompt": "a", "completion": ""}\n[]\n'
    )
    with pytest.raises(DataError) as caught:
        read_examples(path)
    assert caught.value.message.split("\n") == [
        "4 problems",
        f"  {path}:1: the key 'completion' is missing",
        f"  {path}:2: not JSON: Expecting value at column 1",
        f"  {path}:4: 'completion' is empty",
        f"  {path}:5: a list where an object should be",
    ]


def test_a_file_of_bad_lines_alone_is_told_as_such(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("oops\n")
    with pytest.raises(DataError, match="not JSON"):
        read_examples(path)
