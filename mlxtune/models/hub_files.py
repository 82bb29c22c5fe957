"""What is asked of the hub: which files a repository has at a revision, and those files, into the hub's own cache.

Knows the hub's protocol and its errors, which become ours here; not what a model needs (hub.py). Small files come
through huggingface_hub. Large ones are written by this file, because huggingface_hub drops what it has when it is
interrupted; here a download goes on where it ended, in a later process too, and its content is held against its
SHA-256. The price is plain HTTP: Xet, which sends less where much is alike, is not used.
"""

import contextlib
import hashlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from json import JSONDecodeError
from pathlib import Path
from typing import Any, Literal, Self

from mlxtune.errors import DataError, ModelError, NetworkError
from mlxtune.files import flush, naming
from mlxtune.network import hub_settings, open_hub

HOME = "https://huggingface.co"
"""Where a person reads and accepts licences, whatever mirror ``HF_ENDPOINT`` names."""

COMMIT = re.compile(r"[0-9a-f]{40}")

LICENCE = "license:"
CHUNK = 1 << 20
PATIENCE = 5
"""How often in a row a download may fail without a new byte."""

NOT_THERE = 404
WAIT = 429
DENIED = (401, 403)
SERVER_ERRORS = range(500, 600)
RANGE_IS_SENT = 206

RepoKind = Literal["model", "dataset"]
"""Of what a repository is; an error of a data set's is a `DataError`."""
WORDS = {"model": "model", "dataset": "data set"}

Told = Callable[[int], None]
"""Called with the number of bytes that came; negative where some have to come again."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository, as the hub lists it."""

    size: int
    sha256: str | None
    """Of a large file; git's own hash is all that the hub knows of a small one."""


@dataclass(frozen=True)
class Listing:
    """What a repository holds at one commit."""

    commit: str
    files: dict[str, RemoteFile]
    licence: str | None


def page_of(repo: str, kind: RepoKind = "model") -> str:
    """Where a person reads about a repository."""
    return f"{HOME}/{repo}" if kind == "model" else f"{HOME}/datasets/{repo}"


def list_files(repo: str, revision: str, kind: RepoKind = "model") -> Listing:
    """The files of ``repo`` at what ``revision`` names now: a branch, a tag or a commit.

    Raises: ModelError (DataError), if there is no such repository or revision, it may not be read, or it lists a file
        whose name leads out of it; NetworkError.
    """
    with _asking(repo, revision, kind) as settings:
        from huggingface_hub import HfApi

        api = HfApi(endpoint=settings.ENDPOINT, **_library())
        seconds = settings.DEFAULT_REQUEST_TIMEOUT
        try:
            ask = api.model_info if kind == "model" else api.dataset_info
            info = ask(repo, revision=revision, files_metadata=True, timeout=seconds)
        except (KeyError, TypeError, JSONDecodeError) as error:  # a page for people, or JSON of another kind
            raise _no_hub(settings.ENDPOINT) from error
        files = {
            file.rfilename: RemoteFile(file.size or 0, file.lfs.sha256 if file.lfs else None)
            for file in info.siblings or ()
        }
        # The commit and the hashes become names of files here.
        if not (_is_hex(info.sha, 40) and all(_is_sound(file) for file in files.values())):
            raise _no_hub(settings.ENDPOINT)
        assert info.sha is not None
        if outside := [name for name in files if not is_inside(name)]:
            raise _error(
                kind,
                f"{repo} lists a file whose name leads out of it: {outside[0][:100]!r}",
                where=page_of(repo, kind),
                remedy="do not use it: no program that the hub knows writes such names",
            )
        licences = [str(tag)[len(LICENCE) :] for tag in info.tags or () if str(tag).startswith(LICENCE)]
        return Listing(info.sha, files, licences[0] if licences else None)


def is_inside(name: str) -> bool:
    """Whether a file's name in a repository stays in it, on any system."""
    parts = name.split("/")
    return not any(part in ("", ".", "..") for part in parts) and not any(mark in name for mark in ("\\", "\0", ":"))


