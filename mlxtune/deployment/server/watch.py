"""``mlxtune watch``: the live view of one run, on this machine alone, behind the guard.

A run's samples are its owner's, and its buttons stop a training: so the server has a key of its own, made anew each
time. It stands behind the # of the address that is told, where no request carries it; the page sends it along. The
price is that the address has to be taken as it is told.
"""

import secrets
from collections.abc import Callable
from pathlib import Path

from mlxtune.deployment.server.guard import GuardSettings, guarded
from mlxtune.deployment.server.listen import check_port, listen
from mlxtune.deployment.server.live import live_app
from mlxtune.deployment.server.live_run import LiveRun
from mlxtune.runs.folder import open_run


def watch_run(path: str | Path, *, port: int = 0, listening: Callable[[str], None] = lambda _address: None) -> None:
    """Show a run until SIGINT or SIGTERM; the run itself is left alone.

    Args:
        port: 0 for any that is free.
        listening: told the address, key included, once it can be opened.

    Raises: RunError, if there is no run; UsageError, if the port is taken.
    """
    run = open_run(Path(path))
    settings = GuardSettings(port=port, api_key=secrets.token_urlsafe(24))
    check_port(settings)
    app = guarded(live_app(LiveRun(run.path)), settings)
    listen(app, settings, lambda address: listening(f"{address}/#{settings.api_key}"))
