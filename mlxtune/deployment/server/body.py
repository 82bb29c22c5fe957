"""The body of a request: of the one type that is taken, whole, within a size and a time.

It is read before the application sees the request, so that no application has to look after that. The price is the
memory of a body for each request that is being received, which is why it has a limit.
"""

import asyncio

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

from mlxtune.deployment.server.errors import ApiError

WITHOUT_BODY = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing, and that a body means nothing to."""
MOST_DIGITS = 20
"""Of a Content-Length; more than any size has, and few enough to be made a number at once."""


def check_type(scope: Scope) -> None:
    """Refuse what is not declared as JSON, a body being there or not.

    That a form of another site's page cannot declare it is the second wall against such pages.

    Raises: ApiError, 415.
    """
    if scope["method"] in WITHOUT_BODY:
        return
    headers = Headers(scope=scope)
    given = headers.getlist("content-type")
    if len(given) != 1 or given[0].partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "send JSON, and the header Content-Type: application/json", code="unsupported_media_type")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError(415, "send the body as it is, without Content-Encoding", code="unsupported_encoding")


async def read(scope: Scope, receive: Receive, *, max_bytes: int, seconds: float) -> bytes | None:
    """The whole body; None, if the client goes away before it is. Methods without one get an empty one, unread.

    Raises: ApiError, 413 where it is declared to be or turns out to be longer than ``max_bytes``, 408 where it is not
        whole in time.
    """
    if scope["method"] in WITHOUT_BODY:
        return b""
    too_long = ApiError(413, f"the body is longer than {max_bytes} bytes", code="body_too_large")
    declared = Headers(scope=scope).get("content-length", "0")
    if not (declared.isascii() and declared.isdecimal()):
        raise ApiError(400, "Content-Length is not a number", code="invalid_length")
    if len(declared) > MOST_DIGITS or int(declared) > max_bytes:
        raise too_long
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                body += message.get("body", b"")
                if len(body) > max_bytes:
                    raise too_long
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        said = f"the body did not come within {seconds:g} s"
        raise ApiError(408, said, code="timeout", headers={"Connection": "close"}) from None


def replay(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that gives ``body`` and then what comes after it, which tells of a client that goes away."""
    is_given = False

    async def again() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
