"""Books: the chapters of an EPUB in the order of its spine, by zipfile and lxml.

Why no library for it: ebooklib is AGPL, and a book is a list of web pages in a ZIP file. Names in it are looked up in
the ZIP alone, whatever they point to. XML entities of a book's own are not expanded.
"""

import posixpath
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mlxtune.data.documents.archive import check_archive
from mlxtune.data.documents.document import Block, Document, make_document
from mlxtune.data.documents.html import import_etree, parse_html
from mlxtune.data.documents.markup import blocks_of
from mlxtune.data.documents.unreadable import UnreadableError

CONTAINER = "META-INF/container.xml"
ENCRYPTION = "META-INF/encryption.xml"
FONTS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
"""Ways of hiding fonts alone, which is no encryption of the text."""
PAGES = ("application/xhtml+xml", "text/html")
DAMAGED = UnreadableError("damaged: the book's list of chapters cannot be read", "get it again")


def read(path: Path) -> Document:
    """Raises: UnreadableError."""
    check_archive(path, holds=CONTAINER)
    with zipfile.ZipFile(path) as archive:
        _refuse_encrypted(archive)
        package = _package(archive)
        blocks: list[Block] = []
        missing = 0
        for name in _spine(archive, package):
            try:
                blocks += blocks_of(parse_html(_member(archive, name)))
            except UnreadableError:
                missing += 1
    notes = [f"{missing} of its chapters could not be read"] if missing else []
    return make_document(blocks, notes)


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(name)
    except (KeyError, zipfile.BadZipFile, EOFError, OSError, NotImplementedError, ValueError) as error:
        raise DAMAGED from error


def _xml(archive: zipfile.ZipFile, name: str) -> Any:
    etree = import_etree()
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, recover=True)
    try:
        root = etree.fromstring(_member(archive, name), parser)
    except (etree.LxmlError, ValueError) as error:
        raise DAMAGED from error
    if root is None:
        raise DAMAGED
    return root


def _refuse_encrypted(archive: zipfile.ZipFile) -> None:
    if ENCRYPTION not in archive.namelist():
        return
    methods = [node.get("Algorithm") or "" for node in _xml(archive, ENCRYPTION).iter("{*}EncryptionMethod")]
    if any(not method.startswith(FONTS) for method in methods):
        raise UnreadableError("encrypted (DRM)", "get the book without copy protection")


def _package(archive: zipfile.ZipFile) -> str:
    """The name of the book's package file."""
    for node in _xml(archive, CONTAINER).iter("{*}rootfile"):
        if name := node.get("full-path"):
            return name
    raise DAMAGED


def _spine(archive: zipfile.ZipFile, package: str) -> Iterator[str]:
    """The names of the chapters, in order; navigation is none."""
    root = _xml(archive, package)
    items = {node.get("id"): node for node in root.iter("{*}item")}
    for reference in root.iter("{*}itemref"):
        item = items.get(reference.get("idref"))
        if item is None or item.get("media-type") not in PAGES or "nav" in (item.get("properties") or "").split():
            continue
        yield posixpath.normpath(posixpath.join(posixpath.dirname(package), unquote(item.get("href") or "")))
