"""What lm-evaluation-harness asks, answered; tests/conformance compares with the harness's own model."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from tiny import tiny_model_folder

from mlxtune.device.precision import CPU_FLOAT32
from mlxtune.errors import DataError
from mlxtune.evaluation.lm_eval import answers as module
from mlxtune.evaluation.lm_eval.answers import (
    answers_until,
    chat_text,
    loglikelihoods,
    make_answers,
    max_length_of,
    rolling_loglikelihoods,
)
from mlxtune.models.load import open_model

BOS = 1
LONGEST = 40


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    found = open_model(tiny_model_folder(tmp_path_factory.mktemp("model"), tied=False), CPU_FLOAT32)
    found.config["max_position_embeddings"] = LONGEST
    return found


@pytest.fixture(scope="module")
def answers(model):
    return make_answers(model)


def log_probabilities(model, ids):
    """[L - 1]: of each token after the first, by all tokens before it; and whether it is the likeliest."""
    logits = np.array(model.network(mx.array([ids]))[0], np.float64)[:-1]
    logits -= logits.max(axis=-1, keepdims=True)
    logs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return logs[np.arange(len(ids) - 1), ids[1:]], logits.argmax(axis=-1) == ids[1:]


def test_a_continuation_is_as_likely_as_the_product_of_its_tokens_and_its_leading_white_space_belongs_to_it(
    answers, model
):
    pairs = [("What is it? ", "red"), ("What is it?", " red"), ("What is it?", " blue"), ("", "red"), ("Else:", " no")]
    found = loglikelihoods(answers, pairs)
    encode = model.tokenizer.encode
    for (context, continuation), (log, is_greedy) in zip(pairs, found, strict=True):
        before = encode(context.rstrip()) if context else [BOS]
        ids = before + encode(context[len(context.rstrip()) :] + continuation)
        logs, hits = log_probabilities(model, ids)
        assert log == pytest.approx(logs[len(before) - 1 :].sum(), rel=1e-5)
        assert is_greedy == bool(hits[len(before) - 1 :].all())
    assert found[0] == pytest.approx(found[1])


def test_a_long_context_loses_its_beginning(answers, model):
    context, continuation = "a long context " * 6, "end"
    ((log, _),) = loglikelihoods(answers, [(context.rstrip(), continuation)])
    ids = model.tokenizer.encode(context.rstrip() + continuation)[-(LONGEST + 1) :]
    assert log == pytest.approx(log_probabilities(model, ids)[0][-3:].sum(), rel=1e-5)


def test_what_a_question_shares_goes_through_the_network_once(answers):
    answers = replace(answers, max_length=400)
    questions = [f"{word} question that is long, " * 5 + "so which?" for word in ("one", "another", "third")]
    rows = [
        module._row(answers, *module._encode_pair(answers, question, f" {choice}"), "row")
        for question in questions
        for choice in ("red", "green", "blue", "no")
    ]
    batches = list(module._batches(rows, share_prefix=True))
    assert sorted(i for batch in batches for i in batch) == list(range(12))
    assert sorted(map(sorted, batches)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert len(list(module._batches(rows, share_prefix=False))) == 1


def test_every_token_of_a_whole_text_is_predicted_once(answers, model):
    texts = ["short", "x" * LONGEST, "a text that is longer than the model takes, so it comes in windows " * 2, ""]
    found = rolling_loglikelihoods(answers, texts)
    for text, log in zip(texts[:2], found[:2], strict=True):
        logs, _ = log_probabilities(model, [BOS, *model.tokenizer.encode(text)])
        assert log == pytest.approx(logs.sum(), rel=1e-5)
    ids = [BOS, *model.tokenizer.encode(texts[2])]
    expected, done = 0.0, 1
    while done < len(ids):
        end = min(done + LONGEST, len(ids))
        logs, _ = log_probabilities(model, ids[max(0, end - LONGEST - 1) : end])
        expected, done = expected + logs[-(end - done) :].sum(), end
    assert found[2] == pytest.approx(expected, rel=1e-5)
    assert found[3] == 0.0


def test_an_answer_ends_before_what_the_task_says_ends_it(answers):
    settings = {"until": [], "max_gen_toks": 12}
    whole = answers_until(answers, [("What is it?", settings), ("x", settings)])
    sign = next(letter for letter in whole[0][1:] if letter.isascii())
    cut = answers_until(answers, [("What is it?", {**settings, "until": sign}), ("x", settings)])
    assert cut == [whole[0].split(sign)[0], whole[1]]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"repetition_penalty": 1.2}, "not known here: repetition_penalty"),
        ({"num_beams": 4}, "not known here: num_beams"),
        ({"do_sample": True, "temperature": 0.7, "top_p": 0.9}, "not known here: top_p"),
        ({"max_gen_toks": LONGEST}, f"up to {LONGEST} tokens; the model takes {LONGEST} with the question"),
    ],
    ids=str,
)
def test_a_way_to_answer_that_is_not_known_is_refused_by_name(answers, settings, told):
    with pytest.raises(DataError, match=told):
        answers_until(answers, [("x", settings)])


@pytest.mark.parametrize("settings", [{"num_beams": 1}, {"top_p": 1.0, "do_sample": False}, {"temperature": 0.0}])
def test_settings_that_change_nothing_of_the_likeliest_answer_are_passed_over(answers, settings):
    plain = {"max_tokens": 5}
    assert answers_until(answers, [("x", plain | settings)]) == answers_until(answers, [("x", plain)])


def test_a_continuation_that_cannot_be_scored_is_refused(answers):
    for pair in (("x", ""), ("x", "y" * (LONGEST + 1))):
        with pytest.raises(DataError, match=f"the model takes 1 to {LONGEST}"):
            loglikelihoods(answers, [pair])


def test_a_template_that_takes_no_system_message_gets_the_conversation_without_it(tmp_path):
    template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
        "[{{ m['role'] }}]{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}[answer]{% endif %}"
    )
    answers = make_answers(open_model(tiny_model_folder(tmp_path, chat_template=template), CPU_FLOAT32))
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Well?"}]
    assert chat_text(answers, turns) == "[user]Well?[answer]"
    begun = [*turns, {"role": "assistant", "content": "It is"}]
    assert chat_text(answers, begun, add_generation_prompt=False) == "[user]Well?[assistant]It is"


def test_the_longest_text_is_what_the_config_says_then_the_tokenizer(model):
    assert max_length_of(model) == LONGEST
    del model.config["max_position_embeddings"]
    assert max_length_of(model) == module.LONGEST
    model.config["n_positions"] = LONGEST
    assert max_length_of(model) == LONGEST
