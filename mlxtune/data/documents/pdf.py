"""PDF: characters and their places from pdfium, put in order by page_layout.py and into paragraphs by page_text.py.

Why pypdfium2 (9 MB, Apache-2.0/BSD, Chrome's own engine): it gives each character's place, is 10 to 50 times faster
than the others (a book of 117 pages in a second; pypdf 5 s, pdfminer and pdfplumber 25 s) and mends ligatures. pdfminer
(26 MB) and pdfplumber (54 MB) give places too, and run the columns of some pages together. PyMuPDF is AGPL.

Why pypdf beside it (2 MB, BSD): pdfium turns words written from right to left round and reads some of their fonts
wrongly; pages with such letters are taken from pypdf, line by line, as they stand in the file.

pdfium is C++: a hostile file may crash it, and takes the child process along that reads files (reading.py), no more.
"""

import ctypes
import math
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlxtune.data.documents.document import Document, make_document
from mlxtune.data.documents.page_layout import Run, lines_of_page
from mlxtune.data.documents.page_text import Line, blocks_of_pages
from mlxtune.data.documents.unreadable import UnreadableError

MOST_PAGES = 5000
MOST_CHARACTERS = 200_000
"""Of one page; a newspaper's has 40,000."""
PASSWORD_ERROR = 4
"""pdfium's FPDF_ERR_PASSWORD."""
NEEDS_OCR = UnreadableError("no text: its pages are pictures, so it needs OCR", "make a PDF with text of it (OCR)")
NO_TEXT = UnreadableError("no text: its pages are empty, drawn, or damaged", "get it again, or make text of it (OCR)")
FEWEST_LETTERS = 30
"""Letters and digits of a page, on average: where there are fewer, and pictures, the text is in these."""
SEMI_BOLD = 600
"""Of a font's weight, as CSS and PDF count it."""
UPRIGHT = 0.3
"""Radians that a character may lean."""


def read(path: Path) -> Document:
    """Raises: UnreadableError, for a file that is encrypted, damaged, or holds pictures of text alone."""
    import pypdfium2

    try:
        pdf = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) == PASSWORD_ERROR or "assword" in str(error):
            raise UnreadableError("encrypted", "save it without a password") from error
        raise UnreadableError("damaged: it is no whole PDF", "get it again, or print it to a new PDF") from error
    try:
        count = len(pdf)
        notes = [f"only its first {MOST_PAGES:,} pages were read"] if count > MOST_PAGES else []
        pages = [_lines(pdf, number, path) for number in range(min(count, MOST_PAGES))]
        letters = sum(c.isalnum() for lines in pages for line in lines for c in line.text)
        if letters < FEWEST_LETTERS * len(pages) and _has_pictures(pdf, len(pages)):
            raise NEEDS_OCR
        if not letters:
            raise NO_TEXT
    finally:
        pdf.close()
    pictured = sum(not lines for lines in pages)
    if pictured:
        notes.append(f"{pictured} of its {len(pages)} pages hold no text: pictures, or empty")
    return make_document(blocks_of_pages(pages), notes)


def _has_pictures(pdf: Any, count: int) -> bool:
    from pypdfium2 import PdfiumError, raw

    for number in range(count):
        try:
            if any(True for _ in pdf[number].get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE])):
                return True
        except PdfiumError:
            continue
    return False


def _lines(pdf: Any, number: int, path: Path) -> list[Line]:
    """The lines of a page in reading order; none, if it cannot be read."""
    import pypdfium2

    try:
        page = pdf[number]
        text = page.get_textpage()
    except pypdfium2.PdfiumError:
        return []
    try:
        count = min(text.count_chars(), MOST_CHARACTERS)
        plain = text.get_text_range(0, count) if count > 0 else ""
        if any(unicodedata.bidirectional(c) in ("R", "AL") for c in plain):
            return _from_pypdf(path, number)
        runs = list(_runs(text, count))
        width, height = page.get_size()
        if page.get_rotation() in (90, 270):
            width, height = height, width
        if sum(len(run.text) for run in runs if run.is_turned) * 2 > sum(len(run.text) for run in runs):
            return [Line(line.strip(), 0, 0, 0, 0, 0) for line in plain.splitlines() if line.strip()]
        return lines_of_page([run for run in runs if not run.is_turned], width, height)
    finally:
        text.close()
        page.close()


