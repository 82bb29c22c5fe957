"""A server with the chat page and a model that says what a test wants, when the test wants it.

Speaks the wire that the page speaks: chat completions and completions, streamed. What it answers is a list of steps:
text, or something to do. Kept beside the real server because a real one cannot be told to break off.
"""

import asyncio
import json
import math
import socket
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.middleware.base import RequestResponseEndpoint

from mlxtune.deployment.server.page import PageModel, page_routes

WAIT_S = 30.0


class Gate:
    """Holds an answer until the test opens it."""

    def __init__(self) -> None:
        self.is_open = threading.Event()
        self.reached = threading.Event()

    def open(self) -> None:
        self.is_open.set()


@dataclass(frozen=True)
class Refuse:
    """Answers with an error in OpenAI's form; after the first step it is an event of the stream, and the last one."""

    status: int
    message: str
    headers: tuple[tuple[str, str], ...] = ()


NO_KEY = Refuse(401, "the key is missing or wrong")


@dataclass(frozen=True)
class Piece:
    """A token whose bytes or probability a test cares about."""

    text: str
    bytes: tuple[int, ...] | None = None
    logprob: float = math.log(0.95)
    top: tuple[tuple[str, float], ...] = ()


class BreakOff:
    """Ends the stream before its end."""


@dataclass(frozen=True)
class Finish:
    reason: str


Step = str | Piece | Gate | Refuse | BreakOff | Finish


def echo(body: dict[str, Any]) -> Sequence[Step]:
    said = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
    return [f"{body['model']} ", "heard: ", said]


class ChatDouble:
    """Listens on loopback; `stop` and `start` again keep the port. ``requests`` are ``(path, body, headers)``."""

    def __init__(self, models: Sequence[PageModel], *, key: str | None = None, page_locked: bool = False) -> None:
        """With ``page_locked``, the settings and reports want the key too."""
        self.key = key
        self.answer: Callable[[dict[str, Any]], Sequence[Step]] = echo
        self.requests: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.left = threading.Event()
        """A client went away before its answer ended."""
        self.app = FastAPI()
        self.app.include_router(page_routes(models, max_tokens=256, context_length=2048, key_needed=key is not None))
        self.app.add_api_route("/v1/chat/completions", self._complete, methods=["POST"], response_model=None)
        self.app.add_api_route("/v1/completions", self._complete, methods=["POST"], response_model=None)
        if page_locked:
            self.app.middleware("http")(self._lock_page)
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [body for _, body, _ in self.requests]

    def says(self, *steps: Step) -> None:
        """What is answered from here on, whoever asks what."""
        self.answer = lambda _: steps

    def start(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(self.app, log_level="error", ws="none", lifespan="off", timeout_graceful_shutdown=1)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listener]})
        self.thread.start()

    def stop(self) -> None:
        self.server.should_exit = self.server.force_exit = True
        self.thread.join()

    def _has_key(self, request: Request) -> bool:
        return request.headers.get("authorization") == f"Bearer {self.key}"

    async def _lock_page(self, request: Request, go_on: RequestResponseEndpoint) -> Response:
        private = request.url.path.startswith(("/page/settings", "/page/report/"))
        return _error(NO_KEY) if private and not self._has_key(request) else await go_on(request)

    async def _complete(self, request: Request) -> Response:
        body = await request.json()
        path, headers = request.url.path, dict(request.headers)
        self.requests.append((path, body, headers))
        if self.key is not None and not self._has_key(request):
            return _error(NO_KEY)
        steps = list(self.answer(body))
        if steps and isinstance(steps[0], Refuse):
            return _error(steps[0])
        return StreamingResponse(self._stream(body, steps), media_type="text/event-stream")

    async def _stream(self, body: dict[str, Any], steps: Sequence[Step]) -> AsyncIterator[str]:
        finish, count, ended = "stop", 0, False
        try:
            for step in steps:
                if isinstance(step, Refuse):
                    ended = True
                    yield _event(_error_body(step))
                    return
                if isinstance(step, BreakOff):
                    ended = True
                    return
                if isinstance(step, Gate):
                    step.reached.set()
                    await _opened(step)
                elif isinstance(step, Finish):
                    finish = step.reason
                else:
                    count += 1
                    yield _event({"choices": [_choice(body, step if isinstance(step, Piece) else Piece(str(step)))]})
            ended = True
            yield _event({"choices": [{"index": 0, "delta": {}, "text": "", "finish_reason": finish}]})
            yield _event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": count}})
            yield "data: [DONE]\n\n"
        finally:
            if not ended:
                self.left.set()


async def _opened(gate: Gate) -> None:
    for _ in range(int(WAIT_S / 0.01)):
        if gate.is_open.is_set():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError("no test opened the gate")


def _choice(body: dict[str, Any], piece: Piece) -> dict[str, Any]:
    if "messages" not in body:
        choice: dict[str, Any] = {"index": 0, "text": piece.text, "finish_reason": None}
        if body.get("logprobs") is not None:
            choice["logprobs"] = {
                "tokens": [piece.text],
                "token_logprobs": [piece.logprob],
                "top_logprobs": [dict(piece.top)],
            }
        return choice
    choice = {"index": 0, "delta": {"content": piece.text}, "finish_reason": None}
    if body.get("logprobs"):
        token = {
            "token": piece.text,
            "bytes": list(piece.text.encode() if piece.bytes is None else piece.bytes),
            "logprob": piece.logprob,
            "top_logprobs": [{"token": text, "bytes": None, "logprob": logprob} for text, logprob in piece.top],
        }
        choice["logprobs"] = {"content": [token]}
    return choice


def _event(data: dict[str, Any]) -> str:
    return f": a comment\n\ndata: {json.dumps(data)}\n\n"


def _error(refusal: Refuse) -> Response:
    return JSONResponse(_error_body(refusal), refusal.status, headers=dict(refusal.headers))


def _error_body(refusal: Refuse) -> dict[str, Any]:
    return {"error": {"message": refusal.message, "type": "invalid_request_error", "param": None, "code": None}}
