"""Answers are classes where they are short and come again; else there are none."""

from mlxtune.data.example import Example, Message, ToolCall
from mlxtune.data.survey.classes import LONGEST, MOST_CLASSES, ClassCounter, answer_of


def answering(answer, kind="chat"):
    return Example(kind, "rows.jsonl:1", messages=(Message("user", "?"), Message("assistant", answer)))


def classes_of(answers):
    counter = ClassCounter()
    for answer in answers:
        counter.add(answering(answer))
    return counter.classes()


def test_classes_are_counted_the_most_frequent_first():
    classes = classes_of(["yes", "no", "yes ", "maybe", "yes", "no"])
    assert classes.counts == (("yes", 3), ("no", 2), ("maybe", 1))
    assert classes.rows == 6
    assert classes.most_share == 3 / 6


def test_answers_that_hardly_repeat_or_are_all_the_same_or_long_are_no_classes():
    assert classes_of(["a", "b", "c", "a", "b"]) is None  # five rows, three answers
    assert classes_of(["same"] * 10) is None
    assert classes_of(["x" * (LONGEST + 1), "y"] * 10) is None
    assert classes_of([]) is None


def test_counting_ends_where_there_are_too_many_answers():
    answers = [str(number) for number in range(MOST_CLASSES)] * 2
    assert len(classes_of(answers).counts) == MOST_CLASSES
    assert classes_of([*answers, "one more"] * 2) is None


def test_text_pairs_and_calls_have_no_answer_of_their_own():
    assert answer_of(Example("text", "rows.jsonl:1", text="yes")) is None
    assert answer_of(answering("yes", kind="preference")) is None
    call = Message("assistant", "", tool_calls=(ToolCall("look", {}),))
    assert answer_of(Example("chat", "rows.jsonl:1", messages=(Message("user", "?"), call))) is None
    assert answer_of(answering(" yes\n")) == "yes"
