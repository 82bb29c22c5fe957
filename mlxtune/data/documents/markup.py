"""A tree of HTML into blocks: headings, paragraphs, lists, tables and code; what is no content is left out.

Menus, heads, feet, forms and scripts of a page are no content, and where a page says which part is (``main``,
``article``), the rest is not read. Knows lxml's trees, of web pages, of books and of what mammoth makes of DOCX.
Links give their words alone, since addresses teach a model nothing; pictures give nothing.

Why lxml (12 MB), and no extractor: python-pptx needs it in any case. trafilatura (62 MB) gives about the same of an
encyclopedia's page and of a blog's (70,900 and 6,100 characters; this file 66,000 and 6,300). selectolax (8 MB) parses
4 times faster than lxml's 8 ms a page, and BeautifulSoup (1 MB) 13 times slower.
"""

import re
from collections.abc import Iterator
from typing import Any

from mlxtune.data.documents.document import Block, table_text

NO_CONTENT = frozenset(
    [
        "script",
        "style",
        "noscript",
        "template",
        "nav",
        "footer",
        "aside",
        "form",
        "button",
        "input",
        "select",
        "textarea",
        "svg",
        "math-ml",
        "iframe",
        "object",
        "embed",
        "audio",
        "video",
        "canvas",
        "map",
        "dialog",
        "head",
        "title",
        "link",
        "meta",
        "img",
        "picture",
        "source",
    ]
)
NO_CONTENT_ROLES = frozenset(["navigation", "banner", "contentinfo", "search", "complementary", "doc-pagebreak"])
NO_CONTENT_CLASS = re.compile(
    r"(^|[\s_-])(nav(bar|igation)?|menu|sidebar|breadcrumbs?|cookie|advert|share|social|pagination|toc|mw-editsection|"
    r"navbox|noprint|reference|mw-jump-link|catlinks|printfooter|mw-cite-backlink|hatnote|theme-doc-toc)($|[\s_-])",
    re.IGNORECASE,
)
HEADINGS = {f"h{level}": level for level in range(1, 7)}
BLOCKS = frozenset(
    [
        "p",
        "div",
        "section",
        "article",
        "main",
        "body",
        "html",
        "header",
        "figure",
        "figcaption",
        "blockquote",
        "details",
        "summary",
        "address",
        "center",
        "fieldset",
        "hgroup",
        "dl",
        "dt",
        "dd",
        "caption",
        "td",
        "th",
        "tr",
        "tbody",
        "thead",
        "tfoot",
    ]
)
MOST_DIGITS = 5
"""Of numbers in attributes; longer ones are nonsense."""
DEEPEST = 200
"""Levels of elements that are gone into."""


def blocks_of(root: Any, page: int | None = None) -> Iterator[Block]:
    """The blocks of a tree, in its order.

    Args:
        root: an element of lxml.
    """
    yield from _Walk(page).blocks(content_of(root))


def content_of(root: Any) -> Any:
    """The part of a page that it says is its content, if it says so and most of its words are there; else all."""
    whole = len(_words(root))
    for path in (".//main", ".//*[@role='main']", ".//article"):
        found = root.findall(path)
        if len(found) == 1 and 2 * len(_words(found[0])) >= whole > 0:
            return found[0]
    return root


def _words(element: Any) -> str:
    return "".join(
        part
        for node in element.iter("p", "li", "td", "h1", "h2", "h3", "h4", "pre")
        for part in (node.text or "", node.tail or "")
    )


class _Walk:
    """Collects inline text until a block ends."""

    def __init__(self, page: int | None) -> None:
        self._page = page
        self._inline: list[str] = []

    def blocks(self, root: Any) -> Iterator[Block]:
        yield from self._visit(root, 0)
        yield from self._end()

    def _end(self) -> Iterator[Block]:
        text = _collapse("".join(self._inline))
        self._inline = []
        if text:
            yield Block("paragraph", text, page=self._page)

    def _visit(self, element: Any, depth: int) -> Iterator[Block]:
        tag = _tag(element)
        if tag is None or depth > DEEPEST or _is_no_content(element, tag):
            return
        if (block := self._whole(element, tag)) is not None:
            yield from self._end()
            if block.text.strip():
                yield block
            return
        is_block = tag in BLOCKS
        if is_block:
            yield from self._end()
        if tag == "br":
            self._inline.append("\n")
        self._inline.append(_spaces(element.text))
        for child in element:
            yield from self._visit(child, depth + 1)
            self._inline.append(_spaces(child.tail))
        if is_block:
            yield from self._end()

    def _whole(self, element: Any, tag: str) -> Block | None:
        """An element that is one block, whatever is in it."""
        if tag in HEADINGS:
            return Block("heading", _collapse(inline_text(element)), HEADINGS[tag], self._page)
        if tag in ("ul", "ol"):
            return Block("list", "\n".join(_items(element, tag, 0)), page=self._page)
        if tag == "table" and (text := _table(element)) is not None:
            return Block("table", text, page=self._page)
        if tag == "pre":
            text = inline_text(element, keep=True).strip("\n")
            return Block("code", f"```\n{text}\n```" if text.strip() else "", page=self._page)
        if tag == "hr":
            return Block("paragraph", "")
        return None