def fetch_file(
    repo: str,
    commit: str,
    name: str,
    remote: RemoteFile,
    told: Told,
    *,
    kind: RepoKind = "model",
    wait: Callable[[float], None] = time.sleep,
) -> Path:
    """The file ``name`` of ``repo`` in the hub's cache, fetched if it is not there.

    Args:
        told: called as bytes come; in the end, with the size of the file in all.
        wait: sleeps before a retry; but for tests.

    Raises: ModelError (DataError), if it may not be read; NetworkError, if it does not come or is not what the listing
        says.
    """
    path = repository_folder(repo, kind) / "snapshots" / commit / name
    if path.is_file():
        told(remote.size)
        return path
    with _asking(repo, commit, kind) as settings:
        from huggingface_hub import hf_hub_download, hf_hub_url

        blob = None if remote.sha256 is None else blob_path(repo, remote.sha256, kind)
        if blob is not None:
            url = hf_hub_url(repo, name, repo_type=kind, revision=commit, endpoint=settings.ENDPOINT)
            _fetch_blob(url, blob, name, remote, told, wait)
        # Of a large file, this asks for its hash alone, finds it in the cache and gives it its name.
        bar: Any = _NoBar  # it is annotated as a tqdm, and used as what _NoBar is
        hf_hub_download(
            repo,
            name,
            repo_type=kind,
            revision=commit,
            cache_dir=settings.HF_HUB_CACHE,
            endpoint=settings.ENDPOINT,
            tqdm_class=bar,
            **_library(),
        )
        if blob is None:
            told(remote.size)
        return path


def repository_folder(repo: str, kind: RepoKind = "model") -> Path:
    """Where the hub's cache keeps a repository: ``refs``, ``blobs`` and ``snapshots``."""
    return Path(hub_settings().HF_HUB_CACHE) / f"{kind}s--{repo.replace('/', '--')}"


def blob_path(repo: str, sha256: str, kind: RepoKind = "model") -> Path:
    """Where the hub's cache keeps the content of a large file."""
    return repository_folder(repo, kind) / "blobs" / sha256


def part_path(blob: Path) -> Path:
    """What there is of a large file until it is whole."""
    return blob.with_name(f"{blob.name}.incomplete")


def _is_hex(text: object, length: int) -> bool:
    return isinstance(text, str) and re.fullmatch(rf"[0-9a-f]{{{length}}}", text) is not None


def _is_sound(file: RemoteFile) -> bool:
    return type(file.size) is int and file.size >= 0 and (file.sha256 is None or _is_hex(file.sha256, 64))


