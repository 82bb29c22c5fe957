"""Answers in a form, and calls of tools, through OpenAI's own client."""

import json
import types

import jsonschema_rs
import openai
import pytest
from serving import server_of
from tiny import tiny_model_folder
from tool_speaker import HERMES

from mlxtune.data.example import ToolCall
from mlxtune.deployment.server.chat_completions import _message, _reason

ASKED = [{"role": "user", "content": "Whisper x"}]
SCHEMA = {
    "type": "object",
    "properties": {"said": {"type": "string", "maxLength": 4}, "times": {"enum": [1, 2]}},
    "required": ["said", "times"],
    "additionalProperties": False,
}
BY_SCHEMA = {"type": "json_schema", "json_schema": {"name": "said", "schema": SCHEMA, "strict": True}}
TOOLS = [
    {"type": "function", "function": {"name": "whisper", "description": "Say it softly.", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "stop"}},
]


@pytest.fixture(scope="module")
def speaker(tmp_path_factory):
    """A client of a server whose model's chat template has tools."""
    folder = tiny_model_folder(
        tmp_path_factory.mktemp("speaker") / "speaker", hidden=32, heads=2, kv_heads=1, chat_template=HERMES
    )
    with server_of(folder) as address, openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        yield client


def ask(client, **fields):
    return client.chat.completions.create(**({"model": "base", "messages": ASKED, "max_tokens": 1500} | fields))


def refused(client, **fields):
    with pytest.raises(openai.BadRequestError) as error:
        ask(client, **fields)
    return error.value


@pytest.mark.parametrize("drawn", [{}, {"temperature": 1.0, "seed": 5}])
def test_an_answer_keeps_to_its_schema(client, drawn):
    choice = ask(client, response_format=BY_SCHEMA, **drawn).choices[0]
    jsonschema_rs.validate(SCHEMA, json.loads(choice.message.content))
    assert choice.finish_reason == "stop"
    streamed = ask(client, response_format=BY_SCHEMA, stream=True, **drawn)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == choice.message.content


def test_several_answers_each_keep_to_the_schema(client):
    choices = ask(client, response_format=BY_SCHEMA, n=3, temperature=1.5, seed=5).choices
    assert len({choice.message.content for choice in choices}) > 1
    for choice in choices:
        jsonschema_rs.validate(SCHEMA, json.loads(choice.message.content))


def test_an_answer_may_be_some_object_of_json(client):
    answer = ask(client, response_format={"type": "json_object"}, max_tokens=40, temperature=1.0, seed=2).choices[0]
    assert answer.message.content.startswith("{")
    if answer.finish_reason == "stop":
        assert isinstance(json.loads(answer.message.content), dict)


def test_text_is_the_form_that_an_answer_has_anyway(client):
    plain = ask(client, max_tokens=5).choices[0].message.content
    assert ask(client, max_tokens=5, response_format={"type": "text"}).choices[0].message.content == plain


@pytest.mark.parametrize(
    "schema", [{"type": "nonsense"}, {"not": {}}, {"$ref": "https://example.org/schema.json"}, {"$ref": "#/nothing"}]
)
def test_a_schema_that_cannot_be_followed_is_refused(client, schema):
    asked = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    error = refused(client, response_format=asked)
    assert error.param == "response_format"


def test_a_call_that_has_to_come_comes(speaker):
    choice = ask(speaker, tools=TOOLS, tool_choice="required", temperature=1.0, seed=3).choices[0]
    assert choice.finish_reason == "tool_calls"
    for call in choice.message.tool_calls:
        assert call.function.name in ("whisper", "stop")
        arguments = json.loads(call.function.arguments)
        jsonschema_rs.validate(SCHEMA if call.function.name == "whisper" else {"type": "object"}, arguments)


def test_a_function_that_is_named_is_called_once_and_streams(speaker):
    named = {"type": "function", "function": {"name": "whisper"}}
    (call,) = ask(speaker, tools=TOOLS, tool_choice=named).choices[0].message.tool_calls
    chunks = list(ask(speaker, tools=TOOLS, tool_choice=named, stream=True))
    (streamed,) = [one for chunk in chunks for one in chunk.choices[0].delta.tool_calls or []]
    assert (streamed.index, streamed.function.name) == (0, "whisper")
    assert streamed.function.arguments == call.function.arguments
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_tools_change_the_prompt_unless_none_may_be_called(speaker):
    plain = ask(speaker, max_tokens=2).usage.prompt_tokens
    assert ask(speaker, max_tokens=2, tools=TOOLS).usage.prompt_tokens > plain
    assert ask(speaker, max_tokens=2, tools=TOOLS, tool_choice="none").usage.prompt_tokens == plain


def test_a_call_and_its_result_come_back_as_turns(speaker):
    named = {"type": "function", "function": {"name": "whisper"}}
    message = ask(speaker, tools=TOOLS, tool_choice=named).choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "done"}
    answer = ask(speaker, messages=[*ASKED, message.model_dump(exclude_none=True), result], tools=TOOLS, max_tokens=3)
    assert answer.usage.completion_tokens <= 3


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"parallel_tool_calls": True}, "parallel_tool_calls"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "shout"}}}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": TOOLS, "response_format": BY_SCHEMA}, "response_format"),
    ],
)
def test_tools_that_cannot_be_are_refused_by_their_field(speaker, fields, param):
    assert refused(speaker, **fields).param == param


def test_a_model_that_cannot_be_told_of_tools_says_so(client):
    error = refused(client, model="tiny", tools=TOOLS)
    assert (error.param, error.code) == ("tools", "unsupported_parameter")


def test_an_answer_that_is_cut_off_is_not_said_to_have_called():
    call = ToolCall("stop", {}, "1")
    cut, whole = (types.SimpleNamespace(finish_reason=reason) for reason in ("length", "stop"))
    assert (_reason(cut, [call]), _reason(whole, [call]), _reason(whole, [])) == ("length", "tool_calls", "stop")
    assert _message("", [call])["content"] is None
