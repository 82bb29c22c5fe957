"""Plain completions through OpenAI's own client."""

import openai
import pytest
from tiny import tiny_backend

from mlxtune.deployment.server.wire import NOT_DONE, CompletionRequest

LONG = 12


def ask(client, prompt="Say ", **fields):
    return client.completions.create(**({"model": "tiny", "prompt": prompt, "max_tokens": LONG} | fields))


def texts_of(answer):
    return [choice.text for choice in answer.choices]


def test_a_text_is_gone_on_with_as_it_is(client):
    answer = ask(client)
    assert answer.usage.prompt_tokens == len("Say ")  # a byte is a token, and no template is around them
    assert answer.usage.completion_tokens == LONG
    assert answer.choices[0].finish_reason == "length"


def test_a_stream_is_the_same_text_in_pieces(client):
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == texts_of(ask(client))[0]
    assert chunks[-1].usage.completion_tokens == LONG


def test_an_echo_has_the_prompt_before_the_answer(client):
    (plain,) = texts_of(ask(client))
    assert texts_of(ask(client, echo=True)) == ["Say " + plain]
    assert "".join(chunk.choices[0].text for chunk in ask(client, echo=True, stream=True)) == "Say " + plain


def test_several_prompts_get_several_answers_each_in_order(client):
    answer = ask(client, ["Say ", "Tell "], n=2, temperature=1.5, seed=3, echo=True)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    starts = [text[:4] for text in texts_of(answer)]
    assert starts == ["Say ", "Say ", "Tell", "Tell"]
    assert len(set(texts_of(answer))) == 4


def test_token_ids_are_a_prompt_too(client):
    ids = tiny_backend().encode("Say ").ids
    assert texts_of(ask(client, ids)) == texts_of(ask(client))
    assert texts_of(ask(client, [ids, ids])) == 2 * texts_of(ask(client))
    assert texts_of(ask(client, ids, echo=True)) == texts_of(ask(client, echo=True))


def test_log_probabilities_in_the_older_form(client):
    answer = ask(client, logprobs=2).choices[0]
    said = answer.logprobs
    assert len(said.tokens) == len(said.token_logprobs) == len(said.top_logprobs) == len(said.text_offset) == LONG
    assert all(len(one) == 2 for one in said.top_logprobs)
    assert said.text_offset[0] == 0
    assert all(value <= 0 for value in said.token_logprobs)


@pytest.mark.parametrize("name", sorted(NOT_DONE.keys() - CompletionRequest.model_fields.keys()))
def test_a_field_that_is_not_supported_is_refused_by_its_name(http, name):
    answer = http.post("/v1/completions", json={"model": "tiny", "prompt": "a", name: "some"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)


def test_every_field_of_the_official_client_is_honoured_or_refused():
    theirs = openai.types.completion_create_params.CompletionCreateParamsBase.__annotations__
    assert not theirs.keys() - CompletionRequest.model_fields.keys() - NOT_DONE.keys() - {"stream"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [""]}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [5, 99999]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": ["a"] * 50}, "prompt"),
        ({"prompt": {"text": "a"}}, "prompt"),
        ({"logprobs": 6}, "logprobs"),
        ({"echo": True, "logprobs": 1}, "echo"),
        ({"messages": []}, "messages"),
    ],
)
def test_a_wrong_value_is_refused_by_its_field(http, fields, param):
    answer = http.post("/v1/completions", json={"model": "tiny", "prompt": "a"} | fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
