"""Servers that tests talk to: a real one on loopback, over a tiny model."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from mlxtune.deployment.served import open_served
from mlxtune.deployment.server.app import make_app
from mlxtune.deployment.server.serving import Serving, make_serving
from mlxtune.deployment.server.worker import Limits, Worker


@contextmanager
def listening(app: Any, **settings: Any) -> Iterator[str]:
    """The address of ``app`` while it listens; it is ended as SIGTERM ends it."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", **settings))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        thread.join(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def serving_of(*sources: Any, **limits: Any) -> Iterator[Serving]:
    """Everything behind a server's paths, for runs or models."""
    with working(lambda: open_served(sources, device="cpu"), **limits) as worker:
        yield make_serving(worker)


@contextmanager
def working(open_models: Any, **limits: Any) -> Iterator[Worker]:
    """A worker that runs, over what ``open_models`` opens."""
    worker = Worker(open_models, Limits(**limits))
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


@contextmanager
def server_of(*sources: Any, **limits: Any) -> Iterator[str]:
    """The address of a server of runs or models."""
    with serving_of(*sources, **limits) as serving, listening(make_app(serving)) as address:
        yield address
