"""Where mlxtune keeps what it can make or fetch again: models, token ids, base scores, frozen blocks' states and more.

The folder is the owner's alone. An entry is a folder or file whose name holds the hash of all that it was made from,
so that nothing in it is ever stale; what made it knows the rest. Here it is known what each kind tells of its owner.
"""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from mlxtune.errors import DeviceError

CACHE = "MLXTUNE_CACHE"


@dataclass(frozen=True)
class Kind:
    """What the entries of one folder are."""

    what: str
    is_private: bool
    """Whether they hold the user's rows, or what can be read back from them."""


KINDS = {
    "blas": Kind("a faster BLAS for the CPU", is_private=False),
    "frozen_states": Kind("what a model's lower blocks made of your rows", is_private=True),
    "lm_eval": Kind("rows of lm-eval's tasks, of your own tasks too", is_private=True),
    "listings": Kind("which files data sets of the hub have", is_private=False),
    "models": Kind("models, fetched or converted", is_private=False),
    "references": Kind("how likely a model found the answers of your pairs before it learned them", is_private=True),
    "scores": Kind("scores of models without adapter, with your questions and their answers", is_private=True),
    "scratch": Kind("your rows' words while they are compared", is_private=True),
    "tokens": Kind("your rows as token ids, which can be turned back into their text", is_private=True),
}
UNKNOWN = Kind("of another version of mlxtune", is_private=True)
"""What is not known might hold anything."""


def kind_of(name: str) -> Kind:
    """What is kept in the folder of this name."""
    return KINDS.get(name, UNKNOWN)


def cache_folder(*parts: str) -> Path:
    """The cache's folder, or one below it; absolute, and made, with mode 0700, if it is not there.

    ``MLXTUNE_CACHE`` names another place; else ``~/Library/Caches/mlxtune`` on macOS and
    ``$XDG_CACHE_HOME/mlxtune`` or ``~/.cache/mlxtune`` elsewhere.

    Raises: DeviceError, if the folder cannot be made.
    """
    try:
        folder = _root()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for part in parts:  # one by one: those between would be open to others, and the root may be a folder that is
            folder /= part
            folder.mkdir(exist_ok=True, mode=0o700)
    except (OSError, RuntimeError) as error:  # RuntimeError: the user has no home
        is_system = isinstance(error, OSError)
        raise DeviceError(
            f"the cache folder cannot be made: {error.strerror if is_system else error}",
            where=error.filename if is_system else None,
            remedy=f"set {CACHE} to a folder that you can write to",
        ) from error
    return folder


@dataclass(frozen=True)
class Entry:
    """One thing in the cache: a file or folder below the folder of its ``kind``."""

    kind: str
    path: Path
    size_bytes: int
    modified: float
    """Seconds since 1970."""

    @property
    def is_private(self) -> bool:
        return kind_of(self.kind).is_private


def entries(kind: str | None = None) -> list[Entry]:
    """What is in the cache, or of one kind, the oldest first."""
    found = []
    for folder in sorted(path for path in cache_folder().iterdir() if path.is_dir() and kind in (None, path.name)):
        for path in folder.iterdir():
            files = [path] if not path.is_dir() else [file for file in path.rglob("*") if file.is_file()]
            size = sum(file.lstat().st_size for file in files)
            found.append(Entry(folder.name, path, size, path.lstat().st_mtime))
    return sorted(found, key=lambda entry: (entry.modified, entry.path))


def forget(entry: Entry) -> None:
    """Remove an entry. A process that has its files open keeps them until it ends."""
    if entry.path.is_dir() and not entry.path.is_symlink():
        shutil.rmtree(entry.path, ignore_errors=True)
    else:
        entry.path.unlink(missing_ok=True)


def make_room(kind: str, limit_bytes: int) -> None:
    """Forget the oldest entries of a kind until the others take ``limit_bytes`` at most; the newest stays."""
    found = entries(kind)
    total = sum(entry.size_bytes for entry in found)
    for entry in found[:-1]:
        if total <= limit_bytes:
            return
        forget(entry)
        total -= entry.size_bytes


def _root() -> Path:
    if named := os.environ.get(CACHE):
        return Path(named).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "mlxtune"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "mlxtune"
