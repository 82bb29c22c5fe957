"""Chats through OpenAI's own client: every field that is honoured, and every one that is refused, by name."""

import math

import openai
import pytest
from tiny import tiny_backend

from mlxtune.deployment.answer import generate, open_answerer
from mlxtune.deployment.server.wire import NOT_DONE, ChatRequest

ASKED = [{"role": "user", "content": "Whisper x"}]
LONG = 24


def ask(client, **fields):
    return client.chat.completions.create(**({"model": "tiny", "messages": ASKED, "max_tokens": LONG} | fields))


def text_of(client, **fields):
    return ask(client, **fields).choices[0].message.content


def refused(client, **fields):
    with pytest.raises(openai.APIStatusError) as error:
        ask(client, **fields)
    return error.value


@pytest.fixture(scope="module")
def expected(tiny_run):
    """What `mlxtune generate` says."""
    (answer,) = generate(open_answerer(tiny_run, device="cpu"), "Whisper x", max_tokens=LONG)
    return answer


def test_a_chat_is_answered_as_generate_answers(client, expected):
    answer = ask(client)
    choice = answer.choices[0]
    assert choice.message.content == expected.text
    assert choice.finish_reason == expected.finish_reason
    assert answer.usage.prompt_tokens == expected.prompt_tokens
    assert answer.usage.completion_tokens == expected.completion_tokens
    assert answer.usage.total_tokens == expected.prompt_tokens + expected.completion_tokens
    assert (answer.object, answer.model) == ("chat.completion", "tiny")


def test_a_stream_is_the_same_answer_in_pieces(client, expected):
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    *parts, last = chunks
    deltas = [chunk.choices[0].delta for chunk in parts]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == expected.text
    assert len(parts) > 3
    assert [chunk.choices[0].finish_reason for chunk in parts] == [None] * (len(parts) - 1) + [expected.finish_reason]
    assert (last.choices, last.usage.completion_tokens) == ([], expected.completion_tokens)
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}


def test_a_stream_has_no_usage_unless_asked(client):
    assert all(chunk.choices and chunk.usage is None for chunk in ask(client, stream=True, max_tokens=2))


def test_the_base_answers_under_its_name_and_otherwise(client):
    assert text_of(client, model="base") != text_of(client, model="tiny")


def test_the_models_own_system_message_gives_way_to_the_requests(client):
    own = ask(client)
    same = ask(client, messages=[{"role": "system", "content": "Secretly."}, *ASKED])
    other = ask(client, messages=[{"role": "developer", "content": "Loudly."}, *ASKED])
    assert same.choices[0].message.content == own.choices[0].message.content
    assert same.usage.prompt_tokens == own.usage.prompt_tokens
    assert other.usage.prompt_tokens != own.usage.prompt_tokens


def test_content_in_parts_is_read(client):
    parts = [{"role": "user", "content": [{"type": "text", "text": "Whisper x"}]}]
    assert text_of(client, messages=parts) == text_of(client)


def test_earlier_answers_come_back_as_other_servers_write_them(client):
    answer = ask(client).choices[0].message.model_dump()
    assert text_of(client, messages=[*ASKED, answer, *ASKED]) is not None


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_the_longest_answer(client, name):
    answer = client.chat.completions.create(model="tiny", messages=ASKED, **{name: 3})
    assert answer.usage.completion_tokens == 3
    assert answer.choices[0].finish_reason == "length"


def test_a_text_to_stop_at(client, expected):
    stop = expected.text[4:6]
    for given in (stop, ["never to be said", stop]):
        choice = ask(client, stop=given).choices[0]
        assert choice.message.content == expected.text[: expected.text.index(stop)]
        assert choice.finish_reason == "stop"
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in ask(client, stop=stop, stream=True))
    assert streamed == expected.text[: expected.text.index(stop)]


def test_a_seed_gives_the_same_answer_again_and_another_seed_another(client):
    drawn = {"temperature": 1.5, "seed": 7}
    first = text_of(client, **drawn)
    assert text_of(client, **drawn) == first
    assert text_of(client, **(drawn | {"seed": 8})) != first
    assert len({text_of(client, temperature=1.5) for _ in range(3)}) == 3  # without one, each draws anew


def test_several_answers_differ_and_are_told_apart(client):
    choices = ask(client, n=3, temperature=1.5, seed=7).choices
    assert [choice.index for choice in choices] == [0, 1, 2]
    assert len({choice.message.content for choice in choices}) == 3
    assert choices[0].message.content == text_of(client, temperature=1.5, seed=7)
    assert ask(client, n=2).usage.completion_tokens == 2 * ask(client).usage.completion_tokens


