"""The one thread where MLX lives, and the way to it from asyncio.

The thread opens the models, takes requests from a queue, steps the engine, and hands each piece of an answer to the
coroutine that waits for it. Nothing else touches an array. The engine's thread never waits for a client: what a slow
one has not read yet stays in that client's own queue. The price is a hop between threads for every step.
"""

import asyncio
import contextlib
import itertools
import logging
import queue
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx

from mlxtune.deployment.served import Served
from mlxtune.deployment.server.errors import ApiError
from mlxtune.inference.engine import Engine, Piece, Request

log = logging.getLogger("mlxtune.server")

BEAT_S = 0.5
"""The thread comes round at least so often, with work or without."""
STUCK_S = 60.0
"""A thread that has not come round for so long is not well; no step takes as long on a machine that fits the model."""
RETRY = {"Retry-After": "5"}
FAILURES = 3
"""Steps in a row that fail before the server calls itself broken."""


@dataclass(frozen=True)
class Limits:
    """What the server takes on; the rest is refused, by name."""

    batch_size: int = 16
    """Answers of one model that are written together."""
    waiting: int = 64
    """Answers that may wait beside those that are written."""
    max_tokens: int = 4096
    """Of one answer."""
    choices: int = 16
    """Answers that one request may ask for."""
    request_s: float = 600.0
    """Seconds that one request may take."""


@dataclass(frozen=True, eq=False)
class _Asked:
    """One answer that somebody waits for: the ``place`` of its request, and where its pieces go."""

    number: int
    place: int
    request: Request
    pieces: "asyncio.Queue[tuple[int, Piece | ApiError]]"
    loop: asyncio.AbstractEventLoop


