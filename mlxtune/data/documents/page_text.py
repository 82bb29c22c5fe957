"""Lines of pages into paragraphs, headings and tables: what belongs to the page and not to the text is taken out.

- Running heads and feet: a line at the top or bottom of a page that is there on at least three pages, digits apart, or
  that begins or ends with the number that this page has. The first page keeps its own, where it is the title. Page
  numbers: such lines of nothing but a number.
- Hyphens at line ends: the word is joined, unless the document has it with the hyphen elsewhere.
- Paragraphs end at a gap, an indent, or a short line that ends a sentence; one that a page parts is joined.
- Headings: larger than the text, or bold, and short. Their levels follow their sizes.

Knows lines and where they stand; nothing of fonts' names, and nothing of tokens. The price of rules: a heading in the
text's own size and weight is a paragraph, and one that is merely emphasis can be a heading.
"""

import itertools
import re
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mlxtune.data.documents.document import Block, table_text

EDGE_LINES = 2
"""At the top and at the bottom of a page, where heads and feet are looked for."""
EDGE = 0.14
"""How much of a page's height its upper and its lower edge are."""
LEAST_PAGES = 3
LONGEST_HEAD = 90
"""Letters of a running head."""
LOWER_HALF = 0.5
LARGER = 1.12
"""How much larger than the text a heading's letters are."""
LONGEST_HEADING = 120
HYPHENS = "-\u2010\u00ad\ufffe\x02"
"""What a word that goes on in the next line may end with; pdfium puts U+FFFE or U+0002 for it."""
_PAGE_NUMBER = re.compile(
    r"(?i)^\W*(?:(?:page|seite|p\.)\s*)?(?:\d{1,4}|[ivxlc]{1,7})\s*(?:(?:of|von|/)\s*\d{1,4})?\W*$"
)
_ITEM = re.compile(r"^(?:[•·▪◦‣●○■\u2013\u2014*-]|\(?\d{1,3}[.)]|\(?[a-zA-Z][.)])\s+\S")
_BULLET = re.compile(r"^[•·▪◦‣●○■]\s*")
_ENDS = (".", "!", "?", ":", ";", "”", '"', "»")
_LEADERS = re.compile(r"\s*(?:\s?[.·_]){6,}\s*")
"""What leads the eye from a title to its page."""
_WORD = re.compile(r"[^\W\d_]+(?:[-\u2010][^\W\d_]+)*")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a page. Where nothing is known of its place, all numbers are 0."""

    text: str
    left: float
    """How far it is indented, in points."""
    right: float
    """How much of its column is left empty at its end."""
    base: float
    height: float
    place: float
    """Its height on the page, from 0 at the bottom to 1."""
    is_bold: bool = False
    cells: tuple[tuple[float, float, str], ...] = ()
    """Of a row of a table: where each cell begins and ends, and what it says."""
    width: float = 0.0
    """Of its column."""


def blocks_of_pages(pages: Sequence[Sequence[Line]]) -> Iterator[Block]:
    """The blocks of a document, each with its page, counted from 1."""
    pages = _without_edges(pages)
    lines = [(number, line) for number, page in enumerate(pages, 1) for line in page]
    if not lines:
        return
    size = _text_size([line for _, line in lines])
    levels = _levels([line for _, line in lines], size)
    step = _line_step(pages)
    words = Counter(word.lower() for _, line in lines for word in _WORD.findall(line.text))
    paragraph: list[tuple[int, Line]] = []
    at = 0

    def flush() -> Iterator[Block]:
        if paragraph:
            text = join_lines([line.text for _, line in paragraph], words)
            is_list = bool(_BULLET.match(text))
            yield Block("list" if is_list else "paragraph", _BULLET.sub("- ", text), page=paragraph[0][0])
            paragraph.clear()

    while at < len(lines):
        page, line = lines[at]
        if line.cells:
            end = at
            while end < len(lines) and lines[end][0] == page and lines[end][1].cells:
                end += 1
            yield from flush()
            yield Block("table", table_text(_grid([row for _, row in lines[at:end]])), page=page)
            at = end
            continue
        if level := _level(line, size, levels):
            yield from flush()
            texts = [line.text]
            while at + 1 < len(lines) and _goes_on_as_heading(lines[at + 1], page, line, lines[at][1], size, levels):
                at += 1
                texts.append(lines[at][1].text)
            yield Block("heading", join_lines(texts, words), level, page)
        else:
            if paragraph and _begins_anew(*paragraph[-1], page, line, step):
                yield from flush()
            paragraph.append((page, line))
        at += 1
    yield from flush()


def join_lines(lines: Sequence[str], words: Counter[str]) -> str:
    """Lines as one text, words that were parted at their ends in one piece.

    Args:
        words: those of the document, in lower case, by which a hyphen is known to belong to its word.
    """
    text = ""
    for line in lines:
        line = line.strip()  # noqa: PLW2901 - the same line
        if not text:
            text = line
        elif text[-1] in HYPHENS and len(text) > 1 and text[-2].isalpha() and line[:1].isalpha():
            before, after = re.split(r"\s", text[:-1])[-1], re.split(r"\s", line)[0]
            hyphened = _WORD.search(f"{before}-{after}")
            joined = _WORD.search(before.rpartition("-")[2] + after)
            with_hyphen = words[hyphened[0].lower()] if hyphened else 0
            without = words[joined[0].lower()] if joined else 0
            keeps = (with_hyphen > 0 and without == 0) or not line[0].islower()
            text = text[:-1] + ("-" if keeps else "") + line
        else:
            text += " " + line
    return _LEADERS.sub(" … ", re.sub(r"[\ufffe\x02]", "-", text))


def _without_edges(pages: Sequence[Sequence[Line]]) -> list[list[Line]]:
    """The pages without running heads, running feet and page numbers."""
    if len(pages) < 2:  # noqa: PLR2004 - a single page has nothing that runs
        return [list(page) for page in pages]
    edges = [_edges(page) for page in pages]
    seen: Counter[str] = Counter()
    offsets: Counter[int] = Counter()
    for number, (page, ends) in enumerate(zip(pages, edges, strict=True)):
        seen.update({_key(page[i].text) for i in ends})
        offsets.update({int(found) - number for i in ends for found in _numbers(page[i].text)})
    offset, pages_with_it = offsets.most_common(1)[0] if offsets else (0, 0)
    counted = pages_with_it >= max(2, len(pages) / 3)
    kept = []
    for number, (page, ends) in enumerate(zip(pages, edges, strict=True)):
        lines = []
        for i, line in enumerate(page):
            key = _key(line.text)
            is_number = bool(_PAGE_NUMBER.match(line.text)) and (counted or seen[key] > 1)
            runs = len(key) > 1 and seen[key] >= LEAST_PAGES and (number > 0 or line.place < LOWER_HALF)
            with_number = (
                counted
                and pages_with_it >= LEAST_PAGES
                and len(line.text) < LONGEST_HEAD
                and str(number + offset) in _numbers(line.text)
            )
            if not (i in ends and (is_number or runs or with_number)):
                lines.append(line)
        kept.append(lines)
    return kept


def _numbers(text: str) -> list[str]:
    """The numbers that a line begins and ends with, as a running head has its page's."""
    return re.findall(r"^\d{1,4}(?=\s|$)|(?<!\S)\d{1,4}$", text.strip())


