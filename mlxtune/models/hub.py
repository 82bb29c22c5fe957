"""A model on the hub, ``org/name[@revision]``, as a local folder or GGUF file in the hub's own cache.

Knows which files a model needs, and when the cache has them all: then nobody is asked, not even where ``main`` is now,
so a result stays what it was until the user wants a newer one. Files other than weights come first, so that a model
which cannot be used is refused before gigabytes are fetched; and since weights come last, a snapshot that has them is
whole. Pickles and Python files are never fetched.
"""

import re
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from mlxtune.errors import DeviceError, ModelError
from mlxtune.files import SHARED, write_text
from mlxtune.models.hub_files import (
    COMMIT,
    Listing,
    blob_path,
    fetch_file,
    list_files,
    page_of,
    part_path,
    repository_folder,
)
from mlxtune.models.load import check_config, read_config
from mlxtune.models.safetensors import INDEX, WEIGHTS, expected_shards, read_index
from mlxtune.models.write import COMPANIONS
from mlxtune.network import hub_settings, require_online
from mlxtune.progress import Progress, silent

NAME = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w.-]+)(@(?P<revision>[\w.+/-]+))?", re.ASCII)
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
NEVER = (*PICKLED, ".py", ".safetensors", ".gguf", ".h5", ".msgpack", ".onnx")
"""Endings of what is no companion of weights, whatever it is named."""
TOKENIZERS = ("tokenizer.json", "*.model", "*.tiktoken", "vocab.*")
OPTIONAL = "LICENSE*"


@dataclass(frozen=True)
class HubName:
    """A repository on the hub, and a branch, tag or commit of it."""

    repo: str
    revision: str = "main"

    def __str__(self) -> str:
        return self.repo if self.revision == "main" else f"{self.repo}@{self.revision}"


@dataclass(frozen=True)
class Snapshot:
    """A model of the hub at one commit, on this machine."""

    path: Path
    """A folder with config, tokenizer and safetensors, or a GGUF file."""
    commit: str
    already_there: bool

    @property
    def is_gguf(self) -> bool:
        return self.path.suffix == ".gguf"


def parse_hub_name(source: str) -> HubName | None:
    """``org/name[@revision]``; None for what has another form, paths that start with a dot among it."""
    match = NAME.fullmatch(source)
    if match is None or ".." in source:
        return None
    return HubName(match["repo"], match["revision"] or "main")


def fetch_snapshot(name: HubName, *, newest: bool = False, progress: Progress = silent) -> Snapshot:
    """The model in the hub's cache; what is missing of it is fetched, and nothing is asked where nothing is missing.

    Args:
        newest: ask where the revision is now, though it is in the cache.

    Raises: ModelError, if there is none, it may not be read, or it is no model that can be used; NetworkError, if it
        cannot be fetched; DeviceError, if the disk has no room for it.
    """
    if not newest and (found := cached_snapshot(name)) is not None:
        return found
    require_online(_what_is_missing(name))
    listing = list_files(name.repo, name.revision)
    snapshot = _fetch(name, listing, progress)
    if name.revision != listing.commit:
        ref = repository_folder(name.repo) / "refs" / name.revision
        ref.parent.mkdir(parents=True, exist_ok=True)
        write_text(ref, listing.commit, mode=SHARED)  # as the hub's own client, whose cache it is
    return snapshot


def cached_snapshot(name: HubName) -> Snapshot | None:
    """The model as it is in the hub's cache, whoever fetched it, if it is whole; asks nobody."""
    folder = _snapshot_folder(name)
    if folder is None or _missing(name.repo, folder):
        return None
    ggufs = [] if list(folder.glob(WEIGHTS)) else sorted(folder.glob("*.gguf"))
    return Snapshot(ggufs[0] if ggufs else folder, folder.name, already_there=True)


