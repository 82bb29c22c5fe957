"""Whatever a row holds, it comes to an example that keeps the promises of examples, or to faults; never to a crash."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxtune.data.example import Example, content_hash
from mlxtune.data.faults import Fault
from mlxtune.data.forms.columns import IN_ROWS, IN_TURNS
from mlxtune.data.forms.table import TABLE
from mlxtune.data.forms.turns import ROLES
from mlxtune.data.normalize import Shape, normalize_stream
from mlxtune.data.read import Record
from mlxtune.errors import MlxtuneError
from mlxtune.recipe.choices import FORMS

WORDS = st.sampled_from(["Hi", "Hello", "", " \n", "a" * 50, "[]", '{"name": "f", "arguments": {}}', "null", "é\u2028"])
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
CALLS = st.lists(
    st.fixed_dictionaries(
        {"name": WORDS | ANY}, optional={"id": WORDS | ANY, "arguments": WORDS | ANY, "type": st.just("function")}
    ),
    max_size=2,
)
PARTS = st.lists(st.fixed_dictionaries({"type": st.sampled_from(["text", "image"])}, optional={"text": WORDS}))
ROLE = st.sampled_from([*ROLES, "human", "gpt", "function_call"])
TURN = st.fixed_dictionaries(
    {},
    optional={
        "role": ROLE,
        "content": WORDS | PARTS | ANY,
        "from": ROLE | ANY,
        "value": WORDS | ANY,
        "tool_calls": CALLS | ANY,
        "tool_call_id": WORDS | ANY,
        "name": WORDS | ANY,
        "thinking": WORDS | ANY,
        "weight": st.floats(-1, 3) | ANY,
        "train": st.booleans() | ANY,
    },
)
USUAL = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.just("Hi")})
TURNS = st.lists(TURN | USUAL | ANY, max_size=5) | st.lists(USUAL, max_size=4)
KEYS = [*IN_ROWS, "conversations", "instruction", "input", "output", "question", "answer", "context", "history"]
ROWS = st.dictionaries(st.sampled_from(KEYS), WORDS | TURNS | ANY, max_size=6)
VALUES = st.sampled_from(["Hi", "Hello", "Well?"]) | WORDS | TURNS | st.lists(USUAL, min_size=1, max_size=2) | ANY


def rows_of(form):
    """Rows with the columns of ``form``, most of them of a kind that it reads, and some other columns."""
    needs = TABLE[form].needs
    others = [key for key in KEYS if key not in needs]
    usual = st.fixed_dictionaries(dict.fromkeys(needs, VALUES))
    return st.tuples(usual, st.just({}) | st.dictionaries(st.sampled_from(others), VALUES, max_size=2)).map(
        lambda parts: parts[0] | parts[1]
    )


COLUMNS = st.none() | st.dictionaries(st.sampled_from([*IN_ROWS, *IN_TURNS]), st.sampled_from([*KEYS, "a.b"]))


def keep_promises(example: Example) -> None:
    answers = [message for message in example.messages if message.role == "assistant"]
    if example.kind == "text":
        assert example.text.strip()
        assert not example.messages
    else:
        assert example.messages[-1].role == "assistant"
        assert any(message.role != "assistant" for message in example.messages)
        assert all(message.role != "system" for message in example.messages[1:])
        assert any(answer.weight > 0 for answer in answers)
        assert all(
            message.content.strip() or message.tool_calls or message.role == "system" for message in example.messages
        )
    if example.kind == "prompt_completion":
        assert [message.role for message in example.messages] == ["user", "assistant"]
    assert bool(example.rejected) == (example.kind == "preference")
    if example.rejected:
        assert [message.role for message in example.rejected] == ["assistant"]
        assert example.rejected[0] != example.messages[-1]
    assert all(0 <= message.weight < float("inf") for message in example.messages)
    assert content_hash(example)


def check(rows, shape) -> None:
    records = [Record(row, Path("rows.jsonl"), line) for line, row in enumerate(rows, start=1)]
    found = list(normalize_stream(records, shape))
    assert {row.where for row in found} == {record.where for record in records}  # no row is passed over
    for row in found:
        if isinstance(row, Fault):
            assert row.message
            assert row.kind
            assert row.remedy
        else:
            keep_promises(row)


@pytest.mark.parametrize("form", FORMS)
@given(data=st.data())
@settings(max_examples=60)
def test_any_row_of_a_chosen_form_is_an_example_or_a_fault(form, data):
    check(data.draw(st.lists(rows_of(form) | ROWS, max_size=3)), Shape(form))


@given(rows=st.lists(ROWS | st.sampled_from(FORMS).flatmap(rows_of), max_size=4), columns=COLUMNS)
@settings(max_examples=150)
def test_any_rows_are_told_apart_or_refused_with_a_remedy(rows, columns):
    try:
        check(rows, Shape(columns=columns))
    except MlxtuneError as error:
        assert error.remedy  # noqa: PT017 - either is right, and which it is depends on the rows


@given(turns=TURNS, tools=CALLS | ANY)
@settings(max_examples=200)
def test_any_chat_is_an_example_or_a_fault(turns, tools):
    row = json.loads(json.dumps({"messages": turns, "tools": tools}))
    check([row], Shape("chat"))
