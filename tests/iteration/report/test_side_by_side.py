"""Answers are marked by what was wanted, and those that got worse are read first."""

from hypothesis import given
from hypothesis import strategies as st
from report_runs import sample

from mlxtune.iteration.report.side_by_side import MOST_WORDS, Piece, mark, pair_up

TASKS = [{"name": "triage", "primary": "correct"}]


def test_words_that_were_not_wanted_and_wanted_ones_that_are_missing_are_told_apart():
    assert mark("the red cat sat", "the black cat sat down") == [
        Piece("the "),
        Piece("black", "missing"),
        Piece("red", "extra"),
        Piece(" cat sat"),
        Piece(" down", "missing"),
    ]


def test_an_answer_as_wanted_has_no_marks():
    assert mark("as wanted", "as wanted") == [Piece("as wanted")]


def test_an_answer_with_little_in_common_is_left_alone():
    assert mark("completely different words here", "nothing alike") == [Piece("completely different words here")]


def test_a_script_without_spaces_is_marked_by_its_characters():
    assert mark("北京是首都", "东京是首都") == [Piece("东", "missing"), Piece("北", "extra"), Piece("京是首都")]


def test_a_very_long_answer_is_not_compared():
    long = "word " * MOST_WORDS
    assert mark(long, f"{long}end") == [Piece(long)]


@given(answer=st.text(max_size=60), wanted=st.text(max_size=60))
def test_nothing_of_an_answer_is_lost_or_added_and_the_wanted_text_can_be_read_off(answer, wanted):
    pieces = mark(answer, wanted)
    assert "".join(piece.text for piece in pieces if piece.kind != "missing") == answer
    if any(piece.kind == "missing" for piece in pieces):
        assert "".join(piece.text for piece in pieces if piece.kind != "extra") == wanted


def test_what_got_worse_comes_first_and_the_greatest_loss_before_the_others():
    scores = {"a": (0.0, 1.0), "b": (1.0, 0.5), "c": (1.0, 0.0), "d": (0.0, 0.0), "e": (1.0, 1.0), "f": (0.5, 0.5)}
    samples = [sample(name, "x", "y", scores=values) for name, values in scores.items()]
    pairs = pair_up(samples, TASKS)
    assert [(pair.sample["where"], pair.outcome) for pair in pairs] == [
        ("c", "worse"),
        ("b", "worse"),
        ("a", "better"),
        ("d", "wrong"),
        ("f", "same"),
        ("e", "right"),
    ]


def test_a_task_is_judged_by_its_primary_metric():
    one = sample("a", "x", "y")
    one["scores"] = {"base": {"valid": 1.0, "correct": 0.0}, "tuned": {"valid": 0.0, "correct": 1.0}}
    assert [pair.outcome for pair in pair_up([one], TASKS)] == ["better"]
    assert [pair.outcome for pair in pair_up([one], [])] == ["worse"]


def test_of_a_loss_less_is_better():
    one = sample("a", "x", "y")
    one["scores"] = {"base": {"loss": 2.0}, "tuned": {"loss": 1.0}}
    assert [pair.outcome for pair in pair_up([one], [])] == ["better"]


def test_a_sample_that_neither_was_scored_on_is_left_out():
    one = sample("a", "x", "y")
    one["scores"] = {"base": {}, "tuned": {}}
    assert pair_up([one], TASKS) == []
