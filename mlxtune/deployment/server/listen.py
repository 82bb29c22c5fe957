"""An application on a port of this machine, until SIGINT or SIGTERM; knows nothing of what it answers."""

import logging
import signal
import socket
from collections.abc import Callable
from typing import Any

import uvicorn

from mlxtune.deployment.server.guard import GuardSettings
from mlxtune.deployment.server.uvicorn_settings import uvicorn_settings
from mlxtune.errors import UsageError

DRAIN_S = 30.0
"""Seconds that answers have to end in, once the server is told to stop."""


def listen(app: Any, settings: GuardSettings, listening: Callable[[str], None]) -> None:
    """Run an application until SIGINT or SIGTERM; both end it quietly, once its answers are whole."""
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    server = _Server(uvicorn.Config(app, **uvicorn_settings(settings, drain_s=DRAIN_S)), listening)

    ends = (signal.SIGINT, signal.SIGTERM)
    before = {end: signal.signal(end, lambda *_: None) for end in ends}  # uvicorn hands them on once it has drained
    try:
        server.run()
    finally:
        for end, handler in before.items():
            signal.signal(end, handler)


class _Server(uvicorn.Server):
    """uvicorn's, which tells where it listens once it does."""

    def __init__(self, config: uvicorn.Config, listening: Callable[[str], None]) -> None:
        super().__init__(config)
        self._listening = listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._listening(f"http://{f'[{host}]' if ':' in host else host}:{port}")


def check_port(settings: GuardSettings) -> None:
    """Raises: UsageError, if something listens there already, or nobody may."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise UsageError(
                f"cannot listen on {settings.host}:{settings.port}: {error.strerror}",
                where="--port",
                remedy="give another --port, or 0 for any that is free",
            ) from error