def _edges(page: Sequence[Line]) -> set[int]:
    """The numbers of the lines at the edges of a page; where places are not known, its first and its last."""
    if not any(line.height for line in page):
        return {0, len(page) - 1} if page else set()
    order = sorted(range(len(page)), key=lambda i: page[i].base)
    ends = {*order[:EDGE_LINES], *order[-EDGE_LINES:]}
    return {i for i in ends if not EDGE < page[i].place < 1 - EDGE}


def _key(text: str) -> str:
    return " ".join(re.sub(r"\d+", "#", text.lower()).split())


def _text_size(lines: Sequence[Line]) -> float:
    """The height of most letters."""
    sizes: Counter[float] = Counter()
    for line in lines:
        sizes[round(line.height * 2) / 2] += len(line.text)
    return sizes.most_common(1)[0][0]


def _is_heading(line: Line, size: float) -> bool:
    text = line.text
    if not line.height or len(text) > LONGEST_HEADING or not any(c.isalpha() for c in text) or len(text) < 3:  # noqa: PLR2004 - a letter alone is a variable
        return False
    if line.height >= LARGER * size:
        return sum(c.isalpha() for c in text) > len(text) / 3
    return (
        line.is_bold
        and line.height >= 0.97 * size
        and not text.endswith((".", ",", ";"))
        and text[0].isupper() | text[0].isdigit()
    )


