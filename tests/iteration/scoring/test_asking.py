"""What an untuned model is asked: its prompts, token by token, and the likelihoods that are left out with a reason."""

from dataclasses import replace
from pathlib import Path

import pytest
from tiny import CHATML, tiny_model_folder, write_tokenizer

from mlxtune.data.example import Example, Message
from mlxtune.data.render import Renderer
from mlxtune.errors import DataError
from mlxtune.evaluation.tasks import Task
from mlxtune.iteration.scoring.asking import ask_untuned, context_of
from mlxtune.models.tokenizer import open_tokenizer
from mlxtune.recipe.schema import DataSettings

MARK = "\nA:"
TASKS = [Task("task", "exact_match", max_tokens=4, answer_after=MARK)]
SHAPE = {"hidden": 32, "heads": 2, "kv_heads": 1}
PATH = Path("test.jsonl")


def chat(question, answer, system=None):
    before = [Message("system", system)] if system else []
    return Example("chat", "test.jsonl:1", (*before, Message("user", question), Message("assistant", answer)))


def text(question, answer):
    return Example("text", "test.jsonl:1", text=f"Q: {question}{MARK} {answer}")


def pair(prompt, completion):
    return Example("prompt_completion", "test.jsonl:1", (Message("user", prompt), Message("assistant", completion)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model_folder(tmp_path_factory.mktemp("models") / "chatty", **SHAPE)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return tiny_model_folder(tmp_path_factory.mktemp("models") / "plain", chat_template=None, **SHAPE)


def ask(folder, examples, shots=(), tasks=TASKS, *, is_base=False, is_cut=False, **data):
    settings = DataSettings.model_validate({"train": "-", **data})
    return ask_untuned(folder, examples, shots, tasks, settings, is_base=is_base, is_cut=is_cut, path=PATH)


def prompts(folder, asked):
    tokenizer = open_tokenizer(folder, asked.template)
    return [tokenizer.decode(Renderer(tokenizer).prompt(example, MARK)[0]) for example in asked.examples]


def test_examples_come_as_turns_before_the_question(folder):
    asked = ask(folder, [chat("Three", "3", system="Count.")], [chat("One", "1"), chat("Two", "2")])
    turn = "<|im_start|>{}\n{}<|im_end|>\n"
    turns = [("system", "Count."), ("user", "One"), ("assistant", "1"), ("user", "Two"), ("assistant", "2")]
    expected = "".join(turn.format(*one) for one in [*turns, ("user", "Three")]) + "<|im_start|>assistant\n"
    assert prompts(folder, asked) == [expected]


def test_the_likelihood_is_of_the_rows_own_answer_whatever_stands_before_it(folder):
    alone = ask(folder, [chat("Three", "three")])
    shown = ask(folder, [chat("Three", "three")], [chat("One", "one"), chat("Two", "two")])
    learned = [row.token_ids[row.is_target].tolist() for one in (alone, shown) for row in one.rendered]
    assert learned[0] == learned[1]
    assert len(shown.rendered[0].token_ids) > len(alone.rendered[0].token_ids)


def test_text_rows_have_their_examples_as_text_and_then_no_likelihood(folder):
    asked = ask(folder, [text("Three", "3")], [text("One", "1"), text("Two", "2")])
    assert prompts(folder, asked) == [f"Q: One{MARK} 1\n\nQ: Two{MARK} 2\n\nQ: Three{MARK}"]
    assert not asked.rendered
    assert asked.notes[0].startswith("no likelihood (loss, bits per byte, token accuracy): prompts are learned too")
    assert ask(folder, [text("Three", "3")]).rendered


def test_where_prompts_are_learned_examples_take_the_likelihood(folder):
    rows, shots = [chat("Three", "3")], [chat("One", "1")]
    assert ask(folder, rows, shots).rendered
    assert not ask(folder, rows, shots, train_on="everything").rendered


def test_words_of_another_models_template_are_no_likelihood_that_compares(folder):
    rows = [chat("Three", "3")]
    asked = ask(folder, rows, train_on="everything")
    assert not asked.rendered
    assert asked.notes[0].endswith(
        "prompts are learned too (train_on: everything), in the words of each model's own template"
    )
    assert ask(folder, rows, train_on="everything", is_base=True).rendered
    assert ask(folder, [text("Three", "3")], train_on="everything").rendered


def test_a_system_message_that_is_refused_stands_once_at_the_very_top(tmp_path):
    strict = tiny_model_folder(tmp_path / "strict", **SHAPE)
    refuses = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    write_tokenizer(strict, chat_template=refuses + CHATML.replace("You are small.", ""))
    rows = [chat("Zero", "0"), chat("Three", "3", system="Count.")]
    asked = ask(strict, rows, [chat("One", "1", system="Count.")])
    users = [[turn.content for turn in row.messages if turn.role == "user"] for row in asked.examples]
    assert users == [["One", "Zero"], ["Count.\n\nOne", "Three"]]
    assert len(prompts(strict, asked)) == len(asked.rendered) == 2
    assert asked.notes == ("its chat template refuses system messages: they stand at the top of the first question",)


def test_rows_that_the_tuned_model_sees_cut_have_no_likelihood_that_compares(folder):
    assert not ask(folder, [chat("Three", "3")], is_cut=True).rendered


def test_nothing_left_to_compare_is_an_error(folder):
    with pytest.raises(DataError, match="there is nothing to compare: prompts are learned too"):
        ask(folder, [text("Three", "3")], [text("One", "1")], tasks=[])


def test_a_prompt_and_its_completion_go_in_sequence_where_there_is_no_template(plain):
    asked = ask(plain, [pair("3 = ", "III")], [pair("1 = ", "I"), pair("2 = ", "II")])
    assert prompts(plain, asked) == ["1 = I\n\n2 = II\n\n3 = "]
    assert asked.template is None
    assert not asked.notes


def test_a_chat_is_asked_by_the_recipes_template_where_the_model_has_none(plain, tmp_path):
    own = tmp_path / "own.jinja"
    own.write_text(CHATML.replace("You are small.", "Be brief."))
    asked = ask(plain, [chat("Three", "3")], chat_template=str(own))
    assert asked.template == own
    assert "Be brief." in prompts(plain, asked)[0]


def test_the_base_is_asked_by_the_template_that_it_was_tuned_with(folder):
    rows = [chat("Three", "3")]
    by_own, as_tuned = ask(folder, rows), ask(folder, rows, is_base=True, chat_template="instruction")
    assert (by_own.template, as_tuned.template) == (None, "instruction")
    assert prompts(folder, by_own) != prompts(folder, as_tuned)


def test_a_row_that_the_template_refuses_is_told_with_its_place(folder):
    row = replace(chat("Why?", "so"), messages=(Message("assistant", "so"),))
    with pytest.raises(DataError) as caught:
        ask(folder, [row])
    assert caught.value.where == "test.jsonl:1"


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        ('{"max_position_embeddings": 8}', 8),
        ('{"text_config": {"max_position_embeddings": 9}}', 9),
        ("{}", None),
        ('{"max_position_embeddings": null}', None),
        ('{"max_position_embeddings": "many"}', None),
        ('{"text_config": null}', None),
    ],
)
def test_the_context_is_what_the_config_says(tmp_path, config, longest):
    (tmp_path / "config.json").write_text(config)
    assert context_of(tmp_path) == longest
