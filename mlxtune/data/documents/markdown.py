"""Markdown: split where it is structured, and else left as it was written.

Front matter (between two lines of ``---``) and comments are no text, and go; a title in the front matter becomes the
heading where the page has none. Knows headings (both ways of writing them), fences, lists, tables and paragraphs, by
line; a full parser (markdown-it-py, 1 MB) would give a tree that had to be written as Markdown again.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from mlxtune.data.documents.document import Block, Document, Kind, make_document
from mlxtune.data.documents.plain import read_text

_FRONT = re.compile(r"\A---[ \t]*\n(.*?\n)(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_TITLE = re.compile(r"""^title:[ \t]*(["']?)(.+?)\1[ \t]*$""", re.MULTILINE)
_COMMENT = re.compile(r"<!--.*?-->|\{%.*?%\}", re.DOTALL)
_HEADING = re.compile(r"^ {0,3}(#{1,6})[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*$")
_UNDER = re.compile(r"^ {0,3}(=+|-+)[ \t]*$")
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
_ITEM = re.compile(r"^\s*(?:[-*+]|\d{1,9}[.)])[ \t]+\S")
_ANCHOR = re.compile(r"\s*\{[:#][^}]*\}\s*$")


def read(path: Path) -> Document:
    """Raises: UnreadableError."""
    return make_document(markdown_blocks(read_text(path)))


def markdown_blocks(text: str) -> Iterator[Block]:
    """The blocks of a Markdown text."""
    if front := _FRONT.match(text):
        text = text[front.end() :]
        if (title := _TITLE.search(front[1])) and not re.match(r"\s*# ", text):
            yield Block("heading", title[2], 1)
    lines = _without_comments(text).split("\n")
    waiting: list[str] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        if fence := _FENCE.match(line):
            yield from _flush(waiting)
            end = next((n for n in range(at + 1, len(lines)) if lines[n].strip().startswith(fence[1])), len(lines) - 1)
            yield Block("code", "\n".join(lines[at : end + 1]))
            at = end + 1
            continue
        if heading := _HEADING.match(line):
            yield from _flush(waiting)
            yield Block("heading", _ANCHOR.sub("", heading[2]), len(heading[1]))
        elif (under := _UNDER.match(line)) and len(waiting) == 1 and not _ITEM.match(waiting[0]):
            yield Block("heading", waiting.pop(), 1 if under[1][0] == "=" else 2)
        elif line.strip():
            waiting.append(line)
        elif not _goes_on(waiting, lines, at):
            yield from _flush(waiting)
        at += 1
    yield from _flush(waiting)


def _goes_on(waiting: list[str], lines: list[str], at: int) -> bool:
    """Whether a list goes on after the empty line ``at``: with an item, or with what is indented."""
    if not waiting or not _ITEM.match(waiting[0]):
        return False
    after = next((line for line in lines[at + 1 :] if line.strip()), "")
    return bool(_ITEM.match(after)) or after.startswith(("  ", "\t"))


def _flush(waiting: list[str]) -> Iterator[Block]:
    if not waiting:
        return
    text = "\n".join(waiting)
    kind: Kind = "paragraph"
    if _ITEM.match(waiting[0]):
        kind = "list"
    elif len(waiting) > 1 and all("|" in line for line in waiting[:2]) and set(waiting[1]) <= set("|-: \t"):
        kind = "table"
    waiting.clear()
    yield Block(kind, text)


def _without_comments(text: str) -> str:
    """``text`` without comments and template tags, but for those in code."""
    parts = re.split(r"(?m)(^ {0,3}(?:`{3,}|~{3,})[^\n]*\n.*?^ {0,3}(?:`{3,}|~{3,})[ \t]*$)", text, flags=re.DOTALL)
    return "".join(part if number % 2 else _COMMENT.sub("", part) for number, part in enumerate(parts))
