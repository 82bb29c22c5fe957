"""What belongs to the page is taken out, and words that it parted are joined."""

from collections import Counter

import pytest

from mlxtune.data.documents.document import clean_text
from mlxtune.data.documents.page_text import Line, blocks_of_pages, join_lines


def line(text, place=0.5, height=10.0, **more):
    return Line(text, more.pop("left", 0.0), more.pop("right", 0.0), place * 800, height, place, width=400.0, **more)


def page(number, head="Annual report"):
    return [
        line(head, 0.95),
        line(f"body {number} goes on here,", 0.6),
        line(f"and ends {number} here.", 0.585),
        line(f"{number}", 0.05),
    ]


def test_running_heads_and_page_numbers_are_taken_out_but_the_first_head():
    text = " ".join(block.text for block in blocks_of_pages([page(number) for number in range(1, 6)]))
    assert text.count("Annual report") == 1
    assert text.endswith("body 5 goes on here, and ends 5 here.")


def test_a_head_with_the_number_of_its_page_goes_though_its_words_change():
    pages = [page(number, f"{number} {head}") for number, head in enumerate(["Ants", "Bees", "Cats", "Dogs"], 1)]
    text = " ".join(block.text for block in blocks_of_pages(pages))
    assert not any(word in text for word in ("Ants", "Bees", "Cats", "Dogs"))


def test_a_single_page_keeps_all_its_lines():
    (block,) = blocks_of_pages([[line("Total", 0.95), line("1", 0.935)]])
    assert block.text == "Total 1"


@pytest.mark.parametrize(
    ("lines", "words", "joined"),
    [
        (["the hyphen-", "ation of words"], {}, "the hyphenation of words"),
        (["an out-", "of-scope query"], {"out-of-scope": 2}, "an out-of-scope query"),
        (["the E-", "Mail came"], {}, "the E-Mail came"),
        (["pages 3-", "5 say"], {}, "pages 3- 5 say"),
        (["soft\ufffe", "ly done"], {"softly": 1}, "softly done"),
    ],
)
def test_a_word_that_a_line_end_parts_is_joined_as_the_document_writes_it(lines, words, joined):
    assert join_lines(lines, Counter(words)) == joined


def test_text_is_cleaned_of_ligatures_soft_hyphens_and_invisible_characters():
    assert clean_text("e\ufb03cient soft\u00adware\u200b x² \x07\r\n") == "efficient software x²"
    assert clean_text("\ufe8e\ufee0\ufe8e") == "\u0627\u0644\u0627"
