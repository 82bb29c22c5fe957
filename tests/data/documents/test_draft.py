"""Drafts: what of an answer becomes a row, and why the rest does not."""

import pytest

from mlxtune.data.documents.chunk import Chunk
from mlxtune.data.documents.draft import NO_LABEL, NO_PAIR, NO_QUESTION, TOO_LONG, Draft, drafts_from
from mlxtune.data.documents.grounded import (
    NOT_QUOTED,
    OTHER_NUMBER,
    OTHER_WORDS,
    check_grounded,
    find_quote,
    nearest_sentence,
)
from mlxtune.data.documents.seen import Seen

BODY = "Employees get 26 days of leave. Sick leave is separate.\nAsk the office in Hamburg for the form."
CHUNK = Chunk("# Leave\n\n" + BODY, "# Leave\n\n", 100, 100 + len(BODY), 30, ("# Leave",), None, None)


def drafts(task, answer, labels=()):
    return list(drafts_from(task, answer, CHUNK, labels))


def test_a_pair_that_is_borne_out_is_kept_with_the_place_of_its_quote():
    (draft,) = drafts("qa", "Question: How many days?\nAnswer: 26 days\nQuote: employees get 26 DAYS, of leave.")
    assert (draft.prompt, draft.completion) == ("How many days?", "26 days")
    assert BODY[slice(*draft.quote)] == "Employees get 26 days of leave"


def test_a_pair_without_a_quote_gets_the_sentence_that_is_nearest():
    (draft,) = drafts("qa", "**Question 1:** Where is the form?\n**Answer:** The office in Hamburg has the form.")
    assert BODY[slice(*draft.quote)] == "Ask the office in Hamburg for the form."


@pytest.mark.parametrize(
    ("task", "answer", "reason"),
    [
        ("qa", "I cannot say.", NO_PAIR),
        ("qa", "Question: How many?\nQuote: x", NO_PAIR),
        ("qa", "Question: 26 days.\nAnswer: 26 days", NO_QUESTION),
        ("qa", "Question: How many?\nAnswer: 27 days", OTHER_NUMBER),
        ("qa", "Question: How many?\nAnswer: Unlimited vacation allowance", OTHER_WORDS),
        ("qa", "Question: How many?\nAnswer: 26 days\nQuote: There are 26 days.", NOT_QUOTED),
        ("summarize", BODY + BODY, TOO_LONG),
        ("summarize", "Pirates sail across oceans.", OTHER_WORDS),
        ("classify", "neither", NO_LABEL),
        ("classify", "leave or pay", NO_LABEL),
    ],
)
def test_what_is_dropped_has_its_reason(task, answer, reason):
    (dropped,) = drafts(task, answer, ("leave", "pay"))
    assert dropped.reason == reason


def test_the_longer_of_two_labels_is_meant_where_one_is_part_of_the_other():
    (draft,) = drafts("classify", "Label: Sick Leave.", ("leave", "sick leave"))
    assert isinstance(draft, Draft)
    assert draft.completion == "sick leave"


def test_several_pairs_are_told_apart():
    answer = "1. Question: How many days?\nAnswer: 26\n\n2. Question: Who has the form?\nAnswer: The office"
    assert [draft.completion for draft in drafts("qa", answer)] == ["26", "The office"]


def test_a_quote_is_found_over_line_ends_and_not_inside_words():
    assert find_quote("separate ask the", BODY) is not None
    assert find_quote("mburg", BODY) is None
    assert find_quote("...", BODY) is None


def test_short_answers_have_to_occur_whole():
    assert check_grounded("no", "yes and nobody") == OTHER_WORDS
    assert check_grounded("yes", "yes and nobody") == ""


def test_the_nearest_sentence_is_never_cut_at_a_decimal_point():
    text = "It costs 2.5 euros a day. It rains."
    assert text[slice(*nearest_sentence("2.5 euros", text))] == "It costs 2.5 euros a day."


def test_texts_that_say_the_same_are_met_once():
    seen = Seen()
    long = " ".join(f"word{n}" for n in range(60))
    assert [seen.is_new(text) for text in ("How many?", "how  many?", "Who?", long, long + " more", "")] == [
        True,
        False,
        True,
        True,
        False,
        False,
    ]
