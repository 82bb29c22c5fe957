"""Rows whose answer is a label: the network is asked for the tokens that training teaches, row by row."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from tiny import CHATML, VOCABULARY_SIZE, tiny_llama, tiny_tokenizer

from mlxtune.data.example import Example, Message
from mlxtune.data.render import Renderer
from mlxtune.errors import DataError
from mlxtune.evaluation import choosing
from mlxtune.evaluation.shots import with_shots
from mlxtune.evaluation.tasks import Task, check_task, run_task
from mlxtune.inference.choice import choose

LABELS = ("nay", "not", "yes", "yet")
MARK = "\nA:"
TASK = Task("decision", "choice", 0, MARK, labels=LABELS)


@pytest.fixture(scope="module")
def network():
    """One that finds the letters of labels likely, so that rows differ in what they choose."""
    network = tiny_llama(hidden=32, heads=2, kv_heads=1, tied=False)
    scale = np.full((VOCABULARY_SIZE, 1), 12.0, np.float32)
    network.lm_head.weight = network.lm_head.weight * mx.array(scale)
    return network


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    return {
        name: tiny_tokenizer(tmp_path_factory.mktemp(name), chat_template=template)
        for name, template in (("chat", CHATML), ("plain", None))
    }


def chat(question, answer, number):
    return Example("chat", f"rows.jsonl:{number}", (Message("user", question), Message("assistant", answer)))


def pair(question, answer, number):
    return Example(
        "prompt_completion", f"rows.jsonl:{number}", (Message("user", question), Message("assistant", answer))
    )


def text(question, answer, number):
    return Example("text", f"rows.jsonl:{number}", text=f"Q: {question}{MARK} {answer}")


def trained_likelihood(network, renderer, example):
    """The log-probability that the network gives to what would be learned of the row's answer."""
    row = renderer.render(example, "last_completion")
    start = len(renderer.prompt(example, MARK)[0])
    logits = np.array(network(mx.array([row.token_ids[:-1].tolist()])), np.float64)[0, start - 1 :]
    logits -= logits.max(-1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    return logits[np.arange(len(row.token_ids) - start), row.token_ids[start:]].sum()


QUESTIONS = [f"{word} {number}?" for number, word in enumerate(("Is it", "Why", "So", "Was there any", "Do") * 3)]


@pytest.mark.parametrize(
    ("form", "tokenizer"), [(chat, "chat"), (pair, "chat"), (pair, "plain"), (text, "chat"), (text, "plain")]
)
def test_a_row_gets_the_label_that_is_likeliest_as_its_learned_answer(network, tokenizers, form, tokenizer):
    renderer = Renderer(tokenizers[tokenizer])
    examples = [form(question, LABELS[i % 4], i) for i, question in enumerate(QUESTIONS)]
    result = run_task(network, tokenizers[tokenizer], examples, TASK)
    expected = []
    for i, question in enumerate(QUESTIONS):
        scores = [trained_likelihood(network, renderer, form(question, label, i)) for label in LABELS]
        expected.append(LABELS[int(np.argmax(scores))])
    assert [sample["output"] for sample in result.samples] == expected
    if tokenizer == "plain":  # a chat's last tokens are the same in all rows, and say most to so small a network
        assert len(set(expected)) > 1
    right = [found == LABELS[i % 4] for i, found in enumerate(expected)]
    assert result.metrics["accuracy"].value == pytest.approx(np.mean(right))
    assert result.metrics["accuracy"].is_rate
    assert np.array(result.details["confusion"]).trace() == sum(right)
    assert result.details["labels"] == list(LABELS)
    assert set(result.metrics) == {"accuracy", "macro_f1"}


def test_a_row_that_sets_its_answer_apart_otherwise_has_labels_with_tokens_of_its_own(network, tokenizers, monkeypatch):
    examples = [
        Example("text", f"rows.jsonl:{i}", text=f"Q: {question}{MARK}{space}yes")
        for i, (question, space) in enumerate(zip(QUESTIONS, (" ", "", "  ") * 2, strict=False))
    ]
    asked = {}

    def noting(reader, prompts, tokens, **how):
        asked.update({tuple(prompt): tokens for prompt in prompts})
        return choose(reader, prompts, tokens, **how)

    monkeypatch.setattr(choosing, "choose", noting)
    run_task(network, tokenizers["plain"], examples, TASK)
    renderer = Renderer(tokenizers["plain"])
    for example in examples:
        answered = [renderer.answered(example, label, MARK) for label in LABELS]
        assert asked[tuple(answered[0][0])] == tuple(tuple(own) for _, own in answered)


@pytest.mark.parametrize(("form", "tokenizer"), [(chat, "chat"), (text, "plain")])
def test_examples_before_a_row_change_what_it_asks_and_not_what_can_be_chosen(network, tokenizers, form, tokenizer):
    shots = (form("Is it so?", "yes", 90), form("Is it not?", "nay", 91))
    examples = [with_shots(form(question, "nay", i), shots) for i, question in enumerate(QUESTIONS[:4])]
    renderer = Renderer(tokenizers[tokenizer])
    prompt, own = renderer.answered(examples[0], "yes", MARK)
    assert prompt == renderer.prompt(examples[0], MARK)[0]
    assert own == renderer.answered(form("Is it?", "nay", 0), "yes", MARK)[1]
    result = run_task(network, tokenizers[tokenizer], examples, TASK)
    assert {sample["output"] for sample in result.samples} <= set(LABELS)


def test_a_few_rows_may_have_an_answer_that_no_training_row_has_and_are_wrong(network, tokenizers):
    examples = [chat(question, "yes", i) for i, question in enumerate(QUESTIONS)]
    examples[3] = chat("Why?", "perhaps", 3)
    check_task(tokenizers["chat"], examples, TASK, path=Path("rows.jsonl"))
    result = run_task(network, tokenizers["chat"], examples, TASK)
    assert result.metrics["accuracy"].sums[3, 0] == 0
    assert result.details["labels"] == [*LABELS, "perhaps"]


def test_many_such_rows_are_told_all_at_once(tokenizers):
    examples = [chat(question, "perhaps" if i % 3 else "yes", i) for i, question in enumerate(QUESTIONS)]
    with pytest.raises(DataError) as caught:
        check_task(tokenizers["chat"], examples, TASK, path=Path("rows.jsonl"))
    assert caught.value.message.count("'perhaps' is none of the 4 labels") == 10


def test_answers_with_thoughts_are_no_labels(tokenizers):
    thought = Message("assistant", "yes", thinking="Hm.")
    examples = [Example("chat", "rows.jsonl:1", (Message("user", "Is it?"), thought))]
    with pytest.raises(DataError, match=r"thoughts|leaves out"):
        check_task(tokenizers["chat"], examples, TASK, path=Path("rows.jsonl"))


def test_labels_that_are_one_to_the_tokenizer_are_refused_before_training(tokenizers, monkeypatch):
    monkeypatch.setattr(Renderer, "answered", lambda *asked: ([1], [*asked[2].lower().encode(), 2]))
    with pytest.raises(DataError, match="two of the labels are one"):
        check_task(
            tokenizers["chat"],
            [chat("Is it?", "yes", 1)],
            Task("decision", "choice", 0, MARK, labels=("yes", "YES")),
            path=Path("rows.jsonl"),
        )
