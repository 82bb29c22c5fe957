"""The only way out of the machine: a wheel from the user's own package index, and files from the hub and to it.

Nothing else in the package opens a connection. Where the network is off (``--offline``, ``MLXTUNE_OFFLINE=1``, or a
recipe's ``offline: true``) this way is closed too, with an error that says what was wanted; offline.py puts up a guard
besides, for whatever else might try. What is cached is never asked for again. The command line keeps the hub closed to
mlx_lm and transformers at all times: it is open inside `open_hub` alone, and there without telemetry.
"""

import contextlib
import logging
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlxtune.errors import NetworkError
from mlxtune.files import flush_path, sha256_of
from mlxtune.progress import Progress, silent

OFFLINE = "MLXTUNE_OFFLINE"
HUB_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
HUB_SILENT = ("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_UPDATE_CHECK")
CLOSED_BY_US = "_MLXTUNE_CLOSED_HUB"
"""Set beside ``HUB_OFFLINE`` by `close_hub`, for child processes too: the user did not forbid the hub, we closed it."""

NOT_HERE = "is not on this machine"
GO_ONLINE = f"run once without --offline, {OFFLINE} and the recipe's offline: true"
"""What to do where the network is off and needed."""

SERVER_FAULT = 500
"""The lowest status of HTTP that is the server's own fault."""

_hub_is_open = threading.Lock()


def is_offline() -> bool:
    """Whether the user has forbidden the network."""
    return os.environ.get(OFFLINE, "").lower() not in ("", "0", "false", "no", "off")


def close_hub() -> None:
    """Have huggingface_hub and transformers refuse to connect, in this process and its children."""
    if not _is_hub_forbidden():
        os.environ[CLOSED_BY_US] = "1"
    for name in (*HUB_OFFLINE, *HUB_SILENT):
        os.environ[name] = "1"
    # The environment is read when huggingface_hub is imported; where that is over, its own variable is what it heeds.
    constants: Any = sys.modules.get("huggingface_hub.constants")
    if constants is not None:
        constants.HF_HUB_OFFLINE = True


@contextlib.contextmanager
def open_hub(what: str, *, need: str = NOT_HERE) -> Iterator[Any]:
    """huggingface_hub's settings, with connections allowed within the block, and without telemetry.

    The settings are the whole process's, so one thread at a time has the hub open. Xet's own client, which connects
    beside them and cannot resume, stays out of it.

    Args:
        what, need: name what is to be fetched, and why the network is needed for it, for the error.

    Raises: NetworkError, if the user has forbidden the network, or the hub (``HF_HUB_OFFLINE``).
    """
    require_online(what, need=need)
    if _is_hub_forbidden():
        raise NetworkError(
            f"{what} {need}, and HF_HUB_OFFLINE forbids the hub",
            remedy="run once without HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE",
        )
    constants = hub_settings()
    wanted = {"HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_TELEMETRY": True, "HF_HUB_DISABLE_XET": True}
    logger = logging.getLogger("huggingface_hub")
    with _hub_is_open:
        before, level = {name: getattr(constants, name) for name in wanted}, logger.level
        try:
            for name, value in wanted.items():
                setattr(constants, name, value)
            logger.setLevel(logging.CRITICAL)  # what matters of what it would say comes as errors, in our words
            yield constants
        finally:
            logger.setLevel(level)
            for name, value in before.items():
                setattr(constants, name, value)


def hub_settings() -> Any:
    """huggingface_hub's module of settings: its cache's folder, which ``HF_HOME`` moves, and the hub's address."""
    for name in HUB_SILENT:
        os.environ.setdefault(name, "1")
    import huggingface_hub.constants as settings

    return settings


def _is_hub_forbidden() -> bool:
    """Whether the user, and not `close_hub`, has set one of the hub's own switches."""
    is_set = any(os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"} for name in HUB_OFFLINE)
    return is_set and os.environ.get(CLOSED_BY_US) != "1"


def require_online(what: str, *, need: str = NOT_HERE) -> None:
    """Raise NetworkError, naming ``what`` was to be fetched, if the network is forbidden."""
    if is_offline():
        raise NetworkError(f"{what} {need}, and the network is off", remedy=GO_ONLINE)


def why_no_hub(seconds: float = 10.0) -> tuple[str, str | None]:
    """The hub's address, without a login, and why nothing answers there; None, if something does.

    One request for the address itself, without a token. Where the network is off none is made.
    """
    address = str(hub_settings().ENDPOINT)
    shown = re.sub(r"//[^/@]*@", "//", address)
    import httpx2

    try:
        with open_hub("the hub", need="was to be asked whether it answers"):
            status = httpx2.head(address, timeout=seconds, follow_redirects=True).status_code
    except NetworkError as error:
        return shown, error.message
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        return shown, f"nothing answers: {type(error).__name__}"
    return shown, None if status < SERVER_FAULT else f"it answers with the fault {status}"


def download_wheel(
    requirement: str, sha256: str, folder: Path, *, size_bytes: int = 0, progress: Progress = silent
) -> Path:
    """Fetch one wheel, without its dependencies, through pip, so that the user's own index settings apply.

    Args:
        requirement: ``name==version``.
        sha256: what the wheel must hash to.
        folder: where it is put; made, if it is not there.
        size_bytes: of the wheel, so that the progress knows its end; 0 if it is not known.

    Raises: NetworkError, if the network is off, pip fails (its error is told) or the hash differs; ``folder`` then
        holds nothing new.
    """
    require_online(requirement)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as part:
        said = _pip_download(requirement, Path(part), size_bytes, progress)
        wheels = list(Path(part).glob("*.whl"))
        if said is not None or not wheels:
            raise NetworkError(
                f"could not download {requirement}: {said or 'pip brought no wheel'}",
                remedy="check the connection and pip's index settings (pip config list), then run again",
            )
        found = sha256_of(wheels[0])
        if found != sha256:
            raise NetworkError(
                f"{wheels[0].name} has the hash {found}, not {sha256}",
                remedy="the index serves another file under this name: do not use it; try another index",
            )
        flush_path(wheels[0])
        return wheels[0].replace(folder / wheels[0].name)


def _pip_download(requirement: str, folder: Path, size_bytes: int, progress: Progress) -> str | None:
    """Let pip put the wheel into ``folder``, and tell how far it is.

    Returns: None, or what pip said when it failed.
    """
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--no-color", "--quiet", "--dest", str(folder), requirement]
    # pip's own bar is for terminals alone; but what it has so far lies in its temporary folder, which is put here.
    environment = os.environ | {"TMPDIR": str(folder)}
    what = f"download {requirement}: bytes"
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, env=environment) as pip,
    ):
        try:
            while pip.poll() is None:
                try:
                    pip.wait(timeout=0.2)
                except subprocess.TimeoutExpired:
                    so_far = _bytes_in(folder)
                    progress(what, min(so_far, size_bytes - 1) if size_bytes else so_far, size_bytes)
        except BaseException:
            pip.kill()
            raise
        if pip.returncode == 0:
            so_far = _bytes_in(folder)
            progress(what, so_far, so_far)
            return None
        said.seek(0)
        lines = [line for line in said.read().splitlines() if line.strip()] or ["pip said nothing"]
        return next((line for line in reversed(lines) if line.startswith("ERROR:")), lines[-1]).removeprefix("ERROR: ")


def _bytes_in(folder: Path) -> int:
    """The size of all files below ``folder``, some of which may vanish while they are counted."""
    sizes = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                sizes += (Path(parent) / name).lstat().st_size
            except FileNotFoundError:
                continue
    return sizes
