"""Web pages, read by lxml's HTML parser, which forgives what browsers forgive; the tree is markup.py's business.

libxml2 expands no entities but HTML's own, and fetches nothing. The encoding: a byte order mark's, else UTF-8 where the
bytes are that, else the one that the page names.
"""

import codecs
import importlib
from pathlib import Path
from typing import Any

from mlxtune.data.documents.document import Block, Document, make_document
from mlxtune.data.documents.markup import blocks_of
from mlxtune.data.documents.unreadable import UnreadableError


def read(path: Path) -> Document:
    """Raises: UnreadableError."""
    root = parse_html(path.read_bytes())
    blocks = list(blocks_of(root))
    title = " ".join((root.findtext(".//title") or "").split())
    if title and not any(block.kind == "heading" and block.level == 1 for block in blocks):
        blocks.insert(0, Block("heading", title, 1))
    return make_document(blocks)


def parse_html(raw: bytes) -> Any:
    """The tree of a page. Raises: UnreadableError, if it holds nothing."""
    from lxml import html

    try:
        raw.decode("utf-8")
        encoding = "utf-8"
    except UnicodeDecodeError:
        encoding = "utf-16" if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else None
    parser = html.HTMLParser(encoding=encoding, no_network=True, remove_comments=True, remove_pis=True)
    try:
        root = html.document_fromstring(raw, parser=parser)
    except (import_etree().LxmlError, ValueError) as error:
        raise UnreadableError("it holds no page", "take it out") from error
    return root


def import_etree() -> Any:
    """lxml.etree, a module in C that says nothing of its types."""
    return importlib.import_module("lxml.etree")