def _fetch_blob(url: str, blob: Path, name: str, remote: RemoteFile, told: Told, wait: Callable[[float], None]) -> None:
    """Bring a large file into the cache whole and with its hash, going on from what is there of it."""
    from huggingface_hub.utils import WeakFileLock

    lock = blob.parents[2] / ".locks" / blob.parents[1].name / f"{blob.name}.lock"  # where huggingface_hub has it
    for folder in (lock.parent, blob.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if blob.is_file():
            told(remote.size)
            return
        part = part_path(blob)
        with naming(part), part.open("ab") as file:
            if file.tell() > remote.size:
                file.truncate(0)
            told(file.tell())
            _stream(url, file, remote.size, told, wait)
            flush(file.fileno())
        with part.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != remote.sha256:
            part.unlink()
            raise NetworkError(
                f"{name} came with the hash {found}, not {remote.sha256}",
                where=name,
                remedy="run again; if it comes so again, the server or a proxy changes files: use another HF_ENDPOINT",
            )
        part.replace(blob)


def _stream(url: str, file: Any, size: int, told: Told, wait: Callable[[float], None]) -> None:
    """Append to ``file`` until it has ``size`` bytes, asking again from where it is when the connection breaks."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    failures = 0
    while (start := file.tell()) < size:
        try:
            _append(url, file, size, told)
        except (httpx2.TransportError, HfHubHTTPError) as error:
            if isinstance(error, HfHubHTTPError):
                status = error.response.status_code
                if status != WAIT and status not in SERVER_ERRORS:
                    raise
            failures = 1 if file.tell() > start else failures + 1
            if failures > PATIENCE:
                raise NetworkError(
                    f"the download broke off at {file.tell() / 1e6:.1f} of {size / 1e6:.1f} MB",
                    where=url.rpartition("/")[2],
                    remedy="check the connection and run again: it goes on from there",
                ) from error
            wait(min(2 ** (failures - 1), 8))


def _append(url: str, file: Any, size: int, told: Told) -> None:
    """One request for what is missing; what comes is written at once."""
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    # Compressed, a part could not be asked for by its place. A redirect to another host loses the token: httpx2 sees
    # to that.
    headers = build_hf_headers(**_library()) | {"Accept-Encoding": "identity"}
    start = file.tell()
    if start:
        headers["Range"] = f"bytes={start}-"
    timeout = hub_settings().HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as response:
        hf_raise_for_status(response)
        if start and response.status_code != RANGE_IS_SENT:
            told(-start)
            file.truncate(0)
        untold = 0
        try:
            # As the network gives them: a larger chunk would be lost where the connection breaks within it.
            for chunk in response.iter_bytes():
                if file.tell() + len(chunk) > size:
                    raise _other_size(url.rpartition("/")[2])
                file.write(chunk)
                untold += len(chunk)
                if untold >= CHUNK:
                    told(untold)
                    untold = 0
        finally:
            told(untold)
    if file.tell() < size and file.tell() == start:
        raise _other_size(url.rpartition("/")[2])


def _other_size(name: str) -> NetworkError:
    return NetworkError(
        "a file comes with another size than the hub lists",
        where=name,
        remedy="run again; if it stays so, a proxy or mirror serves another file: use another HF_ENDPOINT",
    )


@contextlib.contextmanager
def _asking(repo: str, revision: str, kind: RepoKind = "model") -> Iterator[Any]:
    """The hub, open, its errors told in ours. What they quote of a request is left out: none of it helps a user."""
    with open_hub(f"the {WORDS[kind]} {repo}") as settings:
        import httpx2
        from huggingface_hub import errors

        endpoint = settings.ENDPOINT
        try:
            yield settings
        except errors.HfHubHTTPError as error:
            raise _refusal(error, repo, revision, endpoint, kind) from error
        except errors.HFValidationError as error:
            raise _error(
                kind, f"{repo!r} is no name that the hub allows", remedy="check the name, or give a local folder"
            ) from error
        except (httpx2.HTTPError, httpx2.InvalidURL, errors.LocalEntryNotFoundError) as error:
            raise NetworkError(
                f"the hub cannot be reached for the {WORDS[kind]} {repo}",
                where=_without_login(endpoint),
                remedy="check the connection (HTTPS_PROXY names a proxy, HF_ENDPOINT a mirror), or give a local folder",
            ) from error
        except errors.FileMetadataError as error:
            raise _no_hub(endpoint) from error
        except OSError as error:
            if error.errno is not None:  # the system's own: no room, no access
                raise
            raise _other_size(repo) from error


def _no_hub(endpoint: str) -> NetworkError:
    return NetworkError(
        "what answers here does not speak the hub's protocol",
        where=_without_login(endpoint),
        remedy="check HF_ENDPOINT and HTTPS_PROXY; a network that asks for a login first answers so too",
    )


def _error(kind: RepoKind, message: str, **more: Any) -> ModelError | DataError:
    return ModelError(message, **more) if kind == "model" else DataError(message, **more)


def _refusal(
    error: Any, repo: str, revision: str, endpoint: str, kind: RepoKind
) -> ModelError | DataError | NetworkError:
    """The hub's answer to a request that it does not grant, as an error of ours."""
    from huggingface_hub import errors

    page, status = page_of(repo, kind), error.response.status_code
    if isinstance(error, errors.GatedRepoError):
        return _error(
            kind,
            f"{repo} is gated: only accounts that have accepted its licence may download it",
            where=page,
            remedy=f"accept the licence at {page}, set HF_TOKEN to a token of that account, then run again",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return _error(
            kind, f"{repo} has no revision {revision}", where=page, remedy=f"see {page} for its branches and tags"
        )
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return _error(
            kind, f"{repo} lacks a file that it lists", where=page, remedy="run again, or name another revision"
        )
    if isinstance(error, errors.RepositoryNotFoundError) or status in (*DENIED, NOT_THERE):
        if "Invalid credentials" in (error.response.headers.get("X-Error-Message") or ""):
            return _error(
                kind,
                "the hub does not accept the token",
                where=page,
                remedy="set HF_TOKEN to a valid token, or unset it",
            )
        return _error(
            kind,
            f"there is no folder {repo}, and the hub shows no {WORDS[kind]} of that name to you",
            where=page,
            remedy="check the name; for a private one set HF_TOKEN to a token of an account that may read it",
        )
    remedy = "wait a few minutes and run again; HF_TOKEN raises the limit" if status == WAIT else "run again later"
    return NetworkError(
        f"the hub answers {status} for the {WORDS[kind]} {repo}", where=_without_login(endpoint), remedy=remedy
    )


class _NoBar:
    """What huggingface_hub takes for a progress bar; small files need none."""

    def __init__(self, **_: Any) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, _count: float | None = 1) -> None:
        pass


def _library() -> dict[str, Any]:
    """What is told of who asks: program and version."""
    return {"library_name": "mlxtune", "library_version": version("mlxtune")}


def _without_login(address: str) -> str:
    """An address as an error may show it: a mirror's may hold a name and a password."""
    scheme, mark, rest = address.partition("://")
    return scheme + mark + rest.rpartition("@")[2]
