"""The files below a folder, in an order that does not change: what could be a document, and what is refused unread.

Hidden files and folders are passed over. Links are followed, each place once, so that a circle ends; what is no plain
file (a pipe, a socket, a device) is listed and never opened. Knows names; nothing of contents.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from mlxtune.errors import DataError

LARGEST = 512 << 20
"""Bytes of a file that is read."""
MOST_FILES = 100_000


@dataclass(frozen=True)
class Found:
    """``files`` are there to be read; ``refused`` has a reason and a remedy for each of the others."""

    files: tuple[Path, ...]
    refused: tuple[tuple[Path, str, str], ...]


def find_documents(folder: Path, *, leave_out: tuple[Path, ...] = ()) -> Found:
    """Everything below ``folder``, or the one file that it is; sorted by its path relative to it.

    Args:
        leave_out: files and folders of our own: the output, and what is kept beside it.

    Raises: DataError, if there is nothing, it cannot be listed, or has more than `MOST_FILES` files.
    """
    if not folder.exists():
        raise DataError("there is no such file or folder", where=folder, remedy="check the path")
    names = _walk(folder, {os.path.realpath(path) for path in leave_out}) if folder.is_dir() else [folder]
    files: list[Path] = []
    refused: list[tuple[Path, str, str]] = []
    for path in names:
        reason, remedy = _refusal(path)
        if reason:
            refused.append((path, reason, remedy))
        else:
            files.append(path)
    return Found(tuple(files), tuple(refused))


def _walk(folder: Path, leave_out: set[str]) -> list[Path]:
    found: list[Path] = []
    seen: set[str] = {os.path.realpath(folder)}

    def refuse(error: OSError) -> None:
        if error.filename == str(folder):
            raise DataError(
                f"the folder cannot be read: {error.strerror}", where=folder, remedy="name one that you can read"
            ) from error
        found.append(Path(error.filename))  # a folder below it: listed, not fatal

    for parent, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        going = []
        for name in sorted(folders):
            real = os.path.realpath(Path(parent, name))
            if not name.startswith(".") and real not in seen and real not in leave_out:
                seen.add(real)
                going.append(name)
        folders[:] = going
        for name in names:
            path = Path(parent, name)
            if not name.startswith(".") and os.path.realpath(path) not in leave_out:
                found.append(path)
        if len(found) > MOST_FILES:
            raise DataError(
                f"the folder has more than {MOST_FILES:,} files", where=folder, remedy="name the documents' folder"
            )
    return sorted(found, key=lambda path: path.relative_to(folder).parts)


def _refusal(path: Path) -> tuple[str, str]:  # noqa: PLR0911 - a return for each reason
    """Why ``path`` is not opened, and the way out; "" for both, if it is to be."""
    try:
        state = path.stat()
    except OSError as error:
        return f"it cannot be opened: {error.strerror}", "take the link out, or mend it" if path.is_symlink() else ""
    if stat.S_ISDIR(state.st_mode):
        return "the folder cannot be read", "give yourself the right to read it"
    if not stat.S_ISREG(state.st_mode):
        return "it is no plain file", "take it out of the folder"
    if not os.access(path, os.R_OK):
        return "it may not be read", "give yourself the right to read it"
    if state.st_size == 0:
        return "the file is empty", "take it out"
    if state.st_size > LARGEST:
        return f"it is larger than {LARGEST >> 20} MB", "cut it into several files"
    return "", ""
