"""The probe asked of tiny networks: choices by likelihood, answers by writing, text by bits, all told row by row."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from tiny import CHATML, tiny_llama, tiny_tokenizer

from mlxtune.evaluation.forgetting import ask
from mlxtune.evaluation.forgetting.ask import Known, ask_all, choose, read_passages, write
from mlxtune.evaluation.forgetting.probe import Question, passages
from mlxtune.evaluation.forgetting.rules import Rule
from mlxtune.inference.likelihood import make_reader
from mlxtune.models.load import Model

CHOICES = (
    Question("a", "facts", "Which?", ("yes.", "no.", "perhaps not.")),
    Question("b", "arithmetic", "What is 1 + 1?", rule=Rule(contains=("2",))),
    Question("c", "facts", "And?", ("one", "two")),
)


@pytest.fixture(scope="module", params=[CHATML, None], ids=["chat template", "plain"])
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    return Model(tiny_llama(), tiny_tokenizer(folder, chat_template=request.param), {}, folder)


def log_likelihood(model, prompt, answer):
    """Of ``answer`` after ``prompt``, both token ids, from whole logits in numpy."""
    import mlx.core as mx

    ids = [*prompt, *answer]
    logits = np.array(model.network(mx.array([ids]))[0], np.float64)
    log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return sum(log_p[i - 1, ids[i]] for i in range(len(prompt), len(ids)))


def test_the_likeliest_whole_answer_is_chosen_its_end_included(model):
    tokenizer, end = model.tokenizer, "<|im_end|>"
    found = choose(model, make_reader(model.network), CHOICES)
    assert found.keys() == {0, 2}
    for i in found:
        question = CHOICES[i]
        if tokenizer.has_chat_template:
            turn = [{"role": "user", "content": question.ask}]
            prompt = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
            answers = question.answers
        else:
            prompt, answers = f"Question: {question.ask}\nAnswer:", [f" {answer}" for answer in question.answers]
        encoded = [tokenizer.encode(answer + end, add_special_tokens=False) for answer in answers]
        scores = [log_likelihood(model, tokenizer.encode(prompt, add_special_tokens=False), ids) for ids in encoded]
        assert found[i] == question.answers[int(np.argmax(scores))]


def test_a_network_that_says_no_numbers_knows_nothing(model, monkeypatch):
    no_numbers = SimpleNamespace(loss_sum=np.full(5, math.nan))
    monkeypatch.setattr(ask, "read_heldout", lambda *_, **__: no_numbers)
    found = choose(model, make_reader(model.network), CHOICES)
    assert found == {0: "perhaps not.", 2: "two"}


def test_only_questions_without_answers_to_choose_from_are_written_to(model, monkeypatch):
    monkeypatch.setattr(ask, "USUAL_TOKENS", 3)
    found = write(model, CHOICES)
    assert found.keys() == {1}
    assert len(found[1]) <= 3


def test_bits_per_byte_is_of_the_passages_own_bytes(model):
    texts = passages()[:3]
    found = read_passages(model, make_reader(model.network), texts)
    # The first token of a row is foretold by nothing: here it is one byte.
    assert found.sums[:, 1].tolist() == [len(text.text.encode()) - 1 for text in texts]
    ids = model.tokenizer.encode(texts[0].text, add_special_tokens=False)
    nats = -log_likelihood(model, ids[:1], [*ids[1:], 2])
    assert found.sums[0, 0] == pytest.approx(nats / math.log(2), rel=1e-4)


def test_what_is_known_is_kept_and_read_back(model, monkeypatch):
    monkeypatch.setattr(ask, "questions", lambda: CHOICES)
    monkeypatch.setattr(ask, "passages", lambda: passages()[:2])
    monkeypatch.setattr(ask, "USUAL_TOKENS", 2)
    found = ask_all(model)
    again = Known.from_json(found.to_json())
    assert (again.said, again.seconds) == (found.said, found.seconds)
    assert again.right.sums.tolist() == found.right.sums.tolist()
    assert found.right.rows.tolist() == [0, 1, 2]
    right = [
        said == question.answers[0] for said, question in zip(found.said, CHOICES, strict=True) if question.answers
    ]
    assert [found.right.sums[0, 0], found.right.sums[2, 0]] == right