def describe(name: HubName) -> dict[str, Any]:
    """What a user wants to know of a model before it is fetched; of one that is in the cache, nobody is asked.

    Returns: ``name``, ``page``, ``licence``, ``revision`` (the commit), ``size_bytes`` of all that is fetched, and
        ``cached``: where it is; None where it is not. Of a cached one the licence is not known, but for its page.
    Raises: as `fetch_snapshot`.
    """
    known = {"name": str(name), "page": page_of(name.repo)}
    found = cached_snapshot(name)
    if found is not None:
        files = [found.path] if found.is_gguf else [path for path in found.path.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        return known | {"licence": None, "revision": found.commit, "size_bytes": size, "cached": str(found.path)}
    require_online(_what_is_missing(name))
    listing = list_files(name.repo, name.revision)
    weights = choose_weights(listing.files, None, name.repo)
    companions = [] if weights[0].endswith(".gguf") else choose_companions(listing.files)
    size = sum(listing.files[file].size for file in {*companions, *weights})
    return known | {"licence": listing.licence, "revision": listing.commit, "size_bytes": size, "cached": None}


def choose_companions(names: Collection[str]) -> list[str]:
    """Of a repository's files, what belongs to a model beside its weights."""
    patterns = ("config.json", INDEX, *COMPANIONS)
    return sorted(
        name
        for name in names
        if any(fnmatch(name, pattern) and name.count("/") == pattern.count("/") for pattern in patterns)
        and not name.lower().endswith(NEVER)
    )


def choose_weights(names: Collection[str], indexed: Collection[str] | None, repo: str) -> list[str]:
    """Of a repository's files, one copy of the weights: safetensors in transformers' form, else a single GGUF file.

    Args:
        indexed: the shards that the index names, if there is one.

    Raises: ModelError, if there are none, or only such as are not opened.
    """
    page = page_of(repo)
    found = sorted(name for name in names if fnmatch(name, WEIGHTS) and "/" not in name)
    wanted = set(indexed) if indexed is not None else {"model.safetensors"} & set(found) or expected_shards(set(found))
    if missing := sorted(wanted - set(found)):
        raise ModelError(
            f"{repo} lacks a part of its weights: {missing[0]}", where=page, remedy="name another revision"
        )
    if wanted:
        return sorted(wanted)
    ggufs = sorted(name for name in names if name.endswith(".gguf") and "/" not in name)
    if len(ggufs) == 1:
        return ggufs
    if ggufs:
        raise ModelError(
            f"{repo} holds {len(ggufs)} GGUF files, such as {ggufs[0]} and {ggufs[-1]}",
            where=page,
            remedy="download the one that you want, and give its path",
        )
    if any(map(_is_pickled, names)):
        raise ModelError(
            f"{repo} has pickled weights only ({next(filter(_is_pickled, sorted(names)))}), and opening those can run "
            "code",
            where=page,
            remedy="use a version with safetensors, which may be among its pull requests "
            f"({repo}@refs/pr/N), or save it as safetensors on a machine that may be lost",
        )
    raise ModelError(
        f"{repo} has no weights in transformers' form (model*.safetensors)",
        where=page,
        remedy="give an adapter's base model here"
        if "adapter_config.json" in names
        else "use a version of the model that was saved for transformers or mlx-lm",
    )


def _fetch(name: HubName, listing: Listing, progress: Progress) -> Snapshot:
    """Fetch what the listing has and the cache lacks: companions, then, if they are a text model's, weights."""
    repo, commit, files = name.repo, listing.commit, listing.files
    folder = repository_folder(repo) / "snapshots" / commit
    weights = [] if INDEX in files else choose_weights(files, None, repo)  # refused before anything is fetched
    is_gguf = bool(weights) and weights[0].endswith(".gguf")
    companions = [file for file in choose_companions(files) if not is_gguf or fnmatch(file, OPTIONAL)]
    already_there = all((folder / file).is_file() for file in companions)
    _check_room(name, listing, companions)
    for companion in companions:
        fetch_file(repo, commit, companion, files[companion], lambda _: None)
    if INDEX in files:
        weights = choose_weights(files, read_index(folder / INDEX).values(), repo)
    if not is_gguf:
        check_config(read_config(folder), folder)
    path = folder / weights[0] if is_gguf else folder
    if already_there and all((folder / file).is_file() for file in weights):
        return Snapshot(path, commit, already_there=True)
    _check_room(name, listing, weights)
    total, done = sum(files[weight].size for weight in weights), 0

    def told(count: int) -> None:
        nonlocal done
        done += count
        progress(f"download {repo}: bytes", done, total)

    for weight in weights:
        fetch_file(repo, commit, weight, files[weight], told)
    return Snapshot(path, commit, already_there=False)


def _check_room(name: HubName, listing: Listing, files: Collection[str]) -> None:
    """Raises: DeviceError, if the disk has less room than what is still to come of these files takes."""
    cache = repository_folder(name.repo)
    needed = 0
    for file in files:
        remote = listing.files[file]
        if (cache / "snapshots" / listing.commit / file).exists():
            continue
        there = 0
        if remote.sha256 is not None:
            blob = blob_path(name.repo, remote.sha256)
            there = next((path.stat().st_size for path in (blob, part_path(blob)) if path.is_file()), 0)
        needed += max(0, remote.size - there)
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free
    if needed > free:
        raise DeviceError(
            f"the model {name} takes {needed / 1e9:.1f} GB more, and the disk has {free / 1e9:.1f} GB free",
            where=cache.parent,
            remedy="make room, or set HF_HOME to a folder on a larger disk",
        )


def _snapshot_folder(name: HubName) -> Path | None:
    """What the cache has of the revision, whole or not; a branch or tag is where it was when it was last asked for."""
    repository = repository_folder(name.repo)
    commit = name.revision
    if not COMMIT.fullmatch(commit):
        ref = repository / "refs" / commit
        commit = ref.read_text(encoding="utf-8", errors="replace").strip() if ref.is_file() else ""
    folder = repository / "snapshots" / commit
    return folder if COMMIT.fullmatch(commit) and folder.is_dir() else None


def _missing(repo: str, folder: Path) -> list[str]:
    """The files that a snapshot lacks; by the listing beside it, if who fetched it left one, else by what it has."""
    here = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    names = _listed(repo, folder.name) or here
    try:
        indexed = read_index(folder / INDEX).values() if INDEX in here else None
        weights = choose_weights(names, indexed, repo)
    except ModelError:
        return ["its weights"]
    if weights[0].endswith(".gguf"):
        return sorted(set(weights) - here)
    needed = {name for name in choose_companions(names) if not fnmatch(name, OPTIONAL)} | {"config.json", *weights}
    missing = sorted(needed - here)
    if not any(fnmatch(name, pattern) for name in here for pattern in TOKENIZERS):
        missing.append("its tokenizer")
    return missing


def _listed(repo: str, commit: str) -> list[str]:
    """The files of a commit, as huggingface_hub's own snapshots remember them; none, where it does not."""
    if not (repository_folder(repo) / "trees" / f"{commit}.json").is_file():
        return []
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        return [
            file.path for file in get_cached_repo_tree(repo, revision=commit, cache_dir=hub_settings().HF_HUB_CACHE)
        ]
    except CachedRepoTreeNotFoundError:  # of another version, or damaged
        return []


def _what_is_missing(name: HubName) -> str:
    folder = _snapshot_folder(name)
    missing = [] if folder is None else _missing(name.repo, folder)
    if not missing:
        return f"the model {name}"
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return f"a part of the model {name} ({missing[0]}{more})"


def _is_pickled(name: str) -> bool:
    return name.lower().endswith(PICKLED)
