"""What rows of each form come to, and what of them is refused; policies are those of `data/forms`."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxtune.data.example import Example, Message, ToolCall
from mlxtune.data.faults import Fault
from mlxtune.data.normalize import Shape, normalize_stream
from mlxtune.data.read import Record

USER, ANSWER = Message("user", "Hi"), Message("assistant", "Hello")
CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": {"city": "Bern"}}}
ASKED = {"role": "user", "content": "Hi"}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "12"}
SAID = {"role": "assistant", "content": "Hello"}


def one(row, form="auto", **shape) -> Example | Fault:
    stream = normalize_stream([Record(row, Path("rows.jsonl"), 1)], Shape(form, **shape))
    return next(iter(stream))


def example(row, form="auto", **shape) -> Example:
    found = one(row, form, **shape)
    assert isinstance(found, Example), found
    return found


def faults(row, form="auto", **shape) -> list[Fault]:
    found = list(normalize_stream([Record(row, Path("rows.jsonl"), 1)], Shape(form, **shape)))
    assert all(isinstance(fault, Fault) and fault.kind and fault.remedy for fault in found), found
    return found


def chat(*turns, **more):
    return {"messages": list(turns), **more}


# chat


def test_the_developer_is_another_word_for_the_system():
    row = chat({"role": "developer", "content": "Be brief."}, ASKED, SAID)
    assert example(row).messages == (Message("system", "Be brief."), USER, ANSWER)


def test_a_system_message_may_stand_beside_the_messages():
    assert example(chat(ASKED, SAID, system="Be brief.")).messages[0] == Message("system", "Be brief.")
    (fault,) = faults(chat({"role": "system", "content": "a"}, ASKED, SAID, system="b"))
    assert fault.message == "the row has 'system' and a system message as well"


@pytest.mark.parametrize("role", ["system", "developer"])
def test_two_system_messages_are_refused(role):
    (fault,) = faults(chat({"role": "system", "content": "a"}, {"role": role, "content": "b"}, ASKED, SAID))
    assert (fault.kind, fault.message) == ("roles", "messages[1]: a system message can only be the first")


def test_two_turns_of_a_user_in_a_row_are_left_to_the_chat_template():
    assert example(chat(ASKED, ASKED, SAID, SAID)).messages == (USER, USER, ANSWER, ANSWER)


def test_an_answer_to_nothing_is_refused():
    assert [fault.kind for fault in faults(chat(SAID))] == ["no question"]


def test_text_in_parts_is_joined_with_line_ends():
    parts = [{"type": "text", "text": "Look:"}, {"type": "text", "text": "Hi"}]
    assert example(chat({"role": "user", "content": parts}, SAID)).messages[0].content == "Look:\nHi"


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"type": "image_url", "image_url": {}}, "messages[0]: content[0] is of the type 'image_url'"),
        ({"type": "text"}, "content[0] has no text"),
        ({"text": "a"}, "content[0] has no type"),
        ("Hi", "content[0] is a string, not an object with a type"),
        ({"type": ["text"]}, "content[0] is of the type ['text']"),
    ],
)
def test_any_other_part_is_refused_by_name(part, said):
    (fault,) = faults(chat({"role": "user", "content": [part]}, SAID))
    assert said in fault.message


def test_content_of_no_parts_is_empty():
    assert faults(chat({"role": "user", "content": []}, SAID))[0].kind == "empty"


@pytest.mark.parametrize("key", ["thinking", "reasoning_content", "reasoning"])
def test_thoughts_stand_beside_the_answer(key):
    assert example(chat(ASKED, {**SAID, key: "Hm."})).messages[1].thinking == "Hm."
    assert faults(chat({**ASKED, key: "Hm."}, SAID))[0].kind == "thinking"


def test_thoughts_that_differ_are_refused():
    assert faults(chat(ASKED, {**SAID, "thinking": "a", "reasoning_content": "b"}))[0].kind == "thinking"


@pytest.mark.parametrize(
    ("more", "weight"),
    [({"weight": 0.5}, 0.5), ({"train": False}, 0.0), ({"train": True, "weight": 2}, 2.0), ({}, 1.0)],
)
def test_a_turn_says_how_much_it_counts(more, weight):
    assert example(chat(ASKED, {**SAID, **more}, ASKED, SAID)).messages[1].weight == weight


@pytest.mark.parametrize(
    "more",
    [
        {"weight": -1},
        {"weight": True},
        {"weight": "1"},
        {"weight": float("inf")},
        {"weight": 10**400},
        {"train": 0},
        {"train": "no"},
        {"train": False, "weight": 1},
    ],
)
def test_a_weight_that_is_none_is_refused(more):
    assert [fault.kind for fault in faults(chat(ASKED, {**SAID, **more}, ASKED, SAID))] == ["weight"]


def test_turns_that_are_no_answers_may_say_that_they_are_not_learned_and_no_more():
    assert example(chat({**ASKED, "train": False}, SAID)).messages[0].weight == 0
    assert faults(chat({**ASKED, "weight": 0.5}, SAID))[0].kind == "weight"


def test_a_row_of_which_nothing_is_learned_is_refused():
    assert faults(chat(ASKED, {**SAID, "train": False}))[0].kind == "no answer"


# tools


def test_a_call_and_its_result_keep_names_arguments_and_ids():
    found = example(chat(ASKED, CALLED, RESULT, SAID))
    assert found.messages[1] == Message("assistant", "", tool_calls=(ToolCall("find", {"city": "Bern"}, "c1"),))
    assert found.messages[2] == Message("tool", "12", tool_call_id="c1")


@pytest.mark.parametrize(
    "call",
    [
        {"function": {"name": "find", "arguments": '{"city": "Bern"}'}},
        {"name": "find", "arguments": {"city": "Bern"}},
    ],
)
def test_calls_are_read_in_the_ways_in_which_they_are_written(call):
    assert example(chat(ASKED, {**CALLED, "tool_calls": [call]})).messages[1].tool_calls == (
        ToolCall("find", {"city": "Bern"}),
    )
    as_text = {**CALLED, "tool_calls": json.dumps([call])}
    assert example(chat(ASKED, as_text)).messages[1].tool_calls[0].name == "find"


def test_the_older_form_of_calls_and_results_is_read():
    called = {"role": "assistant", "content": None, "function_call": {"name": "find", "arguments": "{}"}}
    result = {"role": "function", "name": "find", "content": "12"}
    found = example(chat(ASKED, called, result, SAID, functions=[{"name": "find", "parameters": {}}]))
    assert found.messages[1].tool_calls == (ToolCall("find", {}),)
    assert found.messages[2] == Message("tool", "12", name="find")
    assert found.tools == ({"type": "function", "function": {"name": "find", "parameters": {}}},)


def test_a_call_may_be_the_last_answer():
    assert example(chat(ASKED, CALLED)).messages[-1].tool_calls[0].name == "find"


@pytest.mark.parametrize("as_text", [False, True])
def test_tools_are_a_list_or_its_json_text(as_text):
    tools = [{"type": "function", "function": {"name": "find", "description": "é"}}]
    assert example(chat(ASKED, SAID, tools=json.dumps(tools) if as_text else tools)).tools == tuple(tools)


@pytest.mark.parametrize(
    ("turns", "said"),
    [
        ([ASKED, RESULT, SAID], "turn 2 is a tool's result, and the call 'c1' that waits for one is not before it"),
        ([ASKED, CALLED, {**RESULT, "tool_call_id": "c2"}, SAID], "the call 'c2' that waits"),
        ([ASKED, CALLED, RESULT, RESULT, SAID], "turn 4 is a tool's result"),
        ([ASKED, CALLED, SAID], "the call of 'find' has no result"),
        ([ASKED, SAID, {"role": "tool", "content": "a"}, SAID], "turn 3 is a tool's result, and a call"),
    ],
)
def test_results_and_calls_that_do_not_go_together_are_refused(turns, said):
    found = faults(chat(*turns))
    assert {fault.kind for fault in found} == {"tool result"}
    assert any(said in fault.message for fault in found)


@given(
    ids=st.lists(st.sampled_from("abc") | st.just(""), max_size=4),
    answered=st.lists(st.sampled_from("abcd") | st.just(""), max_size=5),
)
def test_a_result_answers_the_first_waiting_call_that_has_its_id_or_none(ids, answered):
    calls = [{"name": f"f{number}", "id": name} for number, name in enumerate(ids)]
    results = [{"role": "tool", "tool_call_id": name, "content": "x"} for name in answered]
    waiting, lost = list(ids), 0
    for name in answered:
        call = next((call for call in waiting if name in ("", call) or not call), None)
        lost += call is None
        if call is not None:
            waiting.remove(call)
    row = chat(ASKED, {"role": "assistant", "content": "a", "tool_calls": calls}, *results, SAID)
    found = [fault for fault in normalize_stream([Record(row, Path("f"), 1)]) if isinstance(fault, Fault)]
    assert len([fault for fault in found if fault.kind == "tool result"]) == lost + bool(waiting)


def test_many_results_in_any_order_take_no_longer_than_in_their_own():
    calls = [{"name": "f", "id": str(number)} for number in range(20_000)]
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "x"} for call in reversed(calls)]
    row = chat(ASKED, {"role": "assistant", "content": "", "tool_calls": calls}, *results, SAID)
    assert len(example(row).messages) == 20_003  # each result compared with each call: minutes


@pytest.mark.parametrize(
    "calls",
    [
        "oops",
        "null",
        "5",
        [5],
        {"name": "find"},
        [{"function": {"arguments": {}}}],
        [{"name": " "}],
        [{"name": "find", "arguments": "[]"}],
        [{"name": "find", "arguments": "{oops"}],
        [{"name": "find", "arguments": '{"a": "\\ud800"}'}],
        [{"name": "find", "arguments": [1]}],
        [{"name": "find", "id": 5}],
        [{"type": "code", "name": "find"}],
        [CALL, CALL],
    ],
)
def test_a_call_that_is_none_is_refused(calls):
    found = faults(chat(ASKED, {**SAID, "tool_calls": calls}))
    assert {fault.kind for fault in found} == {"tool call"}


@pytest.mark.parametrize("tools", ["oops", {"name": "f"}, [5], [{"function": {}}], [{"type": "web_search"}], 5])
def test_tools_that_are_none_are_refused(tools):
    assert {fault.kind for fault in faults(chat(ASKED, SAID, tools=tools))} == {"tools"}


def test_only_the_assistant_calls_tools():
    assert faults(chat({**ASKED, "tool_calls": [CALL]}, SAID))[0].message == "messages[0]: a user's turn calls a tool"


# ShareGPT


def test_conversations_are_chats_under_other_names():
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    assert example({"conversations": turns, "system": "Be brief."}).messages == (
        Message("system", "Be brief."),
        USER,
        ANSWER,
    )
    assert example({"conversations": [ASKED, SAID]}).messages == (USER, ANSWER)


def test_a_function_call_of_a_conversation_is_the_assistants_and_its_observation_a_result():
    turns = [
        {"from": "human", "value": "Hi"},
        {"from": "function_call", "value": '{"name": "find", "arguments": {"city": "Bern"}}'},
        {"from": "observation", "value": "12"},
        {"from": "gpt", "value": "Hello"},
    ]
    found = example({"conversations": turns, "tools": "[]"})
    assert found.messages[1].tool_calls == (ToolCall("find", {"city": "Bern"}),)
    assert found.messages[2] == Message("tool", "12")
    broken = [turns[0], {"from": "function_call", "value": "find Bern"}]
    assert [fault.kind for fault in faults({"conversations": broken})] == ["tool call"]


@pytest.mark.parametrize("turns", [None, "Hi", [], [5], [{"from": 5, "value": "a"}], [{"from": "human"}], [[]]])
def test_conversations_that_are_none_are_refused(turns):
    assert faults({"conversations": turns}, "sharegpt")


# prompts and answers in columns


def test_an_instruction_is_followed_by_its_input():
    row = {"instruction": "Add.", "input": "1 2", "output": "3"}
    assert example(row).messages == (Message("user", "Add.\n\n1 2"), Message("assistant", "3"))
    assert example({**row, "input": ""}).messages[0].content == "Add."
    assert faults({**row, "history": [["a", "b"]]})[0].kind == "not understood"


def test_a_context_stands_before_its_question():
    found = example({"question": "Who?", "context": "It was Ann.", "answer": "Ann"})
    assert (found.kind, found.messages[0].content) == ("prompt_completion", "It was Ann.\n\nWho?")


def test_a_prompt_with_a_system_message_is_a_chat():
    found = example({"system": "Be brief.", "prompt": "Hi", "completion": "Hello"})
    assert (found.kind, found.messages) == ("chat", (Message("system", "Be brief."), USER, ANSWER))


def test_of_prompt_and_completion_as_lists_only_the_completion_is_learned():
    found = example({"prompt": [ASKED, SAID, ASKED], "completion": [SAID]})
    assert (found.kind, [message.weight for message in found.messages]) == ("chat", [1, 0, 1, 1])


def test_a_label_is_the_answer_to_its_text():
    row = {"text": "Hi", "label": "Hello"}
    assert example(row).messages == (USER, ANSWER)
    assert example(row).kind == "prompt_completion"


@pytest.mark.parametrize(
    ("label", "words"), [(1, ["no", "Hello"]), (True, ["no", "Hello"]), ("b", {"b": "Hello"}), (7, {"7": "Hello"})]
)
def test_a_label_without_a_word_of_its_own_gets_one_from_the_recipe(label, words):
    assert example({"text": "Hi", "label": label}, columns={"labels": words}).messages == (USER, ANSWER)


@pytest.mark.parametrize(
    ("label", "words"), [(1, None), (2, ["a", "b"]), ("c", {"b": "x"}), (1.5, ["a"]), ([1], ["a"]), (0, [" "])]
)
def test_a_label_without_a_word_is_refused(label, words):
    (fault,) = faults({"text": "Hi", "label": label}, columns={"labels": words} if words else None)
    assert fault.kind == "label"


# preferences


def test_a_preference_is_two_answers_to_one_prompt():
    found = example({"prompt": "Hi", "chosen": "Hello", "rejected": "What?"})
    assert (found.kind, found.messages, found.rejected) == (
        "preference",
        (USER, ANSWER),
        (Message("assistant", "What?"),),
    )


@pytest.mark.parametrize("prompt", [{}, {"prompt": "Hi"}, {"prompt": [ASKED]}, {"messages": [ASKED]}])
def test_lists_that_carry_the_prompt_have_it_once(prompt):
    other = {"role": "assistant", "content": "What?"}
    found = example({**prompt, "chosen": [ASKED, SAID], "rejected": [ASKED, other]})
    assert (found.messages, found.rejected) == ((USER, ANSWER), (Message("assistant", "What?"),))


def test_a_system_message_stands_before_a_preference_once():
    system = {"role": "system", "content": "Be brief."}
    other = {"role": "assistant", "content": "What?"}
    carried = example({"chosen": [system, ASKED, SAID], "rejected": [system, ASKED, other], "prompt": "Hi"})
    beside = example({"chosen": [ASKED, SAID], "rejected": [ASKED, other], "system": "Be brief."})
    given = example({"prompt": [system, ASKED], "chosen": [ASKED, SAID], "rejected": [ASKED, other]})
    assert carried.messages == beside.messages == given.messages == (Message("system", "Be brief."), USER, ANSWER)


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": "a", "rejected": "b"},
        {"prompt": "Hi", "chosen": "a", "rejected": "a"},
        {"prompt": "Hi", "chosen": "", "rejected": "a"},
        {"prompt": "Hi", "chosen": 5, "rejected": "a"},
        {"prompt": "Ho", "chosen": [ASKED, SAID], "rejected": [ASKED, {**SAID, "content": "a"}]},
        {"chosen": [ASKED, SAID], "rejected": [{**ASKED, "content": "Ho"}, SAID]},
        {"chosen": [ASKED, SAID], "rejected": [ASKED, SAID, ASKED, SAID]},
        {"chosen": [ASKED, SAID], "rejected": [ASKED]},
        {"prompt": "Hi", "messages": [ASKED], "chosen": "a", "rejected": "b"},
        {"prompt": [], "chosen": "a", "rejected": "b"},
        {"chosen": [], "rejected": []},
    ],
)
def test_a_preference_without_one_prompt_and_two_answers_is_refused(row):
    assert faults(row, "preference")


# columns


def test_speakers_go_by_the_words_of_the_recipe():
    row = {"turns": [{"speaker": "USER", "utterance": "Hi"}, {"speaker": "SYSTEM", "utterance": "Hello"}]}
    columns = {"messages": "turns", "role": "speaker", "content": "utterance"}
    roles = {"user": ["USER", "GUEST"], "assistant": "SYSTEM"}
    assert example(row, columns={**columns, "roles": roles}).messages == (USER, ANSWER)
    assert "unknown role 'USER'" in faults(row, columns=columns)[0].message


def test_a_turn_that_holds_a_call_and_its_result_is_three_turns():
    turn = {**SAID, "call": {"method": "find", "with": {"city": "Bern"}}, "found": [{"n": "é"}]}
    columns = {"call_name": "call.method", "call_arguments": "call.with", "call_result": "found"}
    found = example(chat(ASKED, turn, ASKED, SAID), columns=columns)
    assert found.messages[1:4] == (
        Message("assistant", "", tool_calls=(ToolCall("find", {"city": "Bern"}),)),
        Message("tool", '[{"n": "é"}]', name="find"),
        ANSWER,
    )


def test_several_columns_are_joined_and_those_that_are_missing_passed_over():
    columns = {"prompt": ["context", "meta.q", "more"], "completion": "a"}
    row = {"context": ["One.", "Two."], "meta": {"q": "Hi"}, "more": None, "a": "Hello"}
    assert example(row, columns=columns).messages[0].content == "One.\n\nTwo.\n\nHi"
    assert faults({"a": "Hello"}, columns=columns)[0].message == (
        "the key 'context, meta.q, more' (data.columns.prompt) is missing"
    )
    assert faults({**row, "more": 5}, columns=columns)[0].kind == "wrong type"


def test_a_field_with_a_dot_in_its_name_is_found_under_that_name():
    columns = {"prompt": "a.b", "completion": "c"}
    assert example({"a.b": "Hi", "a": {"b": "no"}, "c": "Hello"}, columns=columns).messages[0] == USER


def test_a_key_that_the_recipe_reads_is_understood():
    row = {"prompt": "Hi", "chosen": "Hello", "rejected": "What?"}
    assert example(row, columns={"completion": "chosen"}).messages == (USER, ANSWER)
    template = {"prompt": "{{ prompt }}", "completion": "{{ row['chosen'] }}"}
    assert example(row, template=template).messages == (USER, ANSWER)
    assert [fault.kind for fault in faults({**row, "completion": "Hello"}, "prompt_completion")] == 2 * [
        "not understood"
    ]
