"""Rows of any form become examples of one shape; every fault of every row is told."""

from pathlib import Path

import pytest

from mlxtune.data.example import Message
from mlxtune.data.faults import Fault
from mlxtune.data.forms.columns import IN_ROWS, IN_TURNS
from mlxtune.data.forms.table import TABLE
from mlxtune.data.forms.template import MADE
from mlxtune.data.forms.turns import ROLES
from mlxtune.data.normalize import PEEKED, Shape, normalize_stream
from mlxtune.data.read import Record
from mlxtune.data.source import find_source, read_examples
from mlxtune.errors import DataError, RecipeError
from mlxtune.recipe.choices import FORMS
from mlxtune.recipe.row_shape import ColumnSettings, RoleSettings, TemplateSettings

FILE = Path("rows.jsonl")


def records(*rows):
    return [Record(fields, FILE, line) for line, fields in enumerate(rows, start=1)]


def chat(*turns, **more):
    return {"messages": [{"role": role, "content": content} for role, content in turns], **more}


GOOD = chat(("user", "Hi"), ("assistant", "Hello"))


def normalize(*rows, form="auto"):
    """The examples of rows of which none is bad."""
    found = list(normalize_stream(records(*rows), Shape(form)))
    assert not [row for row in found if isinstance(row, Fault)]
    return found


def faults(*rows, form="auto"):
    """The faults of rows as (line, message)."""
    found = [row for row in normalize_stream(records(*rows), Shape(form)) if isinstance(row, Fault)]
    assert all(fault.remedy and fault.kind for fault in found)
    return [(fault.line, fault.message) for fault in found]


def refusal(*rows) -> DataError:
    with pytest.raises(DataError) as caught:
        normalize_stream(records(*rows))
    assert caught.value.remedy
    return caught.value


def test_a_chat_keeps_its_turns_in_order():
    row = chat(("system", ""), ("user", "Hi"), ("assistant", " Hello\n"), ("user", "?"), ("assistant", "!"), id=7)
    (example,) = normalize(row)
    assert (example.kind, example.where) == ("chat", "rows.jsonl:1")
    assert example.messages[:3] == (Message("system", ""), Message("user", "Hi"), Message("assistant", " Hello\n"))


def test_a_prompt_and_its_completion_are_two_turns():
    (example,) = normalize({"prompt": "2+2?", "completion": " 4", "source": "x"})
    assert example.kind == "prompt_completion"
    assert example.messages == (Message("user", "2+2?"), Message("assistant", " 4"))


def test_a_text_row_is_its_text():
    (example,) = normalize({"text": "Q: a\nA: b"})
    assert (example.kind, example.messages, example.text) == ("text", (), "Q: a\nA: b")


@pytest.mark.parametrize(
    ("rows", "form"),
    [
        ([GOOD, {**GOOD, "prompt": "the first turn again"}], "chat"),
        ([{"prompt": "a", "completion": "b"}], "prompt_completion"),
        ([{"text": "a", "topic": 1}, {"txt": "a typing error"}], "text"),
        ([{"text": "a", "label": "b"}, {"text": "a", "label": "c"}], "label"),
        ([{"question": "a", "answer": "b"}], "question_answer"),
        ([{"instruction": "a", "output": "b"}, {"instruction": "a", "input": "", "output": "b"}], "alpaca"),
        ([{"conversations": []}], "sharegpt"),
        ([{"prompt": "a", "chosen": "b", "rejected": "c"}], "preference"),
        ([{"messages": [], "chosen": "b", "rejected": "c"}], "preference"),
    ],
)
def test_the_form_is_told_by_the_keys_of_all_rows(rows, form):
    assert normalize_stream(records(*rows)).form == form


def test_rows_of_two_forms_are_refused_with_the_candidates():
    error = refusal(GOOD, {"text": "a"}, {"text": "b"})
    assert error.message == (
        "the rows fit more than one form: chat (1 row, first in line 1), text (2 rows, first in line 2)"
    )
    assert "data.format to chat or text" in str(error.remedy)


def test_rows_that_each_fit_two_forms_are_refused_unless_one_is_chosen():
    row = {"text": "a", "prompt": "b", "completion": "c"}
    assert "prompt_completion (1 row, first in line 1), text" in refusal(row).message
    assert normalize(row, form="text")[0].text == "a"


