"""The chat window at ``/``: files to serve as they are, and what they have to know of the models.

Knows nothing of how answers are made: the page asks the same API as every other client. Its files are page_files.py's.
A report is found by a model's name, and lives in a sandbox, without scripts and apart from the page: it holds rows that
anybody may have written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from mlxtune.deployment.server.page_files import answer_file, read_files

FOLDER = Path(__file__).with_name("page")
REPORT_POLICY = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


@dataclass(frozen=True)
class PageModel:
    """One name that the page offers."""

    id: str
    system: str | None
    """The system prompt of its training."""
    raw: bool
    """It goes on with plain text: no chat template, no turns."""
    report: Path | None
    """The report.html of its run."""


def page_routes(
    models: Sequence[PageModel], *, max_tokens: int, context_length: int | None, key_needed: bool
) -> APIRouter:
    """The page, its files, its settings and the reports.

    ``/page/settings`` and ``/page/report/ID`` tell of the training, its system prompt and its rows: where a key is
    needed, whoever guards the routes should ask for it there too. The page does with or without.

    Args:
        models: in the order to offer them; the first is chosen until the user chooses another.
        max_tokens: the longest answer that may be asked for.
        context_length: how many tokens prompt and answer may have together; None: not known.
        key_needed: the page asks the user for the key.
    """
    router = APIRouter(include_in_schema=False)
    reports = {model.id: model.report for model in models}
    files = read_files(FOLDER)

    @router.get("/")
    def page() -> Response:
        return answer_file(files, "index.html")

    @router.get("/page/settings")
    def settings() -> Response:
        told: dict[str, Any] = {
            "models": [_model(model) for model in models],
            "default": models[0].id,
            "max_tokens": max_tokens,
            "context_length": context_length,
            "key_needed": key_needed,
        }
        return JSONResponse(told, headers={"Cache-Control": "no-store"})

    @router.get("/page/report/{model_id:path}")
    def report(model_id: str) -> Response:
        path = reports.get(model_id)
        if path is None or not path.is_file():
            return PlainTextResponse("This model has no report.\n", 404)
        headers = {"Cache-Control": "no-store", "Content-Security-Policy": REPORT_POLICY}
        return Response(path.read_bytes(), media_type="text/html", headers=headers)

    @router.get("/page/{name}")
    def file(name: str) -> Response:
        return answer_file(files, name)

    return router


def _model(model: PageModel) -> dict[str, Any]:
    has_report = model.report is not None and model.report.is_file()
    report = f"/page/report/{quote(model.id, safe='')}" if has_report else None
    return {"id": model.id, "system": model.system, "raw": model.raw, "report": report}
