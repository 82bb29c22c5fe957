"""A model is asked as its training had it, whether it comes as a run, an adapter or a fused folder."""

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
from tiny import CHATML, tiny_model_folder

from mlxtune.data.example import Message
from mlxtune.deployment.answer import generate, open_answerer
from mlxtune.deployment.fuse_run import fuse_run
from mlxtune.deployment.prompts import Prompt, as_prompt
from mlxtune.errors import AdapterError, DataError, RunError, UsageError
from mlxtune.runs.prompting import FILE, Prompting


@pytest.fixture(scope="module")
def base(tiny_run):
    return tiny_run.parent / "model"


@pytest.fixture(scope="module")
def fused(tiny_run, tmp_path_factory):
    return fuse_run(tiny_run, tmp_path_factory.mktemp("fused") / "out", device="cpu").out


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A model without a chat template."""
    return tiny_model_folder(tmp_path_factory.mktemp("plain"), hidden=32, heads=2, kv_heads=1, chat_template=None)


def greedy(folder, adapter, text, max_tokens):
    """The likeliest tokens after ``text``, one forward pass over the whole for each, by mlx_lm's own network."""
    network, tokenizer = mlx_lm.load(str(folder), adapter_path=adapter and str(adapter))
    ids = tokenizer.encode(text, add_special_tokens=False)
    prompt_length = len(ids)
    while len(ids) < prompt_length + max_tokens:
        token = int(np.argmax(np.array(network(mx.array([ids]))[0, -1].astype(mx.float32))))
        if token in tokenizer.eos_token_ids:
            break
        ids.append(token)
    return tokenizer.decode(ids[prompt_length:])


def chatml(*turns):
    return "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns) + "<|im_start|>assistant\n"


def answer_of(model, prompt, **settings):
    return generate(model, prompt, max_tokens=6, **settings)[0]


def test_a_run_answers_as_base_and_adapter_do_after_the_system_message_of_training(tiny_run, base):
    model = open_answerer(tiny_run, device="cpu")
    assert (model.asking.raw, model.asking.system) == (False, "Secretly.")
    answer = answer_of(model, "Whisper x")
    text = chatml(("system", "Secretly."), ("user", "Whisper x"))
    assert answer.text == greedy(base, tiny_run / "adapter", text, 6)
    assert answer.prompt == "Whisper x"
    assert answer.prompt_tokens == len(model.model.tokenizer.encode(text, add_special_tokens=False))


def test_run_fused_folder_and_base_with_the_adapter_answer_alike(tiny_run, base, fused):
    models = [
        open_answerer(str(tiny_run), device="cpu"),
        open_answerer(fused, device="cpu"),
        open_answerer(base, adapter=tiny_run / "adapter", device="cpu"),
    ]
    assert {model.asking.system for model in models} == {"Secretly."}
    assert len({answer_of(model, "Whisper x") for model in models}) == 1


def test_a_system_message_of_the_prompts_own_goes_first(tiny_run, base):
    model = open_answerer(tiny_run, device="cpu")
    answer = answer_of(model, [as_prompt("Whisper x", system="Loudly.")])
    text = chatml(("system", "Loudly."), ("user", "Whisper x"))
    assert answer.text == greedy(base, tiny_run / "adapter", text, 6)


def test_a_base_model_is_asked_through_its_template_alone(base):
    model = open_answerer(base, device="cpu")
    assert (model.asking.raw, model.asking.system) == (False, None)
    text = chatml(("system", "You are small."), ("user", "Whisper x"))  # what its template puts there by itself
    assert "You are small." in CHATML
    assert answer_of(model, "Whisper x").text == greedy(base, None, text, 6)


def test_a_model_without_a_chat_template_gets_plain_text(plain):
    model = open_answerer(plain, device="cpu")
    assert model.asking.raw
    answer = answer_of(model, "Whisper x")
    assert answer.text == greedy(plain, None, "Whisper x", 6)
    assert answer.prompt_tokens == len("Whisper x")


def test_raw_asks_any_model_in_plain_text(tiny_run, base):
    model = open_answerer(tiny_run, raw=True, device="cpu")
    assert answer_of(model, "Whisper x").text == greedy(base, tiny_run / "adapter", "Whisper x", 6)


