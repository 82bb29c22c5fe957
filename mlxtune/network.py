"""The only way out of the machine: fetching a wheel from the user's own package index.

Nothing else in the package opens a connection. ``--offline`` (or ``MLXTUNE_OFFLINE=1``) closes this way too, with an
error that says what was wanted, and has the hub's own libraries refuse to connect; what is cached is never asked for
again.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from mlxtune.errors import NetworkError
from mlxtune.files import flush_path, sha256_of
from mlxtune.progress import Progress, silent

OFFLINE = "MLXTUNE_OFFLINE"


def is_offline() -> bool:
    """Whether the user has forbidden the network."""
    return os.environ.get(OFFLINE, "").lower() not in ("", "0", "false", "no", "off")


def close_hub() -> None:
    """Have huggingface_hub and transformers refuse to connect, in this process and its children."""
    os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
    # The environment is read when huggingface_hub is imported; where that is over, its own variable is what it heeds.
    constants: Any = sys.modules.get("huggingface_hub.constants")
    if constants is not None:
        constants.HF_HUB_OFFLINE = True


def require_online(what: str) -> None:
    """Raise NetworkError, naming ``what`` was to be fetched, if the network is forbidden."""
    if is_offline():
        raise NetworkError(
            f"{what} is not on this machine, and the network is off",
            remedy=f"run once without --offline (or {OFFLINE})",
        )


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
