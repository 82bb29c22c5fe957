"""Whether a folder is one that a program copies to somebody else's computers: iCloud, Dropbox, OneDrive, Google Drive.

Goes by where these programs put their folders and what they write down of them, below a home folder that is handed
in; a folder is compared as the disk knows it, so that links and the letters' case do not matter. The price of asking no
program itself: one that keeps its files in a place of its own choosing, and tells nobody, is not noticed. What is said
here of a Mac's folders is as published, and was not tried on one.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CLOUD_STORAGE = Path("Library", "CloudStorage")
"""Where macOS has file providers put their folders, as ``Dropbox`` or ``OneDrive-Personal``."""
MOBILE_DOCUMENTS = Path("Library", "Mobile Documents")
ICLOUD_DRIVE = MOBILE_DOCUMENTS / "com~apple~CloudDocs"
DROPBOX_INFO = Path(".dropbox", "info.json")
NAMED = {
    "Dropbox*": "Dropbox",
    "OneDrive*": "OneDrive",
    "Google Drive*": "Google Drive",
    "GoogleDrive*": "Google Drive",
}
"""Folders in a home whose names tell."""


@dataclass(frozen=True)
class Synced:
    """A folder that a program keeps copies of elsewhere."""

    service: str
    folder: Path


def find_synced(path: Path, *, home: Path) -> Synced | None:
    """The synced folder that ``path``, which need not be there yet, is in or will be in; None if it is in none."""
    places = (Path(os.path.abspath(path)), path.resolve())  # noqa: PTH100 - the first as it was written, links and all
    above = {_identity(folder) for place in places for folder in (place, *place.parents)} - {None}
    return next((found for found in _folders(home) if _identity(found.folder) in above), None)


def warning_of_synced(path: Path, *, home: Path | None = None) -> str | None:
    """A sentence for the user, if ``path`` is in a synced folder.

    Args:
        home: the user's own, if not given.
    """
    try:
        found = find_synced(path, home=home or Path.home())
    except RuntimeError:  # the user has no home
        return None
    if found is None:
        return None
    return (
        f"{path} is in a folder that {found.service} copies to other computers ({found.folder}); "
        "private data and what was learned from it go there too: choose a place outside of it"
    )


def _folders(home: Path) -> Iterator[Synced]:
    for name in ("Desktop", "Documents"):  # iCloud has links to them where it syncs them
        if os.path.lexists(home / ICLOUD_DRIVE / name):
            yield Synced("iCloud", home / name)
    yield Synced("iCloud", home / MOBILE_DOCUMENTS)
    for folder in _matches(home / CLOUD_STORAGE, "*"):
        service = folder.name.partition("-")[0]
        yield Synced(NAMED.get(f"{service}*", service), folder)
    for folder in _dropbox_folders(home / DROPBOX_INFO):
        yield Synced("Dropbox", folder)
    for pattern, service in NAMED.items():
        for folder in _matches(home, pattern):
            yield Synced(service, folder)


def _matches(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(path for path in folder.glob(pattern) if path.is_dir())
    except OSError:
        return []


def _dropbox_folders(info: Path) -> list[Path]:
    """What Dropbox writes down: ``{"personal": {"path": ...}, "business": {"path": ...}}``."""
    try:
        accounts = json.loads(info.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    found = accounts.values() if isinstance(accounts, dict) else []
    paths = [account.get("path") for account in found if isinstance(account, dict)]
    return [Path(path) for path in paths if isinstance(path, str) and path]


def _identity(folder: Path) -> tuple[int, int] | None:
    """The folder as the disk knows it; None if it is not there or may not be seen."""
    try:
        state = folder.stat()
    except (OSError, ValueError):  # ValueError: a NUL in a name
        return None
    return state.st_dev, state.st_ino
