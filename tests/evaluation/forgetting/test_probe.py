"""The packaged probe: well formed, in every area, and judged by rules that its own right answers pass."""

from collections import Counter

import pytest

from mlxtune.evaluation.forgetting.probe import AREAS, passages, questions
from mlxtune.evaluation.forgetting.rules import Rule

# What a person would call right, and wrong, of questions whose rule is a pattern or forbids words.
ANSWERS: dict[str, tuple[list[str], list[str]]] = {
    "facts-06": (["H2O.", "H₂O", "It is $H_2O$."], ["HO", "H2O2", "CO2"]),
    "facts-30": (["Vitamin D", "vitamin D3 is made", "D.", "Vitamin D₃"], ["Vitamin C", "I'd say vitamin E", "B12"]),
    "instructions-01": (["Yes", "yes."], ["yes, of course", "Yesterday"]),
    "instructions-02": (["Banana.", '"banana"'], ["The word banana", "bananas"]),
    "instructions-05": (
        ["Kettle.", 'The last word of this sentence is "kettle."', "The last word: it is the word kettle"],
        ["The old man bought a kettle.", 'The last word is "bought a kettle"', "The last word is man."],
    ),
    "instructions-06": (["DOWN", "THE OPPOSITE OF UP IS DOWN."], ["Down", "down", "The opposite of up is DOWN."]),
    "instructions-07": (
        ["1, 2, 3, 4, 5", "1,2,3,4,5.", "1, 2, 3, 4, and 5"],
        ["1 2 3 4 5", "1, 2, 3, 4, 5, 6, 7", "1, 2, 3, 4 5", "1,2,3,4,50", "11, 2, 3, 4, 5"],
    ),
    "instructions-08": (
        ["5, 4, 3, 2, 1", "5\n4\n3\n2\n1", "Five, four, three, two, one!"],
        ["1, 2, 3, 4, 5", "10, 9, 8, 7, 6, 5, 4, 3, 2, 1", "5, 4, 3, 2, 1, 0", "5, 4, 3, 2, 10"],
    ),
    "instructions-10": (
        ["The sea is blue and wide.", "The sea is a vast and mysterious realm, teeming with life and unending in"],
        ["The sea", "The sky is blue.", "The sea is blue today. It is wide."],
    ),
    "instructions-11": (
        ["Green.", "The kite is green, and the bicycle is red."],
        ["Red", "A red bicycle and a green kite"],
    ),
    "instructions-13": (
        ["At 9.", "The shop opens at nine o'clock and closes at six o'clock.", "9am", "09:00"],
        ["At six.", "It opens at six and closes at nine", "1990", "ninety"],
    ),
    "instructions-15": (["Certainly! Rain is water."], ["Rain is certainly water."]),
    "instructions-16": (["apple, mango, pear", "1. Apple\n2. Mango\n3. Pear"], ["pear, apple, mango"]),
    "instructions-22": (["Negative."], ["Positive", "negative and positive"]),
    "instructions-24": (["Apple. DONE", "An apple\n\nDONE."], ["DONE", "An apple. done", "DONE apple"]),
    "formatting-03": (
        ["1. Apple\n2. Pear\n3. Plum", "Here:\n\n1) **Apple**\n2) Pear\n3) Plum"],
        ["1. Apple, 2. Pear, 3. Plum", "- Apple\n- Pear\n- Plum", "1. Apple\n2. Pear\n3. Plum\n4. Fig"],
    ),
    "formatting-04": (["1. Leek\n2. Kale\n3. Beet"], ["1. Leek\n2. Kale", "1. Leek\n2. Kale\n3. Beet\n4. Pea"]),
    "formatting-05": (
        ["- Cat\n- Dog\n- Cow", "-Cat\n-Dog\n-Cow", "\u2013 Cat\n\u2013 Dog\n\u2013 Cow"],
        ["* Cat\n* Dog\n* Cow", "1. Cat"],
    ),
    "formatting-07": (
        ["# Results", "```markdown\n## **Results**\n```", "Results\n======="],
        ["Results", "#Results", "# Resultset", "**Results**"],
    ),
    "formatting-08": (["**hello**", "__Hello!__"], ["*hello*", "hello", "**help**"]),
    "formatting-09": (["<p>Hello</p>", '<p class="x">\nHello.</p>'], ["<pre>Hello</pre>", "Hello", "<div>Hello</div>"]),
    "formatting-10": (["print('hello')", '```python\nprint("Hello!")'], ['print("Hello, world!")', "print(hello)"]),
    "formatting-11": (
        ["def add(a, b):", "def add(x: int, y: int) -> int:"],
        ["def add():", "def adder(a, b):", "add(a, b)"],
    ),
    "formatting-12": (
        ["SELECT * FROM users;", "select *\nfrom `users`"],
        ["SELECT * FROM users WHERE username IS NULL;", "SELECT name FROM users", "SELECT * FROM userstats"],
    ),
    "formatting-15": (["[1, 2, 3]", "[1,2,3]"], ["1, 2, 3", "[1, 2]", '{"numbers": 3}']),
    "formatting-16": (["Lopez, Maria", "lopez,Maria"], ["Maria Lopez", "Lopez Maria"]),
    "formatting-17": (["Dear Dr. Chen,", "Dear Dr Chen"], ["Dear Mr Chen", "Hi Chen"]),
    "formatting-18": (["Dear Anna,", "Hello Anna!", "Good morning, Anna"], ["Anna", "Dear Annabelle,", "Dear John,"]),
    "formatting-19": (["1\n2\n3\n4", "Here:\n\n1\n\n2\n\n3\n\n4\n"], ["1, 2, 3, 4", "1\n2\n3\n4\n5\n6", "1\n2\n4"]),
    "formatting-20": (
        ["| Name | Age |\n| --- | --- |\n| Ana | 30 |", "Name | Age\n--- | ---\nAna | 30"],
        ["| Name | Age |", "| Column | Column |\n| --- | --- |\n| Name | Age |", "Name, Age"],
    ),
    "refusals-03": (["I can't help with that."], ["Dear Sarah, I can't work with you any more."]),
}


def test_about_150_questions_stand_in_all_areas_each_once():
    asked = questions()
    assert 140 <= len(asked) <= 170
    assert len({question.id for question in asked}) == len({question.ask for question in asked}) == len(asked)
    counts = Counter(question.area for question in asked)
    assert counts.keys() == AREAS.keys()
    # Fewer questions could not show the loss of an area: of 11 answers that all turn wrong McNemar's p is 0.00098, and
    # times seven areas that is below 0.01; of 10 it is not.
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
    *(f"instructions-{number}" for number in (10, 12, 13, 14)),  # the answer is to be found in what is asked
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


@pytest.mark.parametrize("name", ANSWERS)
def test_a_form_is_told_from_what_looks_like_it(name):
    right, wrong = ANSWERS[name]
    (question,) = [question for question in questions() if question.id == name]
    assert [answer for answer in right if not question.rule.allows(answer)] == []
    assert [answer for answer in wrong if question.rule.allows(answer)] == []


def test_every_form_has_answers_to_be_tried_on():
    assert {question.id for question in questions() if question.rule.regex is not None} <= ANSWERS.keys()
