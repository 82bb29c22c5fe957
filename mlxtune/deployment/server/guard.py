"""What stands before an application: who may call it, with what, and what is told of it.

Knows requests and answers, nothing of models. A request meets, in this order: the limit of its head, the name it was
sent to, the page it comes from, the answer to a browser's question whether it may (CORS), the key, the type and the
length of its body. The cheap come first, and no byte of a body is read for a stranger. What is refused is refused
in OpenAI's form. The price is that the whole body is in memory before the application begins.
"""

import logging
import re
import time
from dataclasses import dataclass, field
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlxtune.deployment.server import body
from mlxtune.deployment.server.api_key import check_host, check_key_header
from mlxtune.deployment.server.callers import check_host_header, check_names, check_origin_header
from mlxtune.deployment.server.errors import ApiError, error_body

log = logging.getLogger("mlxtune.server.access")

MAX_HEAD_BYTES = 32 * 1024
"""Of a request's line and headers: a browser brings the cookies of all that ever ran on localhost."""
OPEN_PATHS = ("/", "/health", "/ready", "/docs", "/openapi.json")
"""What is shown without the key: nothing in it comes from a model, a run or a request."""
PAGE_FILE = re.compile(r"/page/[^/]+\.[a-z]+")
"""A page's own files are open too. Its settings (``/page/settings``) and reports tell of a training and are not."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
}
"""On every answer that does not say otherwise by itself."""
CLOSED = 499
"""nginx's status, in the log, for a client that went away before its answer."""


@dataclass(frozen=True)
class GuardSettings:
    """Whom and what a server lets in.

    Raises: UsageError, for an address that needs a key and has none, and for hosts and origins that are none.
    """

    host: str = "127.0.0.1"
    """The address that is listened on."""
    port: int = 8080
    """Its port, for uvicorn; a request may name another one, which a tunnel has."""
    api_key: str | None = field(default=None, repr=False)
    """What a request has to bring, but for `OPEN_PATHS` and a page's files; None: nothing."""
    origins: tuple[str, ...] = ()
    """Web pages of other places that may use the server, such as http://localhost:3000."""
    hosts: tuple[str, ...] = ()
    """Further names that the server goes by, such as mac.local."""
    max_body_bytes: int = 8 << 20
    """Of one request; a prompt of a million tokens has about half as many."""
    body_s: float = 30.0
    """Seconds within which a body has to come."""

    def __post_init__(self) -> None:
        check_host(self.host, self.api_key)
        check_names(self.hosts, self.origins)


def guarded(app: ASGIApp, settings: GuardSettings) -> ASGIApp:
    """``app`` behind the guard. A body comes to it in one piece; what it raises goes through.

    A request that is not GET, HEAD or OPTIONS has to be declared as JSON, even if its body is empty. Each is logged
    when its answer is over: method, path, status, seconds, and nothing else of it.
    """

    async def admit(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if settings.api_key is not None and not _is_open(scope):
                check_key_header(_values(scope, "authorization"), settings.api_key)
            body.check_type(scope)
            content = await body.read(scope, receive, max_bytes=settings.max_body_bytes, seconds=settings.body_s)
        except ApiError as error:
            await _refuse(error, scope, receive, send)
            return
        if content is not None:
            await app(scope, body.replay(content, receive), send)

    admitted = _allowing(admit, settings.origins) if settings.origins else admit

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
        elif scope["type"] == "http":
            await _answer(admitted, settings, scope, receive, send)
        else:  # a web socket, which nothing here speaks and none of the checks is made for
            await send({"type": "websocket.close", "code": 1008})

    return guard


async def _answer(admitted: ASGIApp, settings: GuardSettings, scope: Scope, receive: Receive, send: Send) -> None:
    begun = time.monotonic()
    status: int | None = None

    async def send_on(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
            headers = MutableHeaders(raw=list(message.get("headers", [])))
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            message = {**message, "headers": headers.raw}
        await send(message)

    try:
        try:
            _check_caller(scope, settings)
        except ApiError as error:
            await _refuse(error, scope, receive, send_on)
        else:
            await admitted(scope, receive, send_on)
    except Exception:
        status = status or 500  # as the server will answer
        raise
    finally:
        seconds = time.monotonic() - begun
        log.info("%s %s %d %.3f s", scope["method"], quote(scope["path"])[:200], status or CLOSED, seconds)


def _check_caller(scope: Scope, settings: GuardSettings) -> None:
    """Raises: ApiError."""
    fields = sum(len(name) + len(value) + 4 for name, value in scope["headers"])
    if fields + len(scope["path"]) + len(scope["query_string"]) > MAX_HEAD_BYTES:
        raise ApiError(431, f"line and headers of the request are longer than {MAX_HEAD_BYTES} bytes")
    host = check_host_header(_values(scope, "host"), settings.host, settings.hosts)
    check_origin_header(_values(scope, "origin"), host, settings.origins)


def _allowing(app: ASGIApp, origins: tuple[str, ...]) -> ASGIApp:
    """Tell browsers that pages of ``origins`` may read the answers; all others were refused before."""
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "POST"),
        allow_headers=("*",),  # OpenAI's client for browsers sends a dozen of its own
        allow_private_network=True,  # a page of the internet, if it is named, may ask a server on loopback
        expose_headers=("Retry-After",),
    )


def _is_open(scope: Scope) -> bool:
    path = scope["path"]
    return scope["method"] in ("GET", "HEAD") and (path in OPEN_PATHS or PAGE_FILE.fullmatch(path) is not None)


def _values(scope: Scope, name: str) -> list[bytes]:
    return [value.encode("latin-1") for value in Headers(scope=scope).getlist(name)]


async def _refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    await JSONResponse(error_body(error), error.status, headers=error.headers)(scope, receive, send)
