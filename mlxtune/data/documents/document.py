"""A document as its readers leave it: blocks in reading order, and one text that they are places in.

Knows structure (headings, paragraphs, lists, tables, code), pages and characters; nothing of file formats or tokens.
Headings, lists and tables are written as Markdown, so that the text alone says what they are.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["heading", "paragraph", "list", "table", "code"]

BETWEEN = "\n\n"
"""What stands between two blocks of a document's text."""

LIGATURES = {
    "\ufb00": "ff",
    "\ufb01": "fi",
    "\ufb02": "fl",
    "\ufb03": "ffi",
    "\ufb04": "ffl",
    "\ufb05": "st",
    "\ufb06": "st",
}
_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u2060\ufeff\ufffe\uffff"))
_SPACES = dict.fromkeys(
    map(ord, "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"), " "
)
_TABLE = str.maketrans({**LIGATURES}) | _INVISIBLE | _SPACES | {0x2028: "\n", 0x2029: "\n", 0x0B: "\n", 0x0C: "\n"}
_PRESENTATION = re.compile("[\ufb1d-\ufb4f\ufb50-\ufdff\ufe70-\ufefe]")


@dataclass(frozen=True, slots=True)
class Block:
    """One piece of a document; ``text`` is not empty. A table or list has a line for each row or item."""

    kind: Kind
    text: str
    level: int = 0
    """Of a heading, from 1."""
    page: int | None = None
    """From 1: a page, a slide; None, where the format has none."""


@dataclass(frozen=True, slots=True)
class Document:
    """What a file says. ``text`` holds every block, `BETWEEN` them; ``starts`` is where each begins in it."""

    blocks: tuple[Block, ...]
    text: str
    starts: tuple[int, ...]
    notes: tuple[str, ...] = ()
    """What the owner should know of how it was read, a sentence each."""


def make_document(blocks: Iterable[Block], notes: Sequence[str] = ()) -> Document:
    """A document of ``blocks``, each cleaned; those that are empty then are left out."""
    kept: list[Block] = []
    for block in blocks:
        text = clean_text(block.text)
        if block.kind == "heading":
            text = "#" * min(max(block.level, 1), 6) + " " + " ".join(text.split()) if text else ""
        if text:
            kept.append(Block(block.kind, text, block.level, block.page))
    starts: list[int] = []
    at = 0
    for block in kept:
        starts.append(at)
        at += len(block.text) + len(BETWEEN)
    return Document(tuple(kept), BETWEEN.join(block.text for block in kept), tuple(starts), tuple(notes))


def clean_text(text: str) -> str:
    r"""``text`` as people type it: ligatures and Arabic presentation forms as letters, no soft hyphens, no invisible or
    control characters, one kind of space, no space at line ends, at most one empty line in a row.

    NFC is formed; compatibility characters (superscripts, full-width letters) are left, as they carry meaning.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").translate(_TABLE)
    text = _PRESENTATION.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)
    text = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs", "Co"))
    text = unicodedata.normalize("NFC", text)
    text = "\n".join(line.rstrip() for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n")


def table_text(rows: Sequence[Sequence[str]]) -> str:
    """Cells as a Markdown table, the first row its head; rows and columns without a word are left out."""
    cells = [[" ".join(clean_text(cell).split()).replace("|", "\\|") for cell in row] for row in rows]
    width = max((len(row) for row in cells), default=0)
    cells = [row + [""] * (width - len(row)) for row in cells if any(row)]
    used = [column for column in range(width) if any(row[column] for row in cells)]
    if not used:
        return ""
    lines = ["| " + " | ".join(row[column] for column in used) + " |" for row in cells]
    return "\n".join([lines[0], "|" + " --- |" * len(used), *lines[1:]])


def to_json(document: Document) -> dict[str, Any]:
    """As plain values, for another process."""
    return {"blocks": [asdict(block) for block in document.blocks], "notes": list(document.notes)}


def from_json(value: dict[str, Any]) -> Document:
    """What `to_json` gave, back; blocks are clean already, and stay as they are."""
    blocks = tuple(Block(**block) for block in value["blocks"])
    starts: list[int] = []
    at = 0
    for block in blocks:
        starts.append(at)
        at += len(block.text) + len(BETWEEN)
    return Document(blocks, BETWEEN.join(block.text for block in blocks), tuple(starts), tuple(value["notes"]))