class Worker:
    """The engine's thread; every method but those that say otherwise belongs to the event loop."""

    def __init__(self, open_models: Callable[[], Served], limits: Limits) -> None:
        self._open_models = open_models
        self.limits = limits
        self._commands: queue.SimpleQueue[_Asked | int | None] = queue.SimpleQueue()  # an answer to begin, or to drop
        self._numbers = itertools.count()
        self._open: set[int] = set()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._opened = threading.Event()
        self._last_beat = time.monotonic()
        self._failures = 0
        self._is_stopping = False
        self._figures = (0, 0, 0)
        self.served: Served | None = None
        self.error: BaseException | None = None
        """Why the thread is over, where it is over by itself."""

    def start(self) -> Served:
        """Start the thread and wait until the models are open.

        Raises: what opening them raised; KeyboardInterrupt, once the thread is over, since a process that ends while
            MLX works in it is aborted.
        """
        try:
            self._thread.start()
            self._opened.wait()
        except BaseException:
            self.stop()
            raise
        if self.error is not None:
            raise self.error
        assert self.served is not None
        return self.served

    def stop(self) -> None:
        """End the thread after the step that it is in; whoever still waits for an answer gets an error. May be said
        twice.
        """
        self._is_stopping = True
        self._commands.put(None)
        self._thread.join()

    @property
    def fault(self) -> str | None:
        """What is wrong with the thread; None, if it is well."""
        if not self._thread.is_alive():
            return "the engine's thread is over"
        if self._failures >= FAILURES:
            return f"the last {self._failures} steps of the engine failed"
        if self._opened.is_set() and time.monotonic() - self._last_beat > STUCK_S:
            return f"the engine's thread has not come round for more than {STUCK_S:.0f} s"
        return None

    @property
    def is_ready(self) -> bool:
        """Whether requests are taken."""
        return self._opened.is_set() and not self._is_stopping and self.fault is None

    @property
    def waiting(self) -> int:
        """Answers that are not begun."""
        return self._figures[0]

    @property
    def active(self) -> int:
        """Answers that are being written."""
        return self._figures[1]

    @property
    def kept_bytes(self) -> int:
        """Of prompts that were read and are kept."""
        return self._figures[2]

    async def answer(self, requests: Sequence[Request]) -> AsyncGenerator[tuple[int, Piece]]:
        """The pieces of the answers to ``requests`` as they come, each with its request's place; to be closed, by which
        what is not written yet never is.

        Raises: ApiError, where there is no room (429), the engine fails (500) or it takes too long (504).
        """
        if not self.is_ready:
            raise ApiError(503, "the server is not ready", type="server_error", headers=RETRY)
        if len(self._open) + len(requests) > self.limits.batch_size + self.limits.waiting:
            raise ApiError(
                429,
                f"{len(self._open)} answers are being written or wait; try again in a few seconds",
                type="rate_limit_error",
                code="queue_full",
                headers=RETRY,
            )
        pieces: asyncio.Queue[tuple[int, Piece | ApiError]] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        asked = [_Asked(next(self._numbers), place, one, pieces, loop) for place, one in enumerate(requests)]
        open_here = {one.number for one in asked}
        self._open |= open_here
        for one in asked:
            self._commands.put(one)
        said = f"the answer took more than {self.limits.request_s:.0f} s; ask for fewer tokens"
        late = ApiError(504, said, type="server_error", code="timeout")
        deadline = loop.call_later(self.limits.request_s, pieces.put_nowait, (0, late))
        try:
            while open_here:
                place, piece = await pieces.get()
                if isinstance(piece, ApiError):
                    raise piece
                if piece.finish_reason is not None:
                    open_here.remove(asked[place].number)
                    self._open.remove(asked[place].number)
                yield place, piece
        finally:
            deadline.cancel()
            self._open -= open_here
            for number in open_here:
                self._commands.put(number)

    # --- on the engine's thread

    def _run(self) -> None:
        try:
            self.served = self._open_models()
            engine = self._new_engine()
        except BaseException as error:  # noqa: BLE001 - whoever waits in start() gets it
            self.error = error
            return
        finally:
            self._opened.set()
        tickets: dict[int, _Asked] = {}
        try:
            self._serve(engine, tickets)
        finally:
            self._is_stopping = True
            _fail(tickets, ApiError(503, "the server was stopped", type="server_error"))
            mx.clear_streams()  # of this thread, which nothing runs on any more

    def _serve(self, engine: Engine, tickets: dict[int, _Asked]) -> None:
        """Take requests and hand over what comes of them, until the end."""
        while not self._is_stopping:
            self._last_beat = time.monotonic()
            try:
                self._take(engine, tickets)
                pieces = engine.step()
            except Exception:  # one batch fails, the server goes on
                log.exception("a step of the engine failed")
                self._failures += 1
                _fail(tickets, ApiError(500, "the engine failed on this batch", type="server_error"))
                engine.close()
                engine = self._new_engine()
                continue
            _hand_over([(tickets[piece.ticket], piece) for piece in pieces])
            for piece in pieces:
                self._failures = 0
                if piece.finish_reason is not None:
                    del tickets[piece.ticket]
            self._figures = (engine.waiting, engine.active, engine.kept_bytes)
        engine.close()

    def _new_engine(self) -> Engine:
        assert self.served is not None
        return Engine(
            self.served.network,
            self.served.tokenizer,
            bank=self.served.bank,
            batch_size=self.limits.batch_size,
            keeps_answers=True,
        )

    def _take(self, engine: Engine, tickets: dict[int, _Asked]) -> None:
        """Do what the event loop asked for; wait for it, where there is nothing else to do."""
        with contextlib.suppress(queue.Empty):
            command = self._commands.get(timeout=BEAT_S) if engine.is_idle else self._commands.get_nowait()
            while command is not None:
                if isinstance(command, _Asked):
                    tickets[engine.submit(command.request)] = command
                else:
                    for ticket in [ticket for ticket, one in tickets.items() if one.number == command]:
                        engine.cancel(ticket)
                        del tickets[ticket]
                command = self._commands.get_nowait()


def _fail(tickets: dict[int, _Asked], error: ApiError) -> None:
    """Tell all that wait."""
    _hand_over([(one, error) for one in tickets.values()])
    tickets.clear()


def _hand_over(pieces: Sequence[tuple[_Asked, Piece | ApiError]]) -> None:
    """Give each to whom it is for, from another thread than the loops'; a loop is woken once for all of its own."""
    loops: dict[asyncio.AbstractEventLoop, list[tuple[_Asked, Piece | ApiError]]] = {}
    for one, piece in pieces:
        loops.setdefault(one.loop, []).append((one, piece))
    for loop, here in loops.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_put, here)


def _put(pieces: Sequence[tuple[_Asked, Piece | ApiError]]) -> None:
    for one, piece in pieces:
        one.pieces.put_nowait((one.place, piece))
