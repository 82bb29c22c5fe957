"""A server from its sources to its end: models opened, guarded, listening, drained."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlxtune.deployment.served import Served, open_served
from mlxtune.deployment.server.app import make_app
from mlxtune.deployment.server.guard import GuardSettings, guarded
from mlxtune.deployment.server.listen import check_port, listen
from mlxtune.deployment.server.metrics import counted
from mlxtune.deployment.server.serving import make_serving
from mlxtune.deployment.server.worker import Limits, Worker
from mlxtune.progress import Progress, silent


@dataclass(frozen=True)
class ServeSettings:
    """Where a server listens, and what it takes on."""

    guard: GuardSettings
    limits: Limits = field(default_factory=Limits)
    device: str = "auto"
    raw: bool | None = None
    adapter: Path | None = None


def serve(
    sources: Sequence[str | Path],
    settings: ServeSettings,
    *,
    listening: Callable[[str, Served], None] = lambda _address, _served: None,
    progress: Progress = silent,
) -> None:
    """Serve runs and models until SIGINT or SIGTERM; answers that are being written are finished first.

    Args:
        listening: told the address once requests are taken.

    Raises: UsageError, if the port is taken, and as `open_served`; ModelError; AdapterError; RunError.
    """
    check_port(settings.guard)  # before the models are opened, which takes its time
    worker = Worker(
        lambda: open_served(
            sources, adapter=settings.adapter, device=settings.device, raw=settings.raw, progress=progress
        ),
        settings.limits,
    )
    served = worker.start()
    try:
        serving = make_serving(worker)
        app = make_app(serving, key_needed=settings.guard.api_key is not None)
        app = counted(guarded(app, settings.guard), serving.metrics)
        listen(app, settings.guard, lambda address: listening(address, served))
    finally:
        worker.stop()
