"""Files that are whole or absent: atomic writes, durable flushes, hashes.

Whatever appears under its final name was written beside it, flushed to the medium and renamed. The price is one
flush a file, which on macOS means F_FULLFSYNC, since fsync there stops at the drive's cache. All of it is its owner's
alone, from the first byte on and whatever the umask says: rows are private, and a tuned model holds what it was
taught. Whoever wants to share a result says so to the system (``chmod``).
"""

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mlxtune.errors import DeviceError, OutputExistsError, UsageError

PART = re.compile(r"\..+\.[0-9a-f]{8}(\.old)?")
"""The hidden names of what is being written, and of what it is to replace."""
OWN, SHARED = 0o600, 0o666
"""Modes of new files: the owner's alone; or as the umask lets them be, for folders that others read too."""


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an error of the system in this block say where: one that comes while a file is written names no file."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def flush(descriptor: int) -> None:
    """Bring what was written through ``descriptor`` to the medium."""
    if sys.platform == "darwin":
        import fcntl

        with contextlib.suppress(OSError):  # not every file system has it (network shares)
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)


def flush_path(path: Path) -> None:
    """Bring a file, or a folder's list of names, to the medium."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with naming(path):
            flush(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes, *, mode: int = OWN) -> None:
    """Write ``path`` whole or not at all."""
    write_together({path: content}, mode=mode)


def write_together(contents: Mapping[Path, bytes], *, mode: int = OWN) -> None:
    """Write files that belong together, as `new_files` does."""
    with new_files(contents, mode=mode) as parts:
        for path, content in contents.items():
            with naming(path):
                parts[path].write_bytes(content)


@contextlib.contextmanager
def new_files(paths: Iterable[Path], *, mode: int = OWN) -> Iterator[dict[Path, Path]]:
    """Files that belong together, in folders that are there: none has its name before all are on the medium.

    The block gets a hidden sibling of each, empty, and writes it. What fails before its end, or before all are flushed,
    leaves all as they were. Then they are renamed, one right after the other: a process that is killed in
    between leaves some new and some old.
    """
    parts = {path: path.with_name(f".{path.name}.{secrets.token_hex(4)}") for path in paths}
    try:
        for part in parts.values():
            part.touch(mode, exist_ok=False)
        yield parts
        for part in parts.values():
            flush_path(part)
        for path, part in parts.items():
            part.replace(path)
        for folder in {path.parent for path in parts}:
            flush_path(folder)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, mode: int = OWN) -> None:
    """Write ``path`` as UTF-8, whole or not at all."""
    write_bytes(path, text.encode("utf-8"), mode=mode)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, whole or not at all. NaN is refused: other readers do not know it."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _check_parent(path: Path) -> None:
    """Raises: OutputExistsError, if a file stands where one of ``path``'s folders is to be."""
    above = next((place for place in path.parents if os.path.lexists(place)), None)
    if above is not None and not above.is_dir():
        raise OutputExistsError(
            "this is a file, and a folder is needed there", where=above, remedy="choose another place"
        )


def check_new_file(path: Path, *, force: bool = False) -> None:
    """What `new_file` refuses before its block runs. Raises: OutputExistsError."""
    _check_parent(path)
    if path.is_dir():
        raise OutputExistsError("this is a folder, and a file is to be written", where=path, remedy="name a file")
    if not force and os.path.lexists(path):
        raise _taken(path)


@contextlib.contextmanager
def new_file(path: Path, *, force: bool = False) -> Iterator[Path]:
    """A file that appears under ``path`` only when the block has ended well; its folder is made where it is missing.

    The block gets a hidden sibling to write, empty and its owner's alone (mode 0600).

    Raises: OutputExistsError, if ``path`` exists and ``force`` is not set, before the block runs or after it; also if
        it is a folder.
    """
    check_new_file(path, force=force)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with naming(part):
            part.touch(OWN, exist_ok=False)
            yield part
        flush_path(part)
        check_new_file(path, force=force)
        part.replace(path)
        flush_path(path.parent)
    finally:
        part.unlink(missing_ok=True)


def check_new_folder(path: Path, *, force: bool = False) -> None:
    """What `new_folder` refuses before its block runs, for those who have long work to do before that.

    Raises: OutputExistsError, as `new_folder` does.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 - as in new_folder
    _check_parent(path)
    if force and any(place.is_relative_to(path) for place in (Path.cwd(), Path.home())):
        raise OutputExistsError(
            "this folder holds the working folder or the home folder, and is not replaced",
            where=path,
            remedy="choose another place",
        )
    if not force and path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise _taken(path)


def check_not_inside(out: Path, sources: Mapping[str, Path | None]) -> None:
    """Refuse to write ``out`` where it would replace what is read: ``force`` is no leave for that.

    Args:
        sources: what each is, and where; None, and what is not there, is passed over.

    Raises: UsageError, if ``out`` is one of them, or holds it.
    """
    for what, path in sources.items():
        if path is not None and path.exists() and path.resolve().is_relative_to(out.resolve()):
            raise UsageError(f"the {what} is there, and is not replaced", where=out, remedy="choose another place")


def check_disk_space(
    folder: Path, needed_bytes: int, *, free_bytes: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free
) -> None:
    """Refuse long work whose result would not fit on the disk, before it begins.

    Args:
        folder: where the result is to be; it need not be there yet.
        free_bytes: how much room a path's disk has.

    Raises: DeviceError.
    """
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = free_bytes(place)
    if needed_bytes > free:
        raise DeviceError(
            f"{needed_bytes / 1e9:.2f} GB are needed, and {free / 1e9:.2f} GB are free on this disk",
            where=place,
            remedy="make room, or write to another disk",
        )


@contextlib.contextmanager
def new_folder(path: Path, *, force: bool = False) -> Iterator[Path]:
    """A folder that appears under ``path`` only when the block has ended well; its owner's alone (mode 0700).

    The block gets a temporary sibling to fill. ``force`` replaces what is there, at the end, not before; a process that
    is killed just then leaves both beside ``path``, whole, under hidden names.

    Raises: OutputExistsError, if ``path`` exists, is no empty folder, and ``force`` is not set: before the block runs,
        or after it, where another process was faster; also if ``force`` would replace the home or working folder.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 - pathlib has no normalization of ".." that leaves links alone
    check_new_folder(path, force=force)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    part.mkdir(mode=0o700)
    try:
        yield part
        for file in sorted(part.rglob("*"), reverse=True):
            flush_path(file)
        flush_path(part)
        if force and os.path.lexists(path):
            _exchange(part, path)
        else:
            _claim(part, path)
        flush_path(path.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def clear_parts(folder: Path) -> None:
    """Remove what a killed process left half done in ``folder``; for one who knows that no other writes there."""
    for path in folder.iterdir():
        if PART.fullmatch(path.name):
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _claim(part: Path, path: Path) -> None:
    """Give ``part`` its final name, which is free or an empty folder's."""
    try:
        part.rename(path)
    except OSError as error:
        if os.path.lexists(path):
            raise _taken(path) from error
        raise


def _exchange(part: Path, path: Path) -> None:
    """Put ``part`` in the place of ``path``; if that fails, ``path`` is what it was."""
    old = path.with_name(f".{path.name}.{secrets.token_hex(4)}.old")
    try:
        path.rename(old)
        part.rename(path)
    except BaseException:
        if os.path.lexists(old) and not os.path.lexists(path):
            old.rename(path)
        raise
    _remove(old)


def _taken(path: Path) -> OutputExistsError:
    return OutputExistsError("the output exists already", where=path, remedy="choose another place, or add --force")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
