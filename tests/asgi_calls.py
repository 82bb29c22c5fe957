"""Requests to an ASGI application without a socket, byte for byte as a test wants them."""

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Headers
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """What OpenAI's form of an error holds."""
        return json.loads(self.body)["error"]


def request(
    method: str,
    path: str,
    headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    *,
    host: str | None = "localhost",
    query: bytes = b"",
    **more: Any,
) -> dict[str, Any]:
    """The scope of a request; ``headers`` as pairs, where one is there twice."""
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    if host is not None:
        pairs.insert(0, ("host", host))
    return {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query,
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in pairs],
        **more,
    }


def call(
    app: Any, scope: dict[str, Any], chunks: Iterable[bytes | None] = (b"",), *, leaves: bool = False
) -> Answer | None:
    """The answer of ``app``; None, if it gave none.

    Args:
        chunks: of the body. None: the client goes away in the middle. Without any, the body never comes.
        leaves: whether the client goes away after its body; else it waits.
    """
    return asyncio.run(_call(app, scope, list(chunks), leaves=leaves))


async def _call(app: Any, scope: dict[str, Any], left: list[bytes | None], *, leaves: bool) -> Answer | None:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        if not left and leaves:
            return {"type": "http.disconnect"}
        if not left:
            await asyncio.Event().wait()  # for ever
        chunk = left.pop(0)
        if chunk is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": chunk, "more_body": bool(left)}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    if not sent:
        return None
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return Answer(sent[0]["status"], Headers(raw=list(sent[0]["headers"])), body)
