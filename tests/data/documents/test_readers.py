"""Every kind of document: its structure comes back, and what is no text stays out."""

import openpyxl
import pytest
from documents import PICTURE, WORD, docx, epub, page_of, pdf, word_paragraph
from pptx import Presentation
from pptx.util import Inches

from mlxtune.data.documents import docx as docx_reader
from mlxtune.data.documents import epub as epub_reader
from mlxtune.data.documents import html, markdown, plain, pptx, xlsx
from mlxtune.data.documents import pdf as pdf_reader
from mlxtune.data.documents.unreadable import UnreadableError


def shown(document):
    return [(block.kind, block.text) for block in document.blocks]


def test_a_pdf_gives_headings_paragraphs_and_pages(tmp_path):
    path = tmp_path / "a.pdf"
    text = "The first paragraph goes on from one line to the\nnext, and its last word is hyphen-\nated there."
    pages = [[(72, 740, 16, "A title"), *page_of(text, y=700)], page_of("Page two has a sentence of its own.")]
    path.write_bytes(pdf(pages))
    document = pdf_reader.read(path)
    assert shown(document) == [
        ("heading", "# A title"),
        (
            "paragraph",
            "The first paragraph goes on from one line to the next, and its last word is hyphenated there.",
        ),
        ("paragraph", "Page two has a sentence of its own."),
    ]
    assert [block.page for block in document.blocks] == [1, 1, 2]
    for block, start in zip(document.blocks, document.starts, strict=True):
        assert document.text[start : start + len(block.text)] == block.text


def test_two_columns_of_a_pdf_are_read_one_after_the_other(tmp_path):
    path = tmp_path / "a.pdf"
    left = "\n".join(f"left {word} words of a column here" for word in ["one", "two", "three", "four", "five", "six"])
    right = left.replace("left", "right")
    path.write_bytes(pdf([[(150, 740, 16, "A title across both"), *page_of(left), *page_of(right, x=320)]]))
    text = pdf_reader.read(path).text
    assert text.startswith("# A title across both")
    assert text.index("left six") < text.index("right one")


def test_columns_that_are_written_row_by_row_are_read_the_same(tmp_path):
    path = tmp_path / "a.pdf"
    rows = []
    for number, word in enumerate(["one", "two", "three", "four", "five", "six"]):
        for x, side in ((72, "left"), (320, "right")):
            rows.append((x, 720 - 12 * number, 10, f"{side} {word} words of a column here"))
    path.write_bytes(pdf([rows]))
    text = pdf_reader.read(path).text
    assert text.index("left six") < text.index("right one")


def test_short_cells_in_rows_of_a_pdf_are_a_table(tmp_path):
    path = tmp_path / "a.pdf"
    cells = [("Month", "Shows"), ("May", "12"), ("June", "48")]
    placed = [(x, 700 - 14 * i, 10, row[n]) for i, row in enumerate(cells) for n, x in enumerate((72, 200))]
    path.write_bytes(pdf([placed]))
    assert shown(pdf_reader.read(path)) == [("table", "| Month | Shows |\n| --- | --- |\n| May | 12 |\n| June | 48 |")]


def test_a_pdf_of_pictures_needs_ocr(tmp_path):
    path = tmp_path / "a.pdf"
    path.write_bytes(pdf([[(72, 72, 10, "Fig. 1")]], drawn=PICTURE))
    with pytest.raises(UnreadableError, match="needs OCR"):
        pdf_reader.read(path)
    path.write_bytes(pdf([[]]))
    with pytest.raises(UnreadableError, match="empty, drawn, or damaged"):
        pdf_reader.read(path)


def test_a_damaged_pdf_says_so(tmp_path):
    path = tmp_path / "a.pdf"
    path.write_bytes(b"%PDF-1.4\nnothing")
    with pytest.raises(UnreadableError, match="damaged"):
        pdf_reader.read(path)


def test_a_word_document_keeps_headings_tables_and_equations(tmp_path):
    rows = (cell("Name") + cell("Age"), cell("Ann") + cell("7"))
    table = f"<w:tbl>{''.join(f'<w:tr>{cells}</w:tr>' for cells in rows)}</w:tbl>"
    fraction = "<m:f><m:num><m:r><m:t>a</m:t></m:r></m:num><m:den><m:r><m:t>b</m:t></m:r></m:den></m:f>"
    equation = f'<w:p><w:r><w:t xml:space="preserve">It is </w:t></w:r><m:oMath>{fraction}</m:oMath></w:p>'
    path = docx(tmp_path / "a.docx", word_paragraph("Rules", "Heading1") + equation + table)
    assert shown(docx_reader.read(path)) == [
        ("heading", "# Rules"),
        ("paragraph", "It is (a)/(b)"),
        ("table", "| Name | Age |\n| --- | --- |\n| Ann | 7 |"),
    ]


def cell(text):
    return f"<w:tc>{word_paragraph(text)}</w:tc>"


