"""Which files are documents, and who reads each kind; what is none is refused by name, before it is opened.

The libraries were chosen by what they made of 44 real files and by what they weigh; each reader's docstring says why.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from mlxtune.errors import UsageError


@dataclass(frozen=True)
class DocumentKind:
    """A reader: ``module`` has ``read(path) -> Document``; ``needs`` are the extra's modules that it imports."""

    module: str
    needs: tuple[str, ...] = ()


_HTML = DocumentKind("html", ("lxml",))
_TEXT = DocumentKind("plain")
_MARKDOWN = DocumentKind("markdown")

KINDS: dict[str, DocumentKind] = {
    ".pdf": DocumentKind("pdf", ("pypdfium2", "pypdf")),
    ".docx": DocumentKind("docx", ("mammoth", "lxml")),
    ".pptx": DocumentKind("pptx", ("pptx",)),
    ".xlsx": DocumentKind("xlsx", ("openpyxl",)),
    ".html": _HTML,
    ".htm": _HTML,
    ".xhtml": _HTML,
    ".epub": DocumentKind("epub", ("lxml",)),
    ".md": _MARKDOWN,
    ".markdown": _MARKDOWN,
    ".txt": _TEXT,
    ".text": _TEXT,
}
"""By a file's ending, in lower case."""

NO_KIND = {
    **dict.fromkeys((".odt", ".rtf", ".doc", ".pages"), "save it as .docx or .pdf"),
    **dict.fromkeys((".odp", ".ppt", ".key"), "save it as .pptx or .pdf"),
    **dict.fromkeys((".ods", ".xls", ".xlsm", ".xlsb", ".numbers"), "save it as .xlsx"),
    **dict.fromkeys((".csv", ".tsv", ".json", ".jsonl", ".parquet"), "rows are no document: train on them as they are"),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".tif", ".tiff"), "a picture needs OCR: make a PDF with text of it"),
    **dict.fromkeys((".mobi", ".azw", ".azw3"), "convert it to .epub"),
}
"""What to do with files that are often met among documents."""

EXTRA = "pip install 'mlxtune[documents]'"


def kind_of(path: Path) -> DocumentKind | None:
    """Who reads ``path``, by its name; None, if nobody does."""
    return KINDS.get(path.suffix.lower())


def refusal_of(path: Path) -> tuple[str, str]:
    """Why a file without a kind is not read, and what to do."""
    suffix = path.suffix.lower()
    named = f"{suffix} files are not read" if suffix else "a file without an ending is not read"
    kinds = ", ".join(KINDS)
    return named, NO_KIND.get(suffix, f"documents are {kinds}")


def check_installed(paths: list[Path]) -> None:
    """Raises: UsageError, if a file among ``paths`` needs a package that is not installed."""
    for path in paths:
        kind = kind_of(path)
        missing = [name for name in kind.needs if importlib.util.find_spec(name) is None] if kind else []
        if missing:
            raise UsageError(
                f"to read {path.suffix.lower()} files, a package is missing: {', '.join(missing)}",
                where=path,
                remedy=EXTRA,
            )