def test_rows_of_no_known_form_are_refused_with_the_keys_found():
    error = refusal({"query": "a", "response": "b"})
    assert error.message == "the rows fit no known form; keys found: query, response"
    assert "say in data.columns which key is which" in str(error.remedy)
    assert len(refusal({"k" * 1000: "a"}).message) < 100


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": "Hi"}, "'messages' is a string, not a list"),
        ({"messages": []}, "'messages' is empty"),
        ({"messages": ["Hi"]}, "messages[0]: a string where an object with role and content should be"),
        ({"messages": [{"content": "Hi"}]}, "messages[0]: the key 'role' is missing (known: system, "),
        ({"messages": [{"role": "prompter", "content": "Hi"}]}, "messages[0]: unknown role 'prompter'"),
        ({"messages": [{"role": "user"}, *GOOD["messages"]]}, "messages[0]: the key 'content' is missing"),
        (chat(("user", None), ("assistant", "a")), "messages[0]: 'content' is null, not a string"),
        (chat(("user", {"a": 1}), ("assistant", "a")), "messages[0]: 'content' is an object, not a string"),
        (chat(("user", "Hi"), ("assistant", "")), "messages[1]: 'content' is empty"),
        (chat(("user", "Hi"), ("assistant", " \n")), "messages[1]: 'content' is empty"),
        (chat(("user", ""), ("assistant", "a")), "messages[0]: 'content' is empty"),
        (chat(("user", "Hi")), "there is no assistant message"),
        (chat(("user", "Hi"), ("assistant", "a"), ("user", "b")), "the last message is the user's"),
        (
            chat(("user", "Hi"), ("system", "b"), ("assistant", "a")),
            "messages[1]: a system message can only be the first",
        ),
        ({**GOOD, "chosen": "a"}, "'chosen' means nothing in a row of this form"),
    ],
)
def test_a_bad_chat_row_is_named_with_what_is_wrong(row, said):
    found = faults(GOOD, row)
    assert {line for line, _ in found} == {2}
    assert any(said in message for _, message in found)


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
    assert faults({"prompt": "a", "completion": "b"}, row) == [(2, said)]


def test_a_bad_text_row_is_named_with_what_is_wrong():
    assert faults({"text": "a"}, {"text": "\t"}) == [(2, "'text' is empty")]
    assert faults({"text": "a"}, {}) == [(2, "the key 'text' is missing")]
    assert faults({"text": "a"}, form="chat") == [(1, "the key 'messages' is missing")]


def test_other_columns_of_a_row_are_left_alone():
    assert normalize({"text": "a", "weight": 70, "tools": ["hammer"]})[0].text == "a"


def test_keys_that_say_nothing_are_no_fault():
    row = {**GOOD, "tools": [], "functions": None}
    row["messages"] = [row["messages"][0], {**row["messages"][1], "tool_calls": None, "train": True, "weight": 1.0}]
    assert len(normalize(row)) == 1


def test_all_faults_of_all_rows_are_told_at_once():
    row = chat(("user", ""), ("assistant", ""))
    assert faults(GOOD, row, GOOD, {"id": 1}) == [
        (2, "messages[0]: 'content' is empty"),
        (2, "messages[1]: 'content' is empty"),
        (4, "the key 'messages' is missing"),
    ]


def test_lines_that_are_no_json_and_rows_that_lack_something_are_told_at_once(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"prompt": "a"}\noops\n{"prompt": "a", "completion": "b"}\n{"prompt": "a", "completion": ""}\n[]\n'
    )
    with pytest.raises(DataError) as caught:
        read_examples(find_source([(str(path), 1.0)], "train"))
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
        read_examples(find_source([(str(path), 1.0)], "train"))


def test_a_stream_hands_on_the_faults_of_the_reader_in_their_places():
    broken = Fault("rows.jsonl:2", "not JSON")
    first, last = records({"text": "a"}, {"text": " "})
    stream = normalize_stream([first, broken, last])
    example, handed_on, fault = stream
    assert (example.where, handed_on) == ("rows.jsonl:1", broken)
    assert (fault.kind, fault.where) == ("empty", "rows.jsonl:2")
    assert fault.remedy


def test_columns_that_are_to_be_kept_are_kept_as_the_row_has_them_objects_by_dots():
    rows = [
        {"prompt": "a", "completion": "b", "topic": "law", "meta": {"source": 3}, "meta.source": "its own name"},
        {"prompt": "a", "completion": "b", "topic": None, "meta": {"source": ["x"]}},
        {"prompt": "a", "completion": "b", "meta": "no object"},
    ]
    stream = normalize_stream(records(*rows), Shape(keep=("topic", "meta.source")))
    assert "not used" not in stream.why
    kept = [row.kept for row in stream]
    assert kept == [{"topic": "law", "meta.source": "its own name"}, {"topic": None, "meta.source": ["x"]}, {}]


