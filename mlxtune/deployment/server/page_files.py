"""The files of a page, read once and known by name, and how a browser is to treat them.

No request can name another file. A page so served runs and styles nothing but its own files, and puts no text into
itself as markup (trusted types). The price is that a change of a file shows after a restart.
"""

from collections.abc import Mapping
from pathlib import Path

from starlette.responses import PlainTextResponse, Response

from mlxtune.page import COLOURS

TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml"}
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)


def read_files(folder: Path) -> dict[str, bytes]:
    """The contents of a page's files by name, and the colours of all pages."""
    return {path.name: path.read_bytes() for path in (COLOURS, *folder.iterdir()) if path.suffix in TYPES}


def answer_file(files: Mapping[str, bytes], name: str) -> Response:
    """One of them; 404 for any other name."""
    if name not in files:
        return PlainTextResponse("There is no such file.\n", 404)
    # asked for anew each time: a page of one version with scripts of another does not work
    headers = {"Cache-Control": "no-cache", "Content-Security-Policy": PAGE_POLICY}
    return Response(files[name], media_type=TYPES[Path(name).suffix], headers=headers)