@pytest.mark.parametrize("narrow", [{"top_p": 1e-6}, {"extra_body": {"top_k": 1}}, {"extra_body": {"min_p": 1.0}}])
def test_what_leaves_one_token_to_draw_takes_the_likeliest(client, expected, narrow):
    assert text_of(client, temperature=1.5, seed=7, **narrow) == expected.text


def test_log_probabilities_of_each_token(client, expected):
    content = ask(client, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert len(content) == expected.completion_tokens
    assert bytes(byte for one in content for byte in one.bytes).decode(errors="replace") == expected.text
    for one in content:
        assert one.logprob == max(other.logprob for other in one.top_logprobs)  # the likeliest was taken
        assert len(one.top_logprobs) == 2
        assert sum(math.exp(other.logprob) for other in one.top_logprobs) <= 1.0001
    assert ask(client).choices[0].logprobs is None
    streamed = [
        entry
        for chunk in ask(client, logprobs=True, top_logprobs=2, stream=True)
        if chunk.choices[0].logprobs
        for entry in chunk.choices[0].logprobs.content
    ]
    assert [one.token for one in streamed] == [one.token for one in content]


def test_a_bias_forces_and_forbids_a_token(client):
    a = tiny_backend().token_to_id("a")
    assert text_of(client, logit_bias={str(a): 100}, max_tokens=4) == "aaaa"
    (first,) = ask(client, logprobs=True, top_logprobs=0, max_tokens=1).choices[0].logprobs.content
    forbidden = {str(tiny_backend().token_to_id(letter)): -100 for letter in first.token}
    assert not text_of(client, logit_bias=forbidden, max_tokens=1).startswith(first.token)


@pytest.mark.parametrize("name", ["presence_penalty", "frequency_penalty"])
def test_a_penalty_repeats_less(client, name):
    once = ask(client, max_tokens=60).choices[0].message.content
    penalized = text_of(client, max_tokens=60, **{name: 2.0})
    assert len(set(penalized)) > len(set(once))


# --- what is refused


@pytest.mark.parametrize("name", sorted(NOT_DONE.keys() - ChatRequest.model_fields.keys()))
def test_a_field_that_is_not_supported_is_refused_by_its_name(http, name):
    answer = http.post("/v1/chat/completions", json={"model": "tiny", "messages": ASKED, name: "some"})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, name, "unsupported_parameter")
    assert name in error["message"]


def test_every_field_of_the_official_client_is_honoured_or_refused():
    theirs = openai.types.chat.completion_create_params.CompletionCreateParamsBase.__annotations__
    assert not theirs.keys() - ChatRequest.model_fields.keys() - NOT_DONE.keys() - {"stream"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"nonsense": 1}, "nonsense"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 3}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"max_completion_tokens": 10**9}, "max_completion_tokens"),
        ({"max_tokens": 2, "max_completion_tokens": 2}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"n": 1000}, "n"),
        ({"top_p": 0}, "top_p"),
        ({"seed": 1.5}, "seed"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"odd": True}}, "stream_options"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logit_bias": {"five": 1}}, "logit_bias"),
        ({"logit_bias": {"999999": 1}}, "logit_bias"),
        ({"logit_bias": {"5": 101}}, "logit_bias"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [5]}, "messages"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages"),
        ({"messages": [{"role": "user", "content": "x", "name": "me"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "x", "train": False}]}, "messages"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://a/b"}}]}]},
         "messages"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_by_its_field(http, fields, param):
    answer = http.post("/v1/chat/completions", json={"model": "tiny", "messages": ASKED} | fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["type"]) == (400, param, "invalid_request_error")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b'{"n": NaN}', b"[" * 100_000, b"\xff\xfe"])
def test_a_body_that_is_no_object_of_json_is_refused(http, body):
    answer = http.post("/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_model_that_is_not_there_is_named_with_those_that_are(client):
    error = refused(client, model="gpt-5")
    assert (error.status_code, error.code) == (404, "model_not_found")
    assert "tiny, base" in error.message


def test_a_prompt_that_the_model_is_too_small_for_is_refused(client):
    error = refused(client, messages=[{"role": "user", "content": "x" * 3000}])
    assert (error.status_code, error.code) == (400, "context_length_exceeded")


def test_null_is_the_same_as_nothing(http, expected):
    fields = dict.fromkeys(("temperature", "stop", "tools", "response_format", "user", "store"))
    body = {"model": "tiny", "messages": ASKED, "max_tokens": LONG} | fields
    answer = http.post("/v1/chat/completions", json=body)
    assert answer.json()["choices"][0]["message"]["content"] == expected.text
