"""Server-sent events: JSON documents, one after another, while an answer is written.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html; the last event is OpenAI's ``[DONE]``.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import StreamingResponse

from mlxtune.deployment.server.disconnect import unless_gone
from mlxtune.deployment.server.errors import ApiError, error_body

HEADERS = {"X-Accel-Buffering": "no"}
"""A proxy that gathers a stream would hide that it is one."""


async def respond(request: Request, documents: AsyncGenerator[Any]) -> StreamingResponse:
    """A response of events. A client that goes away closes ``documents``, before the first event or after.

    Raises: ApiError, where there is an error before the first event; one that comes later is the last event.
        ClientDisconnect.
    """
    try:
        first = await unless_gone(request, _first(documents))
    except BaseException:
        await documents.aclose()
        raise
    return StreamingResponse(_events(first, documents), media_type="text/event-stream", headers=HEADERS)


async def _first(documents: AsyncGenerator[Any]) -> Any:
    return await anext(documents, None)


async def _events(first: Any, documents: AsyncGenerator[Any]) -> AsyncIterator[bytes]:
    try:
        if first is not None:
            yield _event(first)
        async for document in documents:
            yield _event(document)
        yield b"data: [DONE]\n\n"
    except ApiError as error:
        yield _event(error_body(error))
    finally:
        await documents.aclose()


def _event(document: Any) -> bytes:
    return b"data: " + json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
