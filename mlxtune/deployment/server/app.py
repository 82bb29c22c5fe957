"""The server as a whole: its paths, and what stands behind each.

The engine's thread is started by whoever makes the app and is ended with it. Guards against strangers stand before it,
in guard.py.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from mlxtune.deployment.server import chat_completions, completions, sse
from mlxtune.deployment.server.disconnect import unless_gone
from mlxtune.deployment.server.docs_page import POLICY as DOCS_POLICY
from mlxtune.deployment.server.docs_page import docs_page
from mlxtune.deployment.server.errors import ApiError, error_body
from mlxtune.deployment.server.metrics import CONTENT_TYPE
from mlxtune.deployment.server.page import PageModel, page_routes
from mlxtune.deployment.server.serving import Serving
from mlxtune.deployment.server.wire import Asked, ChatRequest, CompletionRequest, Kind, read_body

CLOSED = 499
"""nginx's status for a client that went away before its answer."""


def make_app(serving: Serving, *, key_needed: bool = False) -> FastAPI:
    """The application of a server whose engine runs; ending it ends the engine.

    Args:
        key_needed: the guard before it asks for a key, so the page has to.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(serving.worker.stop)
        serving.encoders.shutdown()

    app = FastAPI(title="mlxtune", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.add_exception_handler(ApiError, _show_error)
    app.add_exception_handler(HTTPException, _show_http_error)
    app.add_exception_handler(ClientDisconnect, _show_nobody)
    _add_health(app, serving)
    _add_models(app, serving)
    _add_answers(app, serving)

    @app.get("/docs", include_in_schema=False)
    def docs() -> Response:
        return HTMLResponse(docs_page(_describe(app)), headers={"Content-Security-Policy": DOCS_POLICY})

    app.openapi = lambda: _describe(app)
    served = serving.served
    pages = [PageModel(one.name, one.asking.system, one.asking.raw, one.report) for one in served.models.values()]
    context = served.context_length
    app.include_router(
        page_routes(pages, max_tokens=serving.limits.max_tokens, context_length=context, key_needed=key_needed)
    )
    return app


def _add_health(app: FastAPI, serving: Serving) -> None:
    @app.get("/health", tags=["health"])
    def health() -> Response:
        """Whether the server is alive: 200, or 503 with the reason."""
        fault = serving.worker.fault
        return PlainTextResponse(fault or "ok", 503 if fault else 200)

    @app.get("/ready", tags=["health"])
    def ready() -> Response:
        """Whether the server takes requests: 200, or 503."""
        is_ready = serving.worker.is_ready
        return PlainTextResponse("ready" if is_ready else "not ready", 200 if is_ready else 503)

    @app.get("/metrics", tags=["health"])
    def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(serving.metrics.render(), media_type=CONTENT_TYPE)


def _add_models(app: FastAPI, serving: Serving) -> None:
    def told(name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": serving.started, "owned_by": "mlxtune"}

    @app.get("/v1/models", tags=["models"])
    def list_models() -> dict[str, Any]:
        """What can be asked."""
        return {"object": "list", "data": [told(name) for name in serving.served.models]}

    @app.get("/v1/models/{name:path}", tags=["models"])
    def show_model(name: str) -> dict[str, Any]:
        """One of them."""
        return told(serving.model(name).name)


def _add_answers(app: FastAPI, serving: Serving) -> None:
    @app.post("/v1/chat/completions", tags=["answers"], openapi_extra=_body_of(ChatRequest))
    async def create_chat_completion(request: Request) -> Response:
        """Answer a conversation."""
        asked = await _read(request, ChatRequest)
        model = serving.model(asked.model)
        request.state.model = model.name  # for whoever counts requests
        chat = await chat_completions.prepare(serving, model, asked)
        if asked.stream:
            return await sse.respond(request, chat_completions.stream(serving, chat))
        return JSONResponse(await unless_gone(request, chat_completions.whole(serving, chat)))

    @app.post("/v1/completions", tags=["answers"], openapi_extra=_body_of(CompletionRequest))
    async def create_completion(request: Request) -> Response:
        """Go on with a text."""
        asked = await _read(request, CompletionRequest)
        model = serving.model(asked.model)
        request.state.model = model.name  # for whoever counts requests
        completion = await completions.prepare(serving, model, asked)
        if asked.stream:
            return await sse.respond(request, completions.stream(serving, completion))
        return JSONResponse(await unless_gone(request, completions.whole(serving, completion)))


def _body_of(kind: type[Asked]) -> dict[str, Any]:
    """The OpenAPI description of a body, which is read by hand so that its faults are told as OpenAI tells them."""
    schema = {"$ref": f"#/components/schemas/{kind.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of all paths, with the bodies that `_body_of` names."""
    if app.openapi_schema is None:
        described = get_openapi(title=app.title, version=version("mlxtune"), routes=app.routes)
        _, bodies = models_json_schema(
            [(ChatRequest, "validation"), (CompletionRequest, "validation")],
            by_alias=True,
            ref_template="#/components/schemas/{model}",
        )
        described.setdefault("components", {}).setdefault("schemas", {}).update(bodies["$defs"])
        app.openapi_schema = described
    return app.openapi_schema


async def _read(request: Request, kind: type[Kind]) -> Kind:
    try:
        body = json.loads(await request.body(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "the body is not JSON", code="invalid_json") from error
    return read_body(kind, body)


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


async def _show_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error_body(error), error.status, headers=error.headers)


async def _show_nobody(_: Request, __: Exception) -> Response:
    return Response(status_code=CLOSED)


async def _show_http_error(request: Request, error: Exception) -> Response:
    """A path that is not there, or not with this method."""
    assert isinstance(error, HTTPException)
    said = f"{request.method} {request.url.path[:200]}: {error.detail}"
    return await _show_error(request, ApiError(error.status_code, said, headers=error.headers))
