"""Where mlxtune keeps what it can make or fetch again: converted models, the renamed BLAS, base scores.

The folder is the owner's alone. An entry is a folder or file whose name holds the hash of all that it was made from,
so that nothing in it is ever stale; what made it knows the rest.
"""

import os
import sys
from pathlib import Path

from mlxtune.errors import DeviceError

CACHE = "MLXTUNE_CACHE"


def cache_folder(*parts: str) -> Path:
    """The cache's folder, or one below it; absolute, and made, with mode 0700, if it is not there.

    ``MLXTUNE_CACHE`` names another place; else ``~/Library/Caches/mlxtune`` on macOS and
    ``$XDG_CACHE_HOME/mlxtune`` or ``~/.cache/mlxtune`` elsewhere.

    Raises: DeviceError, if the folder cannot be made.
    """
    try:
        root = _root()
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = root.joinpath(*parts)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except (OSError, RuntimeError) as error:  # RuntimeError: the user has no home
        is_system = isinstance(error, OSError)
        raise DeviceError(
            f"the cache folder cannot be made: {error.strerror if is_system else error}",
            where=error.filename if is_system else None,
            remedy=f"set {CACHE} to a folder that you can write to",
        ) from error
    return folder


def _root() -> Path:
    if named := os.environ.get(CACHE):
        return Path(named).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "mlxtune"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "mlxtune"
