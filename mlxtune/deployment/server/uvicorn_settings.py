"""How uvicorn listens: limits that hold before there is a request to look at.

uvicorn itself sets no time for a request's head, for a client that does not take its answer, or for what a refused
client still sends; `Connection` does. The price is that a few of uvicorn's inner names are used here, each of which a
test needs.
"""

import asyncio
import math
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from mlxtune.deployment.server.guard import MAX_HEAD_BYTES, GuardSettings


def uvicorn_settings(settings: GuardSettings, *, drain_s: float, connections: int = 200) -> dict[str, Any]:
    """What ``uvicorn.Config`` is given for a guarded application.

    Args:
        settings: say where to listen.
        drain_s: seconds that a server which is told to end gives to the answers that are being written.
        connections: that are open at once. A connection beyond them gets a plain 503, so there have to be more than
            answers that are written or wait, whose limit is told better (429). macOS gives a process 256 open files.
    """
    return {
        "host": settings.host,
        "port": settings.port,
        # the one protocol that counts a head's bytes while they come; which others are installed makes no difference
        "http": Connection,
        "h11_max_incomplete_event_size": MAX_HEAD_BYTES,
        "ws": "none",
        "limit_concurrency": connections,
        # longer than the 5 s of OpenAI's client: where the server hangs up first, a request may be lost
        "timeout_keep_alive": 15,
        "timeout_graceful_shutdown": math.ceil(drain_s),
        # else a client could claim in X-Forwarded-For to be another one
        "proxy_headers": False,
        "server_header": False,
        # uvicorn's has query strings; guard.py has its own
        "access_log": False,
        # what is printed is the command's to say
        "log_config": None,
        "workers": 1,
        "lifespan": "on",
    }


class Connection(H11Protocol):
    """One client's connection, ended where the client keeps it waiting for `deadline_s`.

    That is: with a head that is begun and not ended, or not begun on a connection that has brought none; with the rest
    of a request whose answer is given; or with an answer that it does not take. The body of a request that is not yet
    answered is the guard's, which can say what is wrong.
    """

    deadline_s = 30.0
    _request_deadline: asyncio.TimerHandle | None = None
    _answer_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] - as uvicorn has it
        super().connection_made(transport)
        self._watch_request()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_request()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_request()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._answer_deadline = self.loop.call_later(self.deadline_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._answer_deadline = _cancel(self._answer_deadline)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._request_deadline = _cancel(self._request_deadline)
        self._answer_deadline = _cancel(self._answer_deadline)

    def _watch_request(self) -> None:
        state = self.conn.their_state
        is_head_due = state is h11.IDLE and (self.cycle is None or bool(self.conn.trailing_data[0]))
        is_rest_due = state is h11.SEND_BODY and self.cycle.response_complete
        if not is_head_due and not is_rest_due:
            self._request_deadline = _cancel(self._request_deadline)
        elif self._request_deadline is None:
            self._request_deadline = self.loop.call_later(self.deadline_s, self.transport.abort)


def _cancel(deadline: asyncio.TimerHandle | None) -> None:
    if deadline is not None:
        deadline.cancel()
