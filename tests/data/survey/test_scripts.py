"""Rows in another script or language than most are found; what cannot be told is not guessed."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxtune.data.survey.languages import language_of
from mlxtune.data.survey.scripts import LEAST_LETTERS, WritingCounter, Written, letters_by_script, script_of

# Article 1 of the Universal Declaration of Human Rights, as the United Nations publish it.
ARTICLE_1 = {
    "English": "All human beings are born free and equal in dignity and rights. They are endowed with reason and"
    " conscience and should act towards one another in a spirit of brotherhood.",
    "German": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen"
    " begabt und sollen einander im Geist der Brüderlichkeit begegnen.",
    "French": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de"
    " conscience et doivent agir les uns envers les autres dans un esprit de fraternité.",
    "Spanish": "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de razón y"
    " conciencia, deben comportarse fraternalmente los unos con los otros.",
    "Italian": "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti. Essi sono dotati di ragione e di"
    " coscienza e devono agire gli uni verso gli altri in spirito di fratellanza.",
    "Portuguese": "Todos os seres humanos nascem livres e iguais em dignidade e em direitos. Dotados de razão e de"
    " consciência, devem agir uns para com os outros em espírito de fraternidade.",
    "Dutch": "Alle mensen worden vrij en gelijk in waardigheid en rechten geboren. Zij zijn begiftigd met verstand en"
    " geweten, en behoren zich jegens elkander in een geest van broederschap te gedragen.",
}


@pytest.mark.parametrize("language", ARTICLE_1)
def test_a_sentence_is_told_by_its_common_words(language):
    assert language_of(ARTICLE_1[language]) == language


@pytest.mark.parametrize(
    "text",
    [
        "",
        "card_arrival",
        "SELECT name FROM cities WHERE population > 1000",
        "Kaikki ihmiset syntyvät vapaina ja tasavertaisina arvoltaan ja oikeuksiltaan.",
        "a no as so do me",
    ],
)
def test_what_cannot_be_told_is_not_guessed(text):
    assert language_of(text) is None


@pytest.mark.parametrize(
    ("letters", "script"),
    [
        ("aéß", "Latin"),
        ("Жя", "Cyrillic"),
        ("αΩ", "Greek"),
        ("漢かカ", "Han and kana"),
        ("한", "Hangul"),
        ("ع", "Arabic"),
        ("क", "Devanagari"),
        ("1 .\n😀ª𝒜ａ", None),
    ],
)
def test_letters_belong_to_scripts_and_nothing_else_does(letters, script):
    assert {script_of(letter) for letter in letters} == {script}


@given(text=st.text())
def test_letters_are_counted_one_by_one(text):
    wanted = Counter(script for script in map(script_of, text) if script is not None)
    assert +letters_by_script(text) == wanted


def test_rows_are_counted_by_script_and_language_and_named():
    counter = WritingCounter()
    for line, language in enumerate(("English", "English", "German"), start=1):
        counter.add(f"rows.jsonl:{line}", ARTICLE_1[language])
    counter.add("rows.jsonl:4", "люди рождаются свободными и равными")
    counter.add("rows.jsonl:5", "да" * (LEAST_LETTERS // 2 - 1))  # too short to be called anything
    writing = counter.finish()
    assert writing.scripts == (
        Written("Latin", 3, ("rows.jsonl:1", "rows.jsonl:2", "rows.jsonl:3")),
        Written("Cyrillic", 1, ("rows.jsonl:4",)),
    )
    assert writing.languages == (
        Written("English", 2, ("rows.jsonl:1", "rows.jsonl:2")),
        Written("German", 1, ("rows.jsonl:3",)),
    )
    latin = sum(character.isalpha() for line in ("English", "English", "German") for character in ARTICLE_1[line])
    cyrillic = len("люди рождаются свободными и равными".replace(" ", "")) + LEAST_LETTERS - 2
    assert dict(writing.letter_shares) == pytest.approx(
        {"Latin": latin / (latin + cyrillic), "Cyrillic": cyrillic / (latin + cyrillic)}
    )


def test_reviews_in_other_languages_are_found_among_english_ones(shared_data):
    counter = WritingCounter()
    lines = (shared_data / "sentence_polarity/train.jsonl").read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, start=1):
        counter.add(f"train.jsonl:{number}", line)
    found = {written.name: written for written in counter.finish().languages}
    assert found["English"].rows > 3000
    assert found["Spanish"].places[0] == "train.jsonl:1733"  # "es una de esas películas de las que uno sale ..."
    assert found["Portuguese"].places[0] == "train.jsonl:187"  # "graças às interações entre seus personagens ..."
    assert found["French"].places == ("train.jsonl:868",)  # "un thriller manqué qui tombe sur les nerfs ..."
    assert set(found) == {"English", "Spanish", "Portuguese", "French"}
