"""One pass over rows tells what they say; rows that are faults are passed over."""

from mlxtune.data.example import Example, Message
from mlxtune.data.faults import Fault
from mlxtune.data.likeness.repeats import Repeat, find_repeats
from mlxtune.data.survey.survey import survey, text_of

GREETING = Message("system", "You are the assistant of a bank, and you answer in the language of the customer.")


def rows():
    yield Example(
        "chat", "rows.jsonl:1", messages=(GREETING, Message("user", "Где моя карта?"), Message("assistant", "yes"))
    )
    yield Fault("rows.jsonl:2", "not JSON")
    yield Example("chat", "rows.jsonl:3", messages=(GREETING, Message("user", "odd\u200b"), Message("assistant", "no")))
    yield Example("chat", "rows.jsonl:4", messages=(GREETING, Message("user", "odd\u200b"), Message("assistant", "no")))
    yield Example("chat", "rows.jsonl:5", messages=(GREETING, Message("user", "где"), Message("assistant", "yes")))


def test_repeats_classes_odd_characters_and_scripts_are_counted_at_once():
    found = survey(rows())
    assert find_repeats(found.fingerprints) == [Repeat("rows.jsonl:4", "rows.jsonl:3")]
    assert found.classes.counts == (("no", 2), ("yes", 2))
    assert [(oddity.kind, oddity.rows) for oddity in found.oddities] == [("invisible", 2)]


def test_progress_is_told_by_the_split_and_its_rows():
    told = []
    survey(rows(), name="rows.jsonl", total=4, progress=lambda *report: told.append(report))
    assert told[0] == ("look into rows.jsonl: rows", 0, 4)
    assert told[-1] == ("look into rows.jsonl: rows", 4, 4)


def test_a_system_message_does_not_hide_the_script_of_a_row():
    assert [written.places for written in survey(rows()).writing.scripts] == [("rows.jsonl:1",)]
    assert survey(rows()).writing.scripts[0].name == "Cyrillic"


def test_the_text_of_a_row_is_all_that_it_says_in_words():
    pair = Example(
        "preference",
        "rows.jsonl:1",
        messages=(Message("user", "Q"), Message("assistant", "A", thinking="T")),
        rejected=(Message("assistant", "R"),),
    )
    assert text_of(pair).split() == ["Q", "T", "A", "R"]
    assert text_of(Example("text", "rows.jsonl:1", text="all")).split() == ["all"]