def test_a_stream_says_which_form_it_chose_and_why():
    rows = records({"text": "a", "label": "b"}, {"text": "c", "label": "d"}, {"id": 1})
    assert normalize_stream(rows).why == (
        "label: 2 of the first 3 rows have 'text' and 'label' (data.format: text would learn less of them)"
        "; not used: id"
    )
    assert normalize_stream(rows, Shape("text")).why == "text: data.format says so; not used: id, label"
    mapped = Shape(columns={"prompt": "text", "completion": "label"})
    assert normalize_stream(rows, mapped).why == (
        "prompt_completion: the recipe names 'text' (data.columns.prompt) and 'label' (data.columns.completion)"
        "; not used: id"
    )


@pytest.mark.parametrize(
    ("row", "shape", "unused"),
    [
        ({"text": "a", "category": "b"}, Shape(), "; not used: category"),
        ({"text": "a", "note": None, "tags": [], "more": ""}, Shape(), ""),
        ({"text": "a", "weight": 1.0, "tools": ["t"]}, Shape(), "; not used: tools, weight"),
        ({"messages": [], "functions": [{"name": "f"}], "system": "s"}, Shape(), ""),
        ({"text": "a", "body": {"words": "b"}}, Shape(columns={"text": "body.words"}), "; not used: text"),
        ({"text": "a", "city": "b"}, Shape(template={"text": "in {{ city }}"}), "; not used: text"),
        ({"text": "a", "city": "b"}, Shape(template={"text": '{{ text }}, {{ row["city"] }}'}), ""),
        ({"text": "a", "k" * 1000: "b"}, Shape(), f"; not used: {'k' * 40}…"),
        ({"text": "a"} | {f"k{n:02}": n for n in range(1, 50)}, Shape(), ", k19, k20, and 29 more"),
    ],
)
def test_columns_that_the_form_does_not_use_are_named(row, shape, unused):
    why = normalize_stream(records(row), shape).why
    assert why.endswith(unused)
    assert ("; not used: " in why) == bool(unused)


def test_rows_of_which_only_some_have_a_label_are_refused_with_the_candidates():
    error = refusal({"text": "a", "label": "b"}, {"text": "a"})
    assert "text (2 rows, first in line 1), label (1 row, first in line 1)" in error.message


def test_a_stream_looks_at_the_first_rows_alone_and_a_later_row_of_another_form_is_a_fault():
    def rows():
        for line in range(1, 3 * PEEKED):
            asked.append(line)
            yield Record({"text": "a"} if line != 2 * PEEKED else {"prompt": "a", "completion": "b"}, FILE, line)

    asked = []
    stream = normalize_stream(rows())
    assert (stream.form, len(asked)) == ("text", PEEKED)
    faults = [row for row in stream if isinstance(row, Fault)]
    assert [(fault.where, fault.kind) for fault in faults] == [(f"rows.jsonl:{2 * PEEKED}", "missing key")]


def test_a_stream_whose_first_rows_cannot_be_read_tells_the_form_by_the_first_that_can():
    broken = [Fault(f"rows.jsonl:{line}", "not JSON") for line in range(1, 2 * PEEKED + 5)]
    stream = normalize_stream([*broken, Record({"text": "a"}, FILE, 9999)])
    assert (stream.form, stream.why) == (None, "")
    rows = list(stream)
    assert rows[:-1] == broken
    assert (rows[-1].text, stream.form) == ("a", "text")
    assert list(normalize_stream([])) == []


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (Shape("chat", columns={"label": "x"}), "rows of the form chat have no column label"),
        (Shape(columns={"label": "x", "messages": "y"}), "no form of rows has all of the columns"),
        (Shape(columns={"promt": "x"}), "data.columns.promt is no column"),
        (Shape(columns={"prompt": []}), "data.columns.prompt is no column's name"),
        (Shape(columns={"roles": {"user": "A", "assistant": ["B", "A"]}}), "gives 'A' two roles"),
        (Shape(columns={"roles": {"robot": "A"}}), "data.columns.roles.robot is no role"),
        (
            Shape(columns={"prompt": "x"}, template={"prompt": "y"}),
            "both data.columns and data.template say what prompt",
        ),
        (
            Shape(columns={"completion": "prompt"}, template={"prompt": "y"}),
            "reads the field 'prompt', and data.template",
        ),
    ],
)
def test_a_shape_that_cannot_be_is_refused(shape, said):
    with pytest.raises(RecipeError) as caught:
        normalize_stream(records(GOOD), shape)
    assert said in caught.value.message
    assert caught.value.remedy


def test_every_form_of_a_recipe_is_read_and_every_column_has_a_key():
    assert tuple(TABLE) == FORMS
    known = {name for row_form in TABLE.values() for name in row_form.names}
    assert {*IN_ROWS, *IN_TURNS} <= known
    assert {*IN_ROWS, *IN_TURNS, "roles", "labels"} == set(ColumnSettings.model_fields)
    assert set(MADE) == set(TemplateSettings.model_fields)
    assert set(RoleSettings.model_fields) == set(ROLES.values())
