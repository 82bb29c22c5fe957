"""Characters that a person does not see are counted by kind; what is at home in its script or emoji is let be."""

import tracemalloc
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxtune.data.survey.oddities import KINDS, PLACES, Oddity, OddityCounter, Place, name_of


def counted(*texts):
    """What is found in rows of these texts: (rows, how often) by kind."""
    counter = OddityCounter()
    for line, text in enumerate(texts, start=1):
        counter.add(f"rows.jsonl:{line}", text)
    return {oddity.kind: (oddity.rows, oddity.count) for oddity in counter.found()}


def misread(text):
    """UTF-8 that was read as Windows-1252, where that has all bytes, else as Latin-1."""
    try:
        return text.encode().decode("cp1252")
    except UnicodeDecodeError:
        return text.encode().decode("latin-1")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("control_characters", "bell \x07"),
        ("control_characters", "\x1b[31mred"),
        ("control_characters", "a dash \x96 of Windows-1252"),
        ("invisible", "zero\u200bwidth"),
        ("invisible", "\ufefftext"),
        ("invisible", "soft\u00adhyphen"),
        ("invisible", "a joiner between letters a\u200db"),
        ("invisible", "hidden \U000e0069\U000e0067\U000e006e tags"),
        ("bidi_controls", "user \u202etxt.exe"),
        ("bidi_controls", "\u2066isolated\u2069"),
        ("replacement_characters", "caf\ufffd"),
        ("mojibake", misread("café")),
        ("mojibake", misread("Größe")),
        ("mojibake", misread("it\u2019s so \u2013 or")),
        ("mojibake", misread("привет")),
        ("mojibake", misread("\ufeffid")),
        ("mojibake", misread("😀")),
        ("mojibake", misread("10 °C")),
        ("private_use", "logo \uf8ff"),
        ("private_use", "\uffff"),
        ("html", "one<br/>two"),
        ("html", '<a href="https://x.example">here</a>'),
        ("html", "fish &amp; chips"),
        ("html", "it&#39;s &#x201c;so"),
        ("unusual_white_space", "10\u00a0km"),
        ("unusual_white_space", "line\u2028separator"),
        ("unusual_white_space", "old Mac\rline ends"),
    ],
)
def test_each_kind_is_found_alone(kind, text):
    assert {found: rows for found, (rows, _) in counted("nothing here", text).items()} == {kind: 1}


@pytest.mark.parametrize(
    "text",
    [
        "tabs\tand\nline\r\nends",
        "family \U0001f469\u200d\U0001f469\u200d\U0001f467, flag \U0001f3f4\U000e0067\U000e0062\U000e0065\U000e007f",
        "नमस्ते क्\u200dष می\u200cروم",
        "Ärger, Übung, été, ÇA, Ñandú, São, ÂNGULO, È vero, «CAFÉ»",
        "привет, Ελλάδα, 日本語、\u3000中文",
        "if a < b and c > d: x <- y; R&D; AT&T",
        "List<String> names",
    ],
)
def test_ordinary_text_is_let_be(text):
    assert counted(text) == {}


def test_rows_and_occurrences_are_counted_and_the_first_rows_named():
    counter = OddityCounter()
    for line in range(1, PLACES + 6):
        counter.add(f"rows.jsonl:{line}", "a\u200bb\u200bc" if line % 2 else "abc")
    assert counter.found() == [
        Oddity(
            "invisible",
            KINDS["invisible"][0],
            rows=13,
            count=26,
            places=tuple(Place(f"rows.jsonl:{line}", "U+200B ZERO WIDTH SPACE") for line in range(1, 26, 2)),
        )
    ]
    for line in range(100):
        counter.add(f"more.jsonl:{line}", "\u200b")
    assert len(counter.found()[0].places) == PLACES


def test_what_was_found_is_named_so_that_it_can_be_read():
    assert name_of("\u202e") == "U+202E RIGHT-TO-LEFT OVERRIDE"
    assert name_of("\x96") == "U+0096 (\u2013 in Windows-1252)"
    assert name_of("\x07") == "U+0007"
    assert name_of("Ã©") == "'Ã©'"
    assert name_of("<a href='" + "x" * 100 + "'>").endswith("…'")
    assert name_of("\U000e0069\U000e0067") == "'\\U000e0069\\U000e0067'"


@given(text=st.text(st.characters(categories=["Cc", "Cf", "Co", "Zs", "Zl", "Zp", "Ll", "So"])))
def test_no_name_holds_what_cannot_be_seen(text):
    counter = OddityCounter()
    counter.add("rows.jsonl:1", text)
    for oddity in counter.found():
        assert 1 <= oddity.rows <= oddity.count
        for place in oddity.places:
            assert all(unicodedata.category(c) not in ("Cc", "Cf", "Co", "Zl", "Zp") for c in place.what)


def test_a_row_of_nothing_else_is_counted_without_a_list_of_it():
    counter, count = OddityCounter(), 200_000
    tracemalloc.start()
    counter.add("rows.jsonl:1", "\u2003" * count)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [(found.kind, found.count) for found in counter.found()] == [("unusual_white_space", count)]
    assert peak < 4 * count  # the text alone has two bytes a character; a list would have 60