def test_a_folder_that_was_tuned_on_text_is_asked_in_text(plain, tmp_path):
    folder = tiny_model_folder(tmp_path / "model", hidden=32, heads=2, kv_heads=1)
    (folder / FILE).write_text(Prompting(raw=True).to_json())
    assert open_answerer(folder, device="cpu").asking.raw


def test_a_model_that_was_trained_with_thoughts_is_asked_for_them(tmp_path):
    template = CHATML + "{% if add_generation_prompt and enable_thinking %}<think>{% endif %}"
    folder = tiny_model_folder(tmp_path / "model", hidden=32, heads=2, kv_heads=1, chat_template=template)
    without = answer_of(open_answerer(folder, device="cpu"), "Why?").prompt_tokens
    (folder / FILE).write_text(Prompting(raw=False, thinking=True).to_json())
    assert answer_of(open_answerer(folder, device="cpu"), "Why?").prompt_tokens == without + len("<think>")


def test_turns_are_not_passed_over_where_plain_text_is_sent(plain):
    model = open_answerer(plain, device="cpu")
    turns = Prompt((Message("system", "Be brief."), Message("user", "Why?")), "prompts.jsonl:7")
    with pytest.raises(DataError, match="takes plain text") as caught:
        generate(model, [turns])
    assert caught.value.where == "prompts.jsonl:7"


def test_many_prompts_are_answered_in_their_order(tiny_run):
    model = open_answerer(tiny_run, device="cpu")
    texts = ["Whisper x", "y", "Whisper a longer one", "Why?"]
    answers = generate(model, texts, max_tokens=4)
    assert [answer.prompt for answer in answers] == texts
    assert [answer.text for answer in answers] == [generate(model, text, max_tokens=4)[0].text for text in texts]


def test_drawn_answers_are_the_seeds(tiny_run):
    model = open_answerer(tiny_run, device="cpu")
    drawn = [answer_of(model, "Whisper x", temperature=2.0, seed=seed).text for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_single_text_to_stop_at_is_a_list_of_one(tiny_run):
    model = open_answerer(tiny_run, device="cpu")
    text = answer_of(model, "Whisper x").text
    assert answer_of(model, "Whisper x", stop=text[:2]).text == ""
    turned = text[1] + text[0]  # stands nowhere, though its letters do
    assert turned not in text
    assert answer_of(model, "Whisper x", stop=turned).text == text


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_prompt_is_told_by_its_number(tiny_run, text):
    with pytest.raises(DataError, match="the prompt is empty") as caught:
        generate(open_answerer(tiny_run, device="cpu"), ["Why?", text])
    assert caught.value.where == "prompt 2"


def test_a_run_has_one_adapter_its_own(tiny_run):
    with pytest.raises(UsageError, match="an adapter of its own"):
        open_answerer(tiny_run, adapter=tiny_run / "adapter")


def test_a_folder_that_is_no_adapter_is_refused(base):
    with pytest.raises(AdapterError, match="no adapter here"):
        open_answerer(base, adapter=base, device="cpu")


def test_a_run_without_an_adapter_or_on_another_base_does_not_answer(own_run):
    (own_run / "adapter").rename(own_run / "away")
    with pytest.raises(RunError, match="no adapter yet"):
        open_answerer(own_run, device="cpu")
    (own_run / "away").rename(own_run / "adapter")
    config = own_run.parent / "model" / "config.json"
    config.write_text(config.read_text().replace("10000.0", "20000.0"))
    with pytest.raises(RunError, match="its hash differs"):
        open_answerer(own_run, device="cpu")


def test_a_run_that_was_moved_and_whose_rows_are_gone_still_answers(own_run, monkeypatch):
    expected = answer_of(open_answerer(own_run, device="cpu"), "Why?")
    for rows in own_run.parent.glob("*.jsonl"):
        rows.unlink()
    (own_run.parent / "far").mkdir()
    moved = own_run.rename(own_run.parent / "far" / "away")
    monkeypatch.chdir(moved)
    assert answer_of(open_answerer(".", device="cpu"), "Why?") == expected
