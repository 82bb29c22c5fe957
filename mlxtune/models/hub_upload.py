"""A folder to a repository on the hub, as one commit; who may read it is decided when it is made.

Knows the hub's protocol for writing, and its errors, which become ours here; not what a folder holds. The token is the
one of ``HF_TOKEN`` or of the hub's own login. What is there already is never written over by accident: a repository
with files in it takes a new commit only if that is asked for, and who may read it has to be what was asked for. The
price of one commit is that all of it appears or nothing; large files that came through before are not sent again.
"""

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mlxtune.errors import ModelError, NetworkError, OutputExistsError, UsageError
from mlxtune.models.hub_files import DENIED, HOME, WAIT, page_of
from mlxtune.network import open_hub
from mlxtune.progress import Progress, silent

NEED = "needs the hub"
OWN = (".gitattributes",)
"""What the hub itself puts into a new repository."""
REPLACED = (".safetensors", ".gguf", ".json", ".jinja")
"""Endings of files that a new commit takes away, if it does not bring them: two models in one repository are none."""
CONFLICT, PAYMENT = 409, 402


@dataclass(frozen=True)
class Uploaded:
    """Where a folder is now."""

    page: str
    commit: str
    private: bool
    created: bool
    """Whether the repository was made for it."""


def upload(
    folder: Path, repo: str, *, public: bool = False, force: bool = False, message: str, progress: Progress = silent
) -> Uploaded:
    """Put the files of ``folder`` into ``repo``, which is made, private if not ``public``, where it is not there.

    Args:
        force: add a commit to a repository that has files; what it held stays in its history.

    Raises: UsageError, for a name that the hub does not allow, or a repository that is there and not what ``public``
        says; OutputExistsError; ModelError, if the hub does not let this account do it or refuses the card;
        NetworkError.
    """
    with _writing(repo) as settings:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token

        if get_token() is None:
            raise ModelError(
                "the hub has to know who uploads, and there is no token",
                where=repo,
                remedy=f"set HF_TOKEN to a token that may write ({HOME}/settings/tokens), or run hf auth login",
            )
        api = HfApi(endpoint=settings.ENDPOINT, library_name="mlxtune", library_version=version("mlxtune"))
        there = _find(api, repo)
        if there is not None:
            _check(there, repo, public=public, force=force)
        else:
            api.create_repo(repo, private=not public)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        names = [path.relative_to(folder).as_posix() for path in files]
        stale = [] if there is None else [name for name in there.files if name.endswith(REPLACED) and name not in names]
        added = [
            CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(path))
            for name, path in zip(names, files, strict=True)
        ]
        total, done = sum(path.stat().st_size for path in files), 0
        for path, one in zip(files, added, strict=True):
            progress(f"upload {repo}: bytes", done, total)
            api.preupload_lfs_files(repo, additions=[one])
            done += path.stat().st_size
        removed = [CommitOperationDelete(path_in_repo=name) for name in stale]
        commit = api.create_commit(repo, operations=[*removed, *added], commit_message=message)
        progress(f"upload {repo}: bytes", total, total)
        return Uploaded(
            page_of(repo), commit.oid, private=not public if there is None else there.private, created=there is None
        )


@dataclass(frozen=True)
class _There:
    private: bool
    files: list[str]


def _find(api: Any, repo: str) -> _There | None:
    """The repository, if there is one that this account may read."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        info = api.model_info(repo, revision="main")
    except RepositoryNotFoundError as error:
        if _is_bad_token(error):
            raise
        return None
    return _There(bool(info.private), [file.rfilename for file in info.siblings or ()])


def _check(there: _There, repo: str, *, public: bool, force: bool) -> None:
    """Raises: UsageError, OutputExistsError."""
    if not there.private and not public:
        raise UsageError(
            "this repository is public: all could read what is uploaded",
            where=page_of(repo),
            remedy="make it private there, name another, or add --public",
        )
    if there.private and public:
        raise UsageError(
            "this repository is private, and what is uploaded is to be public",
            where=page_of(repo),
            remedy="make it public there, name another, or leave out --public",
        )
    if set(there.files) - set(OWN) and not force:
        raise OutputExistsError(
            "this repository has files already",
            where=page_of(repo),
            remedy="name another, or add --force for a new commit (what it holds stays in its history)",
        )


@contextlib.contextmanager
def _writing(repo: str) -> Iterator[Any]:
    """The hub, open, its bars and warnings off, its errors told in ours."""
    with open_hub(f"the upload to {repo}", need=NEED) as settings, warnings.catch_warnings():
        import httpx2
        from huggingface_hub import errors
        from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

        warnings.simplefilter("ignore")
        had_bars = not are_progress_bars_disabled()
        disable_progress_bars()
        try:
            yield settings
        except errors.HFValidationError as error:
            raise UsageError(f"{repo!r} is no name that the hub allows", remedy="write it as account/name") from error
        except (
            errors.HfHubHTTPError,
            httpx2.HTTPError,
            httpx2.InvalidURL,
            RuntimeError,
            ValueError,
            KeyError,
        ) as error:
            told = _told(error, repo)
            if told is error:
                raise
            raise told from error
        finally:
            if had_bars:
                enable_progress_bars()


def _told(error: Exception, repo: str) -> Exception:
    """An error of the hub's library as one of ours; one that is none of the hub's stays what it is."""
    import httpx2
    from huggingface_hub import errors

    cause = error.__cause__ if type(error) is RuntimeError and error.__cause__ is not None else error
    if isinstance(cause, errors.HfHubHTTPError):
        return _refusal(cause, repo)
    if isinstance(cause, (httpx2.HTTPError, httpx2.InvalidURL)):
        return NetworkError(
            f"the hub cannot be reached for the upload to {repo}",
            remedy="check the connection (HTTPS_PROXY names a proxy) and run again: files that came through count",
        )
    if isinstance(cause, (ValueError, KeyError)):  # what it says of an answer, or of the card's front matter
        said = str(cause).splitlines()[-1].lstrip("- ") if str(cause) else type(cause).__name__
        return ModelError(
            f"the hub does not take it: {said}",
            where=page_of(repo),
            remedy="if it is about the licence: one that the hub does not list is called other",
        )
    return error


def _refusal(error: Any, repo: str) -> Exception:
    """The hub's answer to a request that it does not grant."""
    status, page = error.response.status_code, page_of(repo)
    owner = repo.partition("/")[0]
    if _is_bad_token(error) or status == DENIED[0]:
        return ModelError(
            "the hub does not accept the token",
            where=page,
            remedy=f"set HF_TOKEN to a valid token that may write ({HOME}/settings/tokens), or run hf auth login",
        )
    if status == DENIED[1]:
        return ModelError(
            f"the token's account may not write to {repo}",
            where=page,
            remedy=f"use a token with the right to write, of an account that belongs to {owner}",
        )
    if status == PAYMENT:
        return ModelError(
            f"the hub has no more room for {owner}", where=page, remedy="make room there, or pay for more"
        )
    if status == CONFLICT:
        return OutputExistsError("this repository was changed or made meanwhile", where=page, remedy="run again")
    remedy = "wait a few minutes and run again" if status == WAIT else "run again later"
    return NetworkError(f"the hub answers {status} to the upload", where=page, remedy=remedy)


def _is_bad_token(error: Any) -> bool:
    return "Invalid credentials" in (error.response.headers.get("X-Error-Message") or "")
