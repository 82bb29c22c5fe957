"""A place that a recipe names into the files that are there: a file, a folder's, or those of a data set of the hub.

Folders are gone through in the order of names, links followed, each folder once. Knows the disk; which files are a
split's is for `reading.layout` to say, and what the hub has for `hub_dataset`.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from mlxtune.data.reading.layout import CARD, LONGEST_CARD, files_of_split
from mlxtune.errors import DataError
from mlxtune.progress import Progress, silent

SCHEME = "hf://"
MOST_FILES = 100_000
"""In a folder; a home folder that was named by mistake has more."""


@dataclass(frozen=True)
class Files:
    """The files of a place, in the order in which they are read; of the hub's, the ``commit`` that they are of."""

    paths: tuple[Path, ...]
    commit: str = ""


def is_remote(place: str) -> bool:
    """Whether a place is on the hub."""
    return place.startswith(SCHEME)


def find_files(place: str, split: str, *, commit: str | None = None, progress: Progress = silent) -> Files:
    """The files that have the rows of ``split`` at a place; those of the hub are fetched where they are not cached.

    Args:
        commit: of the hub's, the commit that they are to be of.

    Raises: DataError, if there are none, or it cannot be told which; NetworkError.
    """
    if is_remote(place):
        from mlxtune.data.reading.hub_dataset import fetch_files

        return fetch_files(place, split, commit=commit, progress=progress)
    path = Path(place)
    if not path.is_dir():
        if not os.path.lexists(path):
            raise DataError("there is no such file", where=path, remedy="check the path; relative ones start here")
        return Files((path,))  # whether it can be read, the reader says
    names = _names_in(path)
    card = ""
    if CARD in names:
        with (path / CARD).open("rb") as file:
            card = file.read(LONGEST_CARD).decode("utf-8", "replace").replace("\r\n", "\n")
    return Files(tuple(path / name for name in files_of_split(names, split, card, where=str(path))))


def _names_in(folder: Path) -> list[str]:
    """The files below a folder, relative to it, sorted; what is neither file nor folder, and hidden folders, are none.

    Raises: DataError, for links that lead in a circle, a folder that may not be read, or more than `MOST_FILES` files.
    """
    names: list[str] = []

    def refuse(error: OSError) -> None:
        raise DataError(
            f"a folder cannot be read: {error.strerror}", where=error.filename, remedy="name a folder that you can read"
        ) from error

    above: dict[str, tuple[str, ...]] = {str(folder): (os.path.realpath(folder),)}
    seen = {os.path.realpath(folder)}
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        folders[:] = _folders_to_go_into(parent, sorted(folders), above, seen)
        names += [path.relative_to(folder).as_posix() for name in files if _is_file(path := Path(parent, name))]
        if len(names) > MOST_FILES:
            raise DataError(
                f"the folder has more than {MOST_FILES:,} files", where=folder, remedy="name the folder of your data"
            )
    return sorted(names)


def _folders_to_go_into(parent: str, names: list[str], above: dict[str, tuple[str, ...]], seen: set[str]) -> list[str]:
    """Those that are neither hidden nor ``seen`` by another name, all noted. Raises: DataError, for a circle."""
    going = []
    for name in names:
        inside = os.path.join(parent, name)  # noqa: PTH118 - os.walk's own texts
        real = os.path.realpath(inside)
        if real in above[parent] and not name.startswith("."):
            raise DataError(
                "its symbolic links lead in a circle", where=inside, remedy="take this link out of the folder"
            )
        if not name.startswith(".") and real not in seen:
            seen.add(real)
            above[inside] = (*above[parent], real)
            going.append(name)
    return going


def _is_file(path: Path) -> bool:
    """Raises: DataError, for a link to nothing."""
    if path.is_symlink() and not path.exists():
        raise DataError("a link in the folder leads to nothing, or in a circle", where=path, remedy="take it out")
    return path.is_file()
