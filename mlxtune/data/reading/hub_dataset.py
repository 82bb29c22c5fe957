"""A data set of the hub, ``hf://datasets/org/name[@revision][/path]``, as files in the hub's own cache.

Only the files of the split are fetched, at one commit, and nobody is asked for what is there: which files a commit has
is kept beside, since it never changes, and a branch is where it was when it was last asked for. A data set that is no
files of rows, or is made by a script, is read as the Parquet that the hub makes of it (``refs/convert/parquet``);
scripts are never run.
"""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from mlxtune.cache import cache_folder
from mlxtune.data.reading.kinds import find_kind
from mlxtune.data.reading.layout import CARD, LONGEST_CARD, files_of_split
from mlxtune.data.reading.locations import Files
from mlxtune.errors import DataError
from mlxtune.files import SHARED, check_disk_space, write_json, write_text
from mlxtune.models.hub_files import (
    COMMIT,
    Listing,
    RemoteFile,
    fetch_file,
    is_inside,
    list_files,
    page_of,
    repository_folder,
)
from mlxtune.network import require_online
from mlxtune.progress import Progress, silent

PLACE = re.compile(
    r"hf://datasets/(?P<repo>[\w-][\w.-]*/[\w.-]+)(@(?P<revision>refs/(?:convert|pr)/[\w.-]+|[\w.+-]+))?(/(?P<path>.*))?",
    re.ASCII,
)
CONVERTED = "refs/convert/parquet"
KIND = "dataset"


@dataclass(frozen=True)
class Place:
    """A data set, a branch, tag or commit of it, and a file, folder or configuration in it ("": all)."""

    text: str
    repo: str
    revision: str
    path: str


def parse_place(text: str) -> Place:
    """Raises: DataError, if ``text`` has not the form of a place on the hub."""
    match = PLACE.fullmatch(text)
    path = (match["path"] or "").strip("/") if match else ""
    if match is None or ".." in match["repo"] or (path and not is_inside(path)):
        raise DataError(
            f"{text[:200]!r} is no place on the hub",
            where=text[:200],
            remedy="write it as hf://datasets/org/name, with @revision and /path after it where you need them",
        )
    return Place(text, match["repo"], match["revision"] or "main", path)


def fetch_files(text: str, split: str, *, commit: str | None = None, progress: Progress = silent) -> Files:
    """The files of a split, fetched where the cache does not have them.

    Args:
        commit: the one to read, whatever the revision names now.

    Raises: DataError, if there is no such data set, it may not be read, or it cannot be told which files are meant;
        NetworkError; DeviceError, if the disk has no room.
    """
    place = parse_place(text)
    place = replace(place, revision=commit) if commit else place
    listing = _listing(place)
    if _needs_conversion(place, listing):
        place = replace(place, revision=CONVERTED)
        listing = _converted(place)
    names = _choose(place, listing, split)
    _fetch(place, listing, names, progress)
    folder = repository_folder(place.repo, KIND) / "snapshots" / listing.commit
    return Files(tuple(folder / name for name in names), listing.commit)


def _needs_conversion(place: Place, listing: Listing) -> bool:
    """Whether what is there cannot be read as it is: no files of rows, or a script beside them that makes the rows."""
    if place.revision.startswith("refs/") or place.path:
        return False
    script = f"{place.repo.rpartition('/')[2]}.py"
    kinds = {find_kind(PurePosixPath(name)) for name in listing.files if name != CARD}
    return script in listing.files or not kinds - {None, "text"}


def _converted(place: Place) -> Listing:
    try:
        return _listing(place)
    except DataError as error:
        raise DataError(
            f"{place.repo} has no files of rows, or a script makes them, and the hub has not made Parquet of it",
            where=page_of(place.repo, KIND),
            remedy="name a file in it that has rows, or choose another data set; scripts are not run",
        ) from error


def _choose(place: Place, listing: Listing, split: str) -> list[str]:
    """The names of the files that are meant."""
    path, names = place.path, list(listing.files)
    if path in listing.files:
        return [path]
    inside = [name for name in names if name.startswith(f"{path}/")] if path else names
    card = _card(place, listing)
    if not inside and not card:
        raise DataError(
            f"{place.repo} has no file or folder {path!r}",
            where=page_of(place.repo, KIND),
            remedy=f"see {page_of(place.repo, KIND)} for its files",
        )
    if path and inside:
        chosen = files_of_split([name.removeprefix(f"{path}/") for name in inside], split, "", where=place.text)
        return [f"{path}/{name}" for name in chosen]
    return files_of_split(names, split, card, where=place.text, config=path)


def _card(place: Place, listing: Listing) -> str:
    """The text of the data set's card; "" without one."""
    remote = listing.files.get(CARD)
    if remote is None or remote.size > LONGEST_CARD:
        return ""
    path = fetch_file(place.repo, listing.commit, CARD, remote, lambda _: None, kind=KIND)
    return path.read_text(encoding="utf-8", errors="replace")


def _fetch(place: Place, listing: Listing, names: list[str], progress: Progress) -> None:
    """Bring these files into the hub's cache."""
    folder = repository_folder(place.repo, KIND) / "snapshots" / listing.commit
    missing = [name for name in names if not (folder / name).is_file()]
    if not missing:
        return
    require_online(f"a part of the data set {place.repo} ({missing[0]})")
    total, done = sum(listing.files[name].size for name in missing), 0
    check_disk_space(repository_folder(place.repo, KIND), total)

    def told(count: int) -> None:
        nonlocal done
        done += count
        progress(f"download {place.repo}: bytes", done, total)

    for name in missing:
        fetch_file(place.repo, listing.commit, name, listing.files[name], told, kind=KIND)


def _listing(place: Place) -> Listing:
    """Which files a revision has: as it was kept, else as the hub says."""
    commit = _commit(place)
    if commit and (kept := _kept(place.repo, commit)) is not None:
        return kept
    require_online(f"the data set {place.repo}")
    listing = list_files(place.repo, place.revision, KIND)
    content = {name: [file.size, file.sha256] for name, file in listing.files.items()}
    write_json(_listing_path(place.repo, listing.commit), {"commit": listing.commit, "files": content})
    if place.revision != listing.commit:
        ref = repository_folder(place.repo, KIND) / "refs" / place.revision
        ref.parent.mkdir(parents=True, exist_ok=True)
        write_text(ref, listing.commit, mode=SHARED)  # as the hub's own client, whose cache it is
    return listing


def _commit(place: Place) -> str:
    """The commit that a revision was at when it was last asked for; "" if it never was."""
    if COMMIT.fullmatch(place.revision):
        return place.revision
    ref = repository_folder(place.repo, KIND) / "refs" / place.revision
    commit = ref.read_text(encoding="utf-8", errors="replace").strip() if ref.is_file() else ""
    return commit if COMMIT.fullmatch(commit) else ""


def _listing_path(repo: str, commit: str) -> Path:
    return cache_folder("listings") / f"{repo.replace('/', '--')}-{commit}.json"


def _kept(repo: str, commit: str) -> Listing | None:
    try:
        content: Any = json.loads(_listing_path(repo, commit).read_text(encoding="utf-8"))
        files = {str(name): RemoteFile(int(size), sha256) for name, (size, sha256) in content["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # not there, or damaged: ask again
        return None
    return Listing(commit, files, None) if all(map(is_inside, files)) else None