def _from_pypdf(path: Path, number: int) -> list[Line]:
    import logging

    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # what it finds odd is nobody's concern here
    try:
        text = PdfReader(path).pages[number].extract_text()
    # pypdf meets damage as whatever error its own code runs into
    except (PyPdfError, ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError):
        return []
    return [Line(" ".join(line.split()), 0, 0, 0, 0, 0) for line in text.splitlines() if line.strip()]


def _runs(text: Any, count: int) -> Iterator[Run]:
    """Characters of one size and weight that stand beside each other on one base line, in the order of the file."""
    from pypdfium2 import raw

    box, x, y, matrix = raw.FS_RECTF(), ctypes.c_double(), ctypes.c_double(), raw.FS_MATRIX()
    page = text.raw
    run: _Growing | None = None
    for i in range(count):
        code = raw.FPDFText_GetUnicode(page, i)
        character = chr(code) if code else ""
        if character in "\r\n":
            if run:
                yield run.finish()
            run = None
            continue
        if raw.FPDFText_IsGenerated(page, i) == 1:
            if run and character == " ":
                run.text.append(" ")
            continue
        if raw.FPDFText_HasUnicodeMapError(page, i) == 1 and not character.isprintable():
            continue
        raw.FPDFText_GetLooseCharBox(page, i, box)
        raw.FPDFText_GetCharOrigin(page, i, x, y)
        nominal = raw.FPDFText_GetFontSize(page, i)
        is_bold = raw.FPDFText_GetFontWeight(page, i) >= SEMI_BOLD
        if run is None or is_bold != run.is_bold or not run.takes(box.left, y.value, nominal):
            if run:
                yield run.finish()
            raw.FPDFText_GetMatrix(page, i, matrix)
            is_turned = _is_turned(raw.FPDFText_GetCharAngle(page, i))
            run = _Growing(box.left, y.value, nominal, math.hypot(matrix.c, matrix.d), is_bold, is_turned)
        run.add(character, box)
    if run:
        yield run.finish()


def _is_turned(angle: float) -> bool:
    """Whether a character stands on its side, or on its head (radians)."""
    return UPRIGHT < angle % math.tau < math.tau - UPRIGHT


class _Growing:
    """A run while it grows; ``nominal`` is its font size before the page scales it."""

    def __init__(self, left: float, base: float, nominal: float, scale: float, is_bold: bool, is_turned: bool) -> None:
        self.left, self.right, self.base = left, left, base
        self.nominal, self.size = nominal, max(nominal * scale, 0.1)
        self.text: list[str] = []
        self.is_bold, self.is_turned = is_bold, is_turned

    def takes(self, left: float, base: float, nominal: float) -> bool:
        """Whether a character there goes on with this run: as large, near its end, neither above nor below it."""
        return (
            abs(nominal - self.nominal) < 0.05 * self.nominal
            and abs(base - self.base) < 0.1 * self.size
            and -0.5 * self.size < left - self.right < 1.1 * self.size
        )

    def add(self, character: str, box: Any) -> None:
        gap = box.left - self.right
        if self.text and gap > 0.25 * self.size and not self.text[-1].isspace() and character != " ":
            self.text.append(" ")
        self.text.append(character)
        self.left, self.right = min(self.left, box.left), max(self.right, box.right)

    def finish(self) -> Run:
        text = "".join(self.text)
        words = " ".join(text.split())
        return Run(
            words + " " * text.endswith(" "), self.left, self.right, self.base, self.size, self.is_bold, self.is_turned
        )
