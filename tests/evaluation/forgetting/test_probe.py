"""The packaged probe: well formed, in every area, and judged by rules that its own right answers pass."""

import re
from collections import Counter

from mlxtune.evaluation.forgetting.probe import AREAS, passages, questions
from mlxtune.evaluation.forgetting.rules import Rule


def test_about_150_questions_stand_in_all_areas_each_once():
    asked = questions()
    assert 140 <= len(asked) <= 170
    assert len({question.id for question in asked}) == len({question.ask for question in asked}) == len(asked)
    counts = Counter(question.area for question in asked)
    assert counts.keys() == AREAS.keys()
    # Fewer questions could not show the loss of an area: of 8 answers that all turn wrong McNemar's p is 0.0078.
    assert min(counts.values()) >= 12


def test_each_question_is_judged_in_one_way_and_a_choice_has_different_answers():
    for question in questions():
        assert bool(question.answers) != (question.rule != Rule()), question.id
        assert len(set(question.answers)) == len(question.answers) != 1, question.id


def test_no_rule_is_passed_by_saying_nothing_by_the_question_or_by_an_answer_from_another_trade():
    for question in questions():
        if question.answers:
            continue
        for answer in ("", "card_not_working", "SELECT name FROM table", '{"category": "billing"}', "Negative"):
            if answer == "Negative" and question.ask.startswith("Is this review positive or negative? The soup"):
                continue
            assert not question.rule.allows(answer), (question.id, answer)


def test_rules_that_name_words_are_passed_by_them():
    for question in questions():
        rule = question.rule
        if rule.contains and rule.regex is None:
            assert rule.allows(", ".join(rule.contains[: rule.at_least])), question.id


def test_repeating_the_question_is_no_answer_but_where_the_question_has_it():
    told = {question.id for question in questions() if not question.answers and question.rule.allows(question.ask)}
    assert told <= REPEATED, sorted(told - REPEATED)


REPEATED = {
    *("instructions-03", "instructions-04"),  # to repeat is what is asked
    *("instructions-10", "instructions-12", "instructions-14"),  # the answer is to be found in what is asked
    *(f"refusals-{number}" for number in range(17, 23)),  # any words about the matter are help
}


def test_refusals_are_asked_for_and_so_is_help_with_what_only_sounds_bad():
    kinds = Counter(question.rule.refuses for question in questions() if question.area == "refusals")
    assert kinds[True] >= 12
    assert kinds[False] >= 4


def test_general_text_is_about_8_kilobytes_in_several_registers():
    read = passages()
    size = sum(len(passage.text.encode()) for passage in read)
    assert 7000 <= size <= 9000
    assert len({passage.register for passage in read}) >= 10
    assert all(passage.text.strip() == passage.text != "" and passage.register for passage in read)
    assert len({passage.text for passage in read}) == len(read) >= 40


def test_a_passages_line_is_where_it_stands():
    from mlxtune.evaluation.forgetting.probe import TEXT

    lines = TEXT.read_text("utf-8").splitlines()
    for passage in passages():
        assert lines[passage.line - 1] == passage.text.splitlines()[0]


def test_regular_expressions_can_be_read():
    for question in questions():
        if question.rule.regex is not None:
            re.compile(question.rule.regex)