def _tag(element: Any) -> str | None:
    """An element's name without its namespace; None for a comment."""
    return element.tag.rpartition("}")[2].lower() if isinstance(element.tag, str) else None


def _is_no_content(element: Any, tag: str) -> bool:
    if tag in NO_CONTENT or element.get("hidden") is not None or element.get("aria-hidden") == "true":
        return True
    if "pagebreak" in (element.get("{http://www.idpf.org/2007/ops}type") or element.get("epub:type") or ""):
        return True
    if element.get("role") in NO_CONTENT_ROLES or "display:none" in (element.get("style") or "").replace(" ", ""):
        return True
    if tag == "header" and any(_tag(child) == "nav" for child in element.iter()):
        return True
    named = f"{element.get('class') or ''} {element.get('id') or ''}"
    return tag not in ("html", "body", "main", "article") and bool(NO_CONTENT_CLASS.search(named))


def inline_text(element: Any, *, keep: bool = False, depth: int = 0) -> str:
    """The words in an element, no content left out.

    Args:
        keep: white space as it is, as code wants it.
    """
    parts = [element.text or "" if keep else _spaces(element.text)]
    for child in element:
        tag = _tag(child)
        if tag is not None and depth < DEEPEST and not _is_no_content(child, tag):
            if tag == "br":
                parts.append("\n")
            elif tag in ("p", "div", "li") and parts[-1:] != ["\n"]:
                parts += ["\n", inline_text(child, keep=keep, depth=depth + 1), "\n"]
            else:
                parts.append(inline_text(child, keep=keep, depth=depth + 1))
        parts.append(child.tail or "" if keep else _spaces(child.tail))
    return "".join(parts)


def _spaces(text: str | None) -> str:
    return re.sub(r"[ \t\r\n\f]+", " ", text or "")


def _collapse(text: str) -> str:
    """Lines (of ``br``) stripped, white space as one space, empty lines gone."""
    lines = (" ".join(line.split()) for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


def _items(element: Any, tag: str, depth: int) -> Iterator[str]:
    """The lines of a list; a list in it is indented."""
    start = element.get("start") or ""
    number = int(start) if tag == "ol" and start.isascii() and start.isdigit() and len(start) <= MOST_DIGITS else 1
    for child in element:
        name = _tag(child)
        if name in ("ul", "ol"):  # a list right in a list: some editors write that
            yield from _items(child, name, depth + 1) if depth < DEEPEST else ()
        if name != "li" or _is_no_content(child, name):
            continue
        below: list[str] = []
        words = [_spaces(child.text)]
        for inside in child:
            kind = _tag(inside)
            if kind in ("ul", "ol") and depth < DEEPEST:
                below += _items(inside, kind, depth + 1)
            elif kind is not None and not _is_no_content(inside, kind):
                words.append(inline_text(inside) + (" " if kind in BLOCKS else ""))
            words.append(_spaces(inside.tail))
        text = " ".join("".join(words).split())
        if text:
            mark = f"{number}." if tag == "ol" else "-"
            yield f"{'  ' * depth}{mark} {text}"
            number += 1
        yield from below


def _table(element: Any) -> str | None:
    """A table of words as Markdown; None for one that only lays a page out: a single cell a row, or blocks in cells."""
    rows: list[list[str]] = []
    for row in _rows(element):
        cells: list[str] = []
        for cell in row:
            if _tag(cell) in ("td", "th"):
                if any(_tag(inside) in ("table", *HEADINGS) for inside in cell.iter() if inside is not cell):
                    return None
                cells.append(" ".join(inline_text(cell).split()))
                span = cell.get("colspan") or ""
                cells += [""] * (
                    min(int(span), 50) - 1 if span.isascii() and span.isdigit() and len(span) <= MOST_DIGITS else 0
                )
        if cells:
            rows.append(cells)
    if not rows or max(len(row) for row in rows) == 1:
        return None
    return table_text(rows)


def _rows(element: Any) -> Iterator[Any]:
    """The rows of a table itself, none of tables inside it."""
    for child in element:
        tag = _tag(child)
        if tag == "tr":
            yield child
        elif tag in ("thead", "tbody", "tfoot"):
            yield from (row for row in child if _tag(row) == "tr")
