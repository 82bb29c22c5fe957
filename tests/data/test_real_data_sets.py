"""Data sets that nobody here made are read whole with a few lines of a recipe, each in its own shape."""

from collections import Counter

import pytest
from whole_file import read_records

from mlxtune.data.example import Example, Message
from mlxtune.data.normalize import normalize_stream
from mlxtune.iteration.opening import shape_of
from mlxtune.recipe.load import load_recipe

LINES = {
    "banking77": "columns: {label: category}",
    "pubmedqa": "columns: {prompt: [CONTEXTS, QUESTION], completion: final_decision}",
    "unfair_tos": "columns: {text: sentence, label: tag}",
    "sentence_polarity": "",
    "gsm8k": "",
    "oasst_chat": "columns: {content: text, roles: {user: prompter}}",
    "oasst_preferences": "columns: {content: text, roles: {user: prompter}}",
    "sgd_dialogues": """columns:
    messages: turns
    role: speaker
    content: utterance
    roles: {user: USER, assistant: SYSTEM}
    call_name: service_call.method
    call_arguments: service_call.parameters
    call_result: service_results""",
    "self_instruct": "",
    "wikisql": "",
}
"""What a recipe's `data` section needs beside the files."""

FORM_AND_KIND = {
    "banking77": ("label", "prompt_completion"),
    "pubmedqa": ("prompt_completion", "prompt_completion"),
    "unfair_tos": ("label", "prompt_completion"),
    "sentence_polarity": ("label", "prompt_completion"),
    "gsm8k": ("question_answer", "prompt_completion"),
    "oasst_chat": ("chat", "chat"),
    "oasst_preferences": ("preference", "preference"),
    "sgd_dialogues": ("chat", "chat"),
    "self_instruct": ("alpaca", "prompt_completion"),
    "wikisql": ("text", "text"),
}

ROWS = {
    "banking77": (9224, 768, 3079),
    "pubmedqa": (450, 50, 220),
    "unfair_tos": (2372, 221, 659),
    "sentence_polarity": (6000, 400, 1000),
    "gsm8k": (1900, 100, 400),
    "oasst_chat": (410, 43, 76),
    "oasst_preferences": (321, 35, 61),
    "sgd_dialogues": (380, 40, 90),
    "self_instruct": (327, 30, 70),
    "wikisql": (1000, 100, 100),
}
"""Of train, valid and test, as the data sets' own README counts them."""


def shape_for(name, folder):
    text = f"name: a\nmodel: {{source: smollm2-135m-instruct}}\ndata:\n  train: a.jsonl\n  {LINES[name]}\n"
    (folder / "recipe.yaml").write_text(text)
    return shape_of(load_recipe(folder / "recipe.yaml").recipe.data)


@pytest.mark.parametrize("name", LINES)
def test_a_data_set_is_read_whole(name, shared_data, tmp_path):
    shape = shape_for(name, tmp_path)
    for split, count in zip(("train", "valid", "test"), ROWS[name], strict=True):
        stream = normalize_stream(read_records(shared_data / name / f"{split}.jsonl"), shape)
        form, kind = FORM_AND_KIND[name]
        assert Counter(row.kind for row in stream if isinstance(row, Example)) == {kind: count}
        assert stream.form == form


def test_a_dialogue_with_services_has_a_call_and_a_result_for_each_that_its_turns_hold(shared_data, tmp_path):
    records = read_records(shared_data / "sgd_dialogues" / "train.jsonl")
    for record, example in zip(records, normalize_stream(records, shape_for("sgd_dialogues", tmp_path)), strict=True):
        turns = record.fields["turns"]
        calls = [turn["service_call"]["method"] for turn in turns if "service_call" in turn]
        assert [call.name for message in example.messages for call in message.tool_calls] == calls
        assert [message.name for message in example.messages if message.role == "tool"] == calls
        assert len(example.messages) == len(turns) + 2 * len(calls)


def test_an_abstract_stands_before_its_question(shared_data, tmp_path):
    record, *_ = records = read_records(shared_data / "pubmedqa" / "valid.jsonl")
    example, *_ = normalize_stream(records, shape_for("pubmedqa", tmp_path))
    prompt = "\n\n".join([*record.fields["CONTEXTS"], record.fields["QUESTION"]])
    assert example.messages == (Message("user", prompt), Message("assistant", record.fields["final_decision"]))
