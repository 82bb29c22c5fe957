"""The application behind the live view: a page, what is new of the run, and the wishes that the page's buttons tell.

Knows routes and forms; what is told is live_run.py's. Guards against strangers stand before it, in guard.py.
"""

import asyncio
from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, ValidationError

from mlxtune.deployment.server import page
from mlxtune.deployment.server.errors import ApiError, error_body, from_own
from mlxtune.deployment.server.live_run import LiveRun
from mlxtune.deployment.server.page_files import answer_file, read_files
from mlxtune.errors import RunError
from mlxtune.runs.control import Wish

FOLDER = Path(__file__).with_name("live_page")
SHARED = ("elements.js", "icon.svg")
"""Files of the chat page that this one uses too."""
WISHES: dict[str, Wish | None] = {"pause": "pause", "go_on": None, "stop": "stop"}


class Wished(BaseModel):
    """What a button says."""

    model_config = ConfigDict(strict=True, extra="forbid")

    wish: Literal["pause", "go_on", "stop"]


def live_app(run: LiveRun) -> FastAPI:
    """The application."""
    app = FastAPI(title="mlxtune watch", docs_url=None, redoc_url=None, openapi_url=None)
    chat = read_files(page.FOLDER)
    files = {name: chat[name] for name in SHARED} | read_files(FOLDER)

    @app.get("/")
    def index() -> Response:
        return answer_file(files, "index.html")

    @app.get("/page/{name}")
    def file(name: str) -> Response:
        return answer_file(files, name)

    @app.get("/live/news")
    def news(seen: str = "") -> Response:
        return JSONResponse(run.look(seen))

    @app.post("/live/wish")
    async def wish(request: Request) -> Response:
        try:
            asked = Wished.model_validate_json(await request.body())
            await asyncio.to_thread(run.ask, WISHES[asked.wish])
        except ValidationError:
            return _refused(ApiError(400, 'send {"wish": "pause"}, "go_on" or "stop"', param="wish"))
        except RunError as error:
            return _refused(from_own(error, status=409, param="wish", code="not_training"))
        except OSError as error:
            return _refused(
                ApiError(409, f"the run folder cannot be written to: {error.strerror}", code="not_writable")
            )
        told: dict[str, Any] = {"wish": asked.wish}
        return JSONResponse(told)

    return app


def _refused(error: ApiError) -> Response:
    return JSONResponse(error_body(error), error.status)
