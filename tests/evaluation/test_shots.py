"""Examples in a prompt: from the training data only, never what a held-out row asks, the same for all rows."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxtune.data.example import Example, Message
from mlxtune.data.faults import Fault
from mlxtune.errors import DataError
from mlxtune.evaluation.shots import choose_shots, hash_of_shots, with_shots

MARK = "\nA:"


def chat(question, answer, system=None, number=1):
    turns = [Message("user", question), Message("assistant", answer)]
    before = [Message("system", system)] if system else []
    return Example("chat", f"train.jsonl:{number}", (*before, *turns))


def text(question, answer):
    return Example("text", "train.jsonl:1", text=f"Q: {question}{MARK} {answer}")


TRAIN = [chat(f"Question {number}", f"answer {number % 3}", number=number) for number in range(60)]
HELD_OUT = [chat(f"Asked {number}", "answer") for number in range(5)]


def choose(train=TRAIN, count=4, seed=7, held_out=HELD_OUT):
    return choose_shots(train, count, seed=seed, held_out=held_out, answer_after=MARK)


def test_examples_are_rows_of_the_training_data():
    assert all(shot in TRAIN for shot in choose())
    assert len(set(choose())) == 4


@given(seed=st.integers(0, 1000), leaked=st.sets(st.integers(0, 59), max_size=55))
def test_what_a_held_out_row_asks_is_never_an_example_though_the_training_data_has_it_too(seed, leaked):
    held_out = [*HELD_OUT, *(TRAIN[number] for number in sorted(leaked))]
    chosen = choose(seed=seed, held_out=held_out)
    assert not {shot.messages[0].content for shot in chosen} & {row.messages[0].content for row in held_out}


def test_not_even_with_another_answer():
    other = chat("Question 1", "something else")
    with pytest.raises(DataError, match="1 examples are wanted, and the training data has 0 rows"):
        choose(train=[chat("Question 1", "answer 1")], count=1, held_out=[other])


def test_not_even_under_another_system_message_which_no_example_has():
    asked = chat("Question 1", "answer 1", system="Be brief.")
    with pytest.raises(DataError, match="has 0 rows"):
        choose(
            train=[chat("Question 1", "answer 1"), chat("Question 1", "answer 1", "Be long.")],
            count=1,
            held_out=[asked],
        )


def test_a_seed_and_what_rows_say_decide_and_not_their_order_or_where_they_stand():
    moved = [replace(row, where="elsewhere.jsonl:9") for row in reversed(TRAIN)]
    assert [shot.messages for shot in choose(moved)] == [shot.messages for shot in choose()]
    assert choose(seed=8) != choose(seed=7)
    assert hash_of_shots(choose(moved)) == hash_of_shots(choose()) != hash_of_shots(choose(seed=8))


def test_each_answer_is_shown_once_before_any_is_shown_twice():
    for seed in range(20):
        answers = [shot.messages[-1].content for shot in choose(seed=seed)]
        assert len(set(answers[:3])) == 3


def test_a_question_that_stands_twice_is_shown_once():
    train = [chat("Question", f"answer {number}") for number in range(9)] + [chat("Other", "answer")]
    assert {shot.messages[0].content for shot in choose(train, count=2)} == {"Question", "Other"}


def test_faults_and_rows_of_another_kind_are_passed_over():
    train = [Fault("train.jsonl:1", "no row"), text("Why?", "so"), replace(TRAIN[0], kind="preference"), TRAIN[1]]
    assert choose(train, count=1) == (TRAIN[1],)


def test_too_few_rows_are_told_with_how_many_there_are():
    with pytest.raises(DataError, match="61 examples are wanted, and the training data has 60 rows") as caught:
        choose(count=61)
    assert caught.value.remedy == "ask for 60 or fewer (--shots)"


def test_texts_and_chats_together_have_no_one_set_of_examples():
    with pytest.raises(DataError, match="some held-out rows are texts and some are chats"):
        choose(held_out=[HELD_OUT[0], text("Why?", "so")])


def test_examples_are_turns_between_the_rows_own_system_message_and_its_question():
    shots = [chat("One", "1", system="Theirs."), chat("Two", "2")]
    shown = with_shots(chat("Three", "3", system="Mine."), shots)
    assert [(turn.role, turn.content) for turn in shown.messages] == [
        ("system", "Mine."),
        ("user", "One"),
        ("assistant", "1"),
        ("user", "Two"),
        ("assistant", "2"),
        ("user", "Three"),
        ("assistant", "3"),
    ]
    assert [turn.weight for turn in shown.messages if turn.role == "assistant"] == [0, 0, 1]


def test_thoughts_of_examples_are_left_out_and_the_rows_own_stay():
    thoughtful = replace(chat("One", "1"), messages=(Message("user", "One"), Message("assistant", "1", thinking="Hm.")))
    shown = with_shots(replace(thoughtful, where="test.jsonl:1"), [thoughtful])
    assert [turn.thinking for turn in shown.messages] == ["", "", "", "Hm."]


def test_a_text_row_has_its_examples_before_it_and_stays_the_text_it_is():
    row = text("Three", "3")
    shown = with_shots(row, [text("One", "1"), text("Two", "2")])
    assert shown.preface == f"Q: One{MARK} 1\n\nQ: Two{MARK} 2\n\n"
    assert shown.text == row.text


def test_a_prompt_and_its_completion_in_sequence_have_examples_in_sequence():
    row = Example("prompt_completion", "test.jsonl:1", (Message("user", "3 = "), Message("assistant", "III")))
    shot = Example("prompt_completion", "train.jsonl:1", (Message("user", "1 = "), Message("assistant", "I")))
    shown = with_shots(row, [shot], is_joined=True)
    assert [turn.content for turn in shown.messages] == ["1 = I\n\n3 = ", "III"]


def test_no_examples_leave_a_row_as_it_is():
    assert with_shots(HELD_OUT[0], ()) is HELD_OUT[0]
