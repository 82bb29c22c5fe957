"""44 real files: which are read, which are refused and why, and how near the text is to what another program's tests
expect of it.
"""

import difflib
import re

import pytest

from mlxtune.data.documents.find import find_documents
from mlxtune.data.documents.reading import DocumentReader
from mlxtune.data.documents.unreadable import UnreadableError

REFUSED = {
    "difficult/imagemagick-images.pdf": "no text: its pages are pictures, so it needs OCR",
    "difficult/libreoffice-writer-password.pdf": "encrypted",
    "difficult/random.bin": ".bin files are not read",
    "difficult/source.odt": ".odt files are not read",
    "difficult/test_mskanji.csv": ".csv files are not read",
    "office/having-images.docx": "it holds no text",
}


def words(text):
    return re.findall(r"\w+", text.lower())


def likeness(first, second):
    """Words in common and in order, twice, over all words: 1 for equal texts, markup apart."""
    return difflib.SequenceMatcher(None, words(first), words(second), autojunk=False).ratio()


@pytest.fixture(scope="module")
def answers(shared_data):
    """Of each file its text, or why there is none."""
    texts, reasons = {}, {}
    folder = shared_data / "documents"
    with DocumentReader() as reader:
        for path in find_documents(folder).files:
            name = path.relative_to(folder).as_posix()
            try:
                texts[name] = reader.read(path).text
            except UnreadableError as error:
                reasons[name] = error.reason
    return texts, reasons


def test_all_but_six_are_read_and_those_are_refused_with_the_reason(answers):
    texts, reasons = answers
    assert reasons == REFUSED
    assert len(texts) == 38


@pytest.mark.parametrize(
    "name",
    [
        "RECEIPT-2024-TXN-98765_retail_purchase",
        "REPAIR-2022-INV-001_multipage",
        "SPARSE-2024-INV-1234_borderless_table",
        "movie-theater-booking-2024",
    ],
)
def test_records_say_what_another_program_reads_in_them(shared_data, answers, name):
    expected = (shared_data / "documents_expected" / f"{name}.md").read_text(encoding="utf-8")
    assert likeness(answers[0][f"records/{name}.pdf"], expected) > 0.99


@pytest.mark.parametrize(
    ("name", "in_order"),
    [
        ("papers/oos-eval-paper.pdf", ["# 1 Introduction", "Relatively few public datasets", "intents). Furthermore"]),
        ("papers/oos-eval-paper.pdf", ["supported intents, but current text classification", "## 2 Dataset"]),
        ("papers/multicolumn.pdf", ["# Abstract", "adipiscing elit. Ut purus", "Nulla malesuada porttitor diam"]),
        ("papers/GeoTopo-komprimiert.pdf", ["Übungsaufgaben und Lösungen", "Würfeloberfläche", "R² oder"]),
        ("difficult/habibi.pdf", ["habibi \u062d\u064e\u0628\u064a\u0628\u064a"]),
        ("office/test.docx", ["# Abstract", "# Introduction", "|"]),
        ("office/equations.docx", ["For m=1,", "From Eq. 36.1.3,"]),
        ("web/test_wikipedia.html", ["# Microsoft", "| Company type | Public |", "Bill Gates"]),
        ("books/test.epub", ["# Chapter 1: Test Content", "- A bullet point", "# Chapter 2: More Content"]),
    ],
)
def test_what_people_read_there_comes_in_the_order_in_which_they_do(answers, name, in_order):
    text = answers[0][name]
    places = [text.find(part) for part in in_order]
    assert -1 not in places
    assert places == sorted(places)


def test_running_heads_of_a_book_are_gone(answers):
    assert "STETIGKEIT" not in answers[0]["papers/GeoTopo-komprimiert.pdf"]