def test_slides_are_pages_and_keep_titles_tables_and_notes(tmp_path):
    deck = Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[1])
    slide.shapes.title.text = "Goals"
    slide.placeholders[1].text = "First\nSecond"
    slide.notes_slide.notes_text_frame.text = "Say it slowly."
    grid = deck.slides.add_slide(deck.slide_layouts[6]).shapes.add_table(2, 2, *[Inches(1)] * 4).table
    for number, text in enumerate(["A", "B", "1", "2"]):
        grid.cell(number // 2, number % 2).text = text
    deck.save(tmp_path / "a.pptx")
    document = pptx.read(tmp_path / "a.pptx")
    assert shown(document) == [
        ("heading", "# Goals"),
        ("list", "- First\n- Second"),
        ("paragraph", "Notes: Say it slowly."),
        ("table", "| A | B |\n| --- | --- |\n| 1 | 2 |"),
    ]
    assert [block.page for block in document.blocks] == [1, 1, 1, 2]


def test_a_workbook_gives_values_as_they_are_meant_and_no_hidden_sheet(tmp_path):
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Costs"
    sheet.append(["Item", "Share"])
    sheet.append(["Rent", 0.25])
    sheet["B2"].number_format = "0%"
    book.create_sheet("Secret").append(["hidden"])
    book["Secret"].sheet_state = "hidden"
    book.save(tmp_path / "a.xlsx")
    assert shown(xlsx.read(tmp_path / "a.xlsx")) == [
        ("heading", "# Costs"),
        ("table", "| Item | Share |\n| --- | --- |\n| Rent | 25% |"),
    ]


PAGE = """<html><head><title>T</title><script>bad()</script></head><body><nav>Menu</nav><main>
<h1>Head<span hidden>x</span></h1><p>One <b>bold</b>
word.</p><ul><li>a<ol><li>b</li></ol></li></ul><pre>x  =  1</pre>
<table><tr><th>k</th><th>v</th></tr><tr><td>1</td><td>2|3</td></tr></table></main><footer>Foot</footer></body></html>"""


def test_a_page_gives_its_content_and_neither_menu_nor_script(tmp_path):
    (tmp_path / "a.html").write_text(PAGE)
    assert shown(html.read(tmp_path / "a.html")) == [
        ("heading", "# Head"),
        ("paragraph", "One bold word."),
        ("list", "- a\n  1. b"),
        ("code", "```\nx  =  1\n```"),
        ("table", "| k | v |\n| --- | --- |\n| 1 | 2\\|3 |"),
    ]


def test_a_book_is_read_in_the_order_of_its_spine_and_never_outside_it(tmp_path):
    chapters = {"b.xhtml": "<h1>One</h1><p>first</p>", "a.xhtml": "<p>second</p>"}
    path = epub(tmp_path / "a.epub", chapters)
    assert epub_reader.read(path).text == "# One\n\nfirst\n\nsecond"
    (tmp_path / "outside.xhtml").write_text("<p>secret</p>")
    path = epub(tmp_path / "b.epub", {"../../outside.xhtml": "<p>inside</p>", "a.xhtml": "<p>kept</p>"})
    assert "secret" not in epub_reader.read(path).text


def test_a_protected_book_is_refused_and_hidden_fonts_are_no_protection(tmp_path):
    def encryption(method):
        return {"META-INF/encryption.xml": f'<e><EncryptionMethod Algorithm="{method}"/></e>'}

    chapters = {"a.xhtml": "<p>words</p>"}
    fonts = epub(tmp_path / "a.epub", chapters, extra=encryption("http://www.idpf.org/2008/embedding"))
    assert epub_reader.read(fonts).text == "words"
    drm = epub(tmp_path / "b.epub", chapters, extra=encryption("http://www.w3.org/2001/04/xmlenc#aes128-cbc"))
    with pytest.raises(UnreadableError, match="DRM"):
        epub_reader.read(drm)


def test_markdown_is_split_and_left_as_it_is_but_for_front_matter_and_comments(tmp_path):
    (tmp_path / "a.md").write_text(
        "---\ntitle: Leave\n---\n<!-- no -->\nSome *text*.\n\n## Two {#two}\n\n- a\n\n- b\n\n"
        "```\n# <!-- code -->\n```\n"
    )
    assert shown(markdown.read(tmp_path / "a.md")) == [
        ("heading", "# Leave"),
        ("paragraph", "Some *text*."),
        ("heading", "## Two"),
        ("list", "- a\n- b"),
        ("code", "```\n# <!-- code -->\n```"),
    ]


def test_wrapped_lines_of_a_text_are_joined_and_short_ones_are_not(tmp_path):
    wrapped = "\n".join(["a line of a paragraph that was wrapped at a width"] * 6)
    (tmp_path / "a.txt").write_text(f"{wrapped}\n\n1. item\n2. item")
    assert shown(plain.read(tmp_path / "a.txt")) == [
        ("paragraph", wrapped.replace("\n", " ")),
        ("paragraph", "1. item\n2. item"),
    ]
    (tmp_path / "b.txt").write_text("Roses\nare\nred,\nviolets\nblue")
    assert plain.read(tmp_path / "b.txt").text == "Roses\nare\nred,\nviolets\nblue"


def test_a_text_in_another_encoding_is_refused_with_its_likely_name(tmp_path):
    (tmp_path / "a.txt").write_bytes("名前と年齢と住所を書いてください。".encode("shift_jis") * 4)
    with pytest.raises(UnreadableError, match="not UTF-8"):
        plain.read(tmp_path / "a.txt")


def test_a_picture_that_a_word_document_links_is_not_opened(tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"x")
    path = docx(tmp_path / "a.docx", f'<w:p xmlns:w="{WORD}"><w:r><w:t>seen</w:t></w:r></w:p>')
    assert docx_reader.read(path).text == "seen"
