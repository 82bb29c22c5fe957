"""Text files: paragraphs are what empty lines part; lines that were wrapped at a width are joined again.

Knows Unicode's encodings, as all readers of text here: another one is refused with the likely name (encodings.py).
"""

import io
import re
import statistics
from pathlib import Path

from mlxtune.data.documents.document import Block, Document, make_document
from mlxtune.data.documents.unreadable import UnreadableError
from mlxtune.data.reading.encodings import as_utf8, not_utf8
from mlxtune.errors import DataError

NARROWEST = 40
WIDEST = 100
"""Of the lines of a text that was wrapped: how long most of them may be."""
_MARK = re.compile(r"^\s*(?:[-*+•]|\(?\d{1,3}[.)]|\(?[a-z][.)])\s")


def read(path: Path) -> Document:
    """Raises: UnreadableError."""
    text = read_text(path)
    lines = [line for line in text.split("\n") if line.strip()]
    wrapped = _is_wrapped(lines)
    paragraphs = re.split(r"\n\s*\n", text)
    return make_document(Block("paragraph", _joined(part) if wrapped else part) for part in paragraphs)


def read_text(path: Path) -> str:
    """A text file's content. Raises: UnreadableError, if it is no text, or in an encoding that is not Unicode's."""
    raw = path.read_bytes()
    try:
        content, _ = as_utf8(io.BufferedReader(io.BytesIO(raw)), path)  # type: ignore[arg-type] - BytesIO is raw enough
        found = content.read()
        text = found.decode("utf-8")
    except UnicodeDecodeError as error:
        told = not_utf8(raw, error.start, f"at byte {error.start + 1}", where=path, path=path)
        raise UnreadableError(told.message, told.remedy or "") from error
    except DataError as error:
        raise UnreadableError(error.message, error.remedy or "") from error
    if "\0" in text:
        raise UnreadableError("it holds NUL characters, so it is no text", "take it out")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _is_wrapped(lines: list[str]) -> bool:
    """Whether lines end at a width and not where sentences do."""
    if len(lines) < 5:  # noqa: PLR2004 - too few to tell
        return False
    lengths = sorted(len(line) for line in lines)
    long = lengths[len(lengths) * 9 // 10]
    return NARROWEST <= long <= WIDEST and statistics.median(lengths) > long / 2


def _joined(paragraph: str) -> str:
    """The lines of a paragraph as one; list items and indented lines keep theirs."""
    lines: list[str] = []
    for line in paragraph.split("\n"):
        if lines and line.strip() and not _MARK.match(line) and not line.startswith(("   ", "\t")):
            lines[-1] += " " + line.strip()
        elif line.strip():
            lines.append(line.rstrip())
    return "\n".join(lines)
