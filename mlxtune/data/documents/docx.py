"""Word documents, by mammoth, whose HTML goes the way of every page (markup.py).

Why mammoth (1 MB, BSD): it knows headings, numbered and nested lists, tables, notes and tracked changes, where
python-docx (2 MB, beside lxml) gives paragraphs, and leaves their order with tables, lists and notes to its caller.
Comments,
heads and feet of pages and pictures are left out. Equations, which mammoth drops, become text first. Pictures that are
linked are never opened, wherever the link leads.
"""

import io
import zipfile
from pathlib import Path
from typing import Any

from mlxtune.data.documents.archive import check_archive
from mlxtune.data.documents.document import Document, make_document
from mlxtune.data.documents.html import import_etree, parse_html
from mlxtune.data.documents.markup import blocks_of
from mlxtune.data.documents.unreadable import UnreadableError

MAIN = "word/document.xml"
STYLES = "\n".join(f"p[style-name='{name}'] => h1:fresh" for name in ("Title", "Titel", "Titre", "Título"))
_M = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"


def read(path: Path) -> Document:
    """Raises: UnreadableError."""
    import mammoth

    check_archive(path, holds=MAIN)
    try:
        made = mammoth.convert_to_html(_with_equations(path), style_map=STYLES, convert_image=_no_image)
    # mammoth meets damage as whatever error its own code runs into
    except Exception as error:
        raise UnreadableError(f"damaged: {type(error).__name__} while it was read", "save it again") from error
    if not made.value.strip():
        return make_document([])
    return make_document(blocks_of(parse_html(made.value.encode())))


def _no_image(image: Any) -> list[Any]:  # noqa: ARG001 - mammoth's interface
    return []


def _with_equations(path: Path) -> io.BytesIO:
    """The document with each equation as a run of text."""
    etree = import_etree()
    out = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as copy:
        for name in archive.namelist():
            raw = archive.read(name)
            if name == MAIN:
                parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
                root = etree.fromstring(raw, parser)
                for equation in list(root.iter(f"{_M}oMath")):
                    _replace(equation, _linear(equation), etree)
                raw = etree.tostring(root)
            copy.writestr(name, raw)
    out.seek(0)
    return out


def _replace(equation: Any, text: str, etree: Any) -> None:
    run = etree.Element(f"{_W}r")
    words = etree.SubElement(run, f"{_W}t")
    words.text = text
    words.set("{http://www.w3.org/XML/1998/namespace}space", "preserve")
    run.tail = equation.tail
    above = equation.getparent()
    above.replace(equation, run)
    if above.tag == f"{_M}oMathPara":  # mammoth passes its paragraph over, so the run takes its place
        run.tail = above.tail
        above.getparent().replace(above, run)


def _linear(element: Any, depth: int = 0) -> str:  # noqa: PLR0911 - a return for each kind of element
    """An equation on one line, as Word's linear format writes it: ``(a)/(b)``, ``x^2``, ``√(x)``."""

    def of(name: str) -> str:
        found = element.find(f"{_M}{name}")
        return "" if found is None else _linear(found, depth + 1)

    tag = element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""
    if depth > 100 or not tag:  # noqa: PLR2004 - no equation of a person is so deep
        return ""
    if tag == "t":
        return element.text or ""
    if tag == "f":
        return f"({of('num')})/({of('den')})"
    if tag in ("sSup", "sSub", "sSubSup"):
        return (
            of("e")
            + (f"_{_group(of('sub'))}" if "Sub" in tag else "")
            + (f"^{_group(of('sup'))}" if "Sup" in tag else "")
        )
    if tag == "rad":
        return f"√({of('e')})"
    if tag == "d":
        return f"({', '.join(_linear(one, depth + 1) for one in element.findall(f'{_M}e'))})"
    return "".join(_linear(child, depth + 1) for child in element)


def _group(text: str) -> str:
    return text if len(text) == 1 else f"({text})"