def _levels(lines: Sequence[Line], size: float) -> dict[float, int]:
    """Of each size of headings its level."""
    sizes = sorted({round(line.height) for line in lines if _is_heading(line, size)}, reverse=True)
    return {one: min(level, 6) for level, one in enumerate(sizes, 1)}


def _level(line: Line, size: float, levels: dict[float, int]) -> int:
    return levels.get(round(line.height), 0) if _is_heading(line, size) else 0


def _goes_on_as_heading(
    after: tuple[int, Line], page: int, first: Line, before: Line, size: float, levels: dict[float, int]
) -> bool:
    """Whether the next line is the second of a heading that is wrapped: as large, right below, and no new number."""
    number, line = after
    return (
        number == page
        and not line.cells
        and _level(line, size, levels) == _level(first, size, levels)
        and 0 < before.base - line.base < 1.6 * before.height
        and not re.match(r"^\d+(\.\d+)*\.?\s", line.text)
        and line.is_bold == first.is_bold
    )


def _line_step(pages: Sequence[Sequence[Line]]) -> float:
    """From base line to base line, within paragraphs; 0, if places are not known."""
    steps = [
        before.base - after.base
        for page in pages
        for before, after in itertools.pairwise(page)
        if 0 < before.base - after.base < 3 * max(before.height, 1)
    ]
    return statistics.median(steps) if steps else 0.0


def _begins_anew(  # noqa: PLR0911 - a return for each sign
    last_page: int, last: Line, page: int, line: Line, step: float
) -> bool:
    """Whether ``line`` begins a paragraph after ``last``."""
    if _ITEM.match(line.text):
        return True
    ends = last.text.rstrip().endswith(_ENDS)
    if not line.height:
        return ends or len(last.text) < 40  # noqa: PLR2004 - places unknown: a short line ends
    short = last.right > 0.15 * max(last.width, 1.0)
    goes_down = last.base - line.base
    if page != last_page or goes_down <= 0:  # the next column or page
        return ends and (short or line.left > 0.5 * line.height)
    if goes_down > 1.35 * step and goes_down > 1.2 * line.height:
        return True
    if abs(line.height - last.height) > 0.15 * last.height:
        return True
    if line.left - last.left > 0.7 * line.height and last.text[-1:] not in HYPHENS:
        return ends or short
    return short and (ends or last.right > 0.4 * max(last.width, 1.0))


def _grid(rows: Sequence[Line]) -> list[list[str]]:
    """The cells of rows in columns: those whose places overlap in any row are in one."""
    columns: list[list[float]] = []
    for left, right, _ in sorted(cell for row in rows for cell in row.cells):
        if columns and left < columns[-1][1]:
            columns[-1][1] = max(columns[-1][1], right)
        else:
            columns.append([left, right])
    table = []
    for row in rows:
        cells = [""] * len(columns)
        for left, _, text in row.cells:
            at = max(i for i, (start, _) in enumerate(columns) if start <= left)
            cells[at] = f"{cells[at]} {_LEADERS.sub(' … ', text)}".strip()
        table.append(cells)
    return table
