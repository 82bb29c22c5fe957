"""From what a user calls a model to a local folder that can be opened: a catalogue name, a folder, a .gguf file, or
``org/name[@revision]`` on the hub.

Local first: what exists on this machine under the given name is taken before the catalogue, and that before the hub. A
GGUF file and a wanted quantization are converted into the cache, once; an entry's name holds the hash of what it was
made from and how, so nothing there is ever stale. The price is a second copy on the disk.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlxtune.cache import cache_folder
from mlxtune.errors import ModelError
from mlxtune.files import new_folder, sha256_of
from mlxtune.models import catalogue
from mlxtune.models.gguf.read import write_gguf_folder
from mlxtune.models.hub import HubName, fetch_snapshot, parse_hub_name
from mlxtune.models.hub_files import repository_folder
from mlxtune.models.load import check_config, read_config
from mlxtune.models.once import alone
from mlxtune.models.quantization import check_quantization
from mlxtune.models.rewrite import is_stored_as, rewrite_folder
from mlxtune.models.safetensors import WEIGHTS
from mlxtune.models.write import COMPANIONS
from mlxtune.progress import Progress, silent

CONVERSION = "1"
"""The version of what the conversions write. Raise it only when what was written of a file is found wrong: a run knows
its base by this hash, and is refused on any other.
"""


@dataclass(frozen=True)
class ModelFolder:
    """A model as a local folder with config, tokenizer and safetensors."""

    path: Path
    source: str
    """As the user gave it."""
    sha256: str
    """Of a user's own folder, over its files; of a conversion, over what it was made from and how."""
    already_there: bool
    """Whether nothing had to be fetched or converted."""
    revision: str | None = None
    """The commit of a model from the hub, which names it for good; a branch such as ``main`` moves."""


@dataclass(frozen=True)
class Located:
    """What a source means on this machine, before anything is fetched or converted."""

    kind: str
    """``folder``, ``gguf``, ``catalogue`` or ``hub``."""
    path: Path
    """Of the hub, where its cache keeps the repository."""
    entry: catalogue.CatalogueEntry | None = None
    hub: HubName | None = None
    already_there: bool = True
    """Whether nothing had to be fetched; known once ``kind`` is a folder or a GGUF file."""
    revision: str | None = None


def find_model(
    source: str,
    *,
    base: Path | None = None,
    quantize: tuple[int, int] | None = None,
    revision: str | None = None,
    newest: bool = False,
    progress: Progress = silent,
) -> ModelFolder:
    """The local folder that ``source`` means, fetched and converted where needed.

    Args:
        source: a catalogue name, a folder in Hugging Face's or MLX's form, a ``.gguf`` file, or ``org/name[@revision]``
            on the hub.
        base: what a relative path is relative to; the working folder by default.
        quantize: bits and group size, if the model is wanted quantized so.
        revision: of a model from the hub, the commit to take instead of the one that ``source`` means now: a run's
            own, as `ModelFolder` recorded it.
        newest: ask the hub where a branch or tag is now, though the cache has it.

    Raises: ModelError, if there is no such model or it cannot be used; NetworkError, if it cannot be fetched.
    """
    if quantize is not None:
        check_quantization(*quantize)
    found = locate(source, base=base)
    if found.hub is not None:
        hub = found.hub if revision is None else replace(found.hub, revision=revision)
        found = fetch_located(replace(found, hub=hub), newest=newest, progress=progress)
    if found.kind == "folder":
        check_config(read_config(found.path), found.path)
        sha256 = hash_of_folder(found.path, progress)
        folder = ModelFolder(found.path, source, sha256, found.already_there, found.revision)
    else:
        folder = _from_gguf(found, source, progress)
    if quantize is None or is_stored_as(folder.path, *quantize):
        return folder
    bits, group_size = quantize
    key = _key(folder.sha256, f"{bits} bits in groups of {group_size}")

    def make(part: Path) -> None:
        rewrite_folder(folder.path, part, quantize=quantize, progress=progress)

    path, was_there = _made_once(f"{_label(source)}-{bits}bit-{group_size}", key, make)
    return ModelFolder(path, source, key, folder.already_there and was_there, folder.revision)


def fetch_located(found: Located, *, newest: bool = False, progress: Progress = silent) -> Located:
    """What a source means once it is on this machine: a folder or a GGUF file, fetched where it was not there.

    Raises: ModelError, NetworkError or DeviceError, if it cannot be fetched.
    """
    if found.hub is not None:
        snapshot = fetch_snapshot(found.hub, newest=newest, progress=progress)
        kind = "gguf" if snapshot.is_gguf else "folder"
        return Located(kind, snapshot.path, already_there=snapshot.already_there, revision=snapshot.commit)
    if found.entry is not None:
        return Located("gguf", catalogue.get(found.entry, progress))
    return found


def locate(source: str, *, base: Path | None = None) -> Located:
    """What ``source`` means, without fetching or opening it. Raises: ModelError, if it means nothing."""
    path = ((base or Path()) / Path(source).expanduser()).absolute()
    entry = catalogue.entry(source)
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise ModelError(
                "a model is a folder, or a .gguf file", where=path, remedy="give the folder the file is in"
            )
        return Located("gguf", path)
    if path.is_dir() and (entry is None or (path / "config.json").is_file()):
        return Located("folder", path)
    if entry is not None:
        return Located("catalogue", catalogue.cached_file(entry), entry)
    is_path = source.startswith((".", "~", "/")) or path.suffix.lower() == ".gguf"
    if not is_path and (hub := parse_hub_name(source)) is not None:
        return Located("hub", repository_folder(hub.repo), hub=hub)
    if is_path or "/" in source or path.suffix:
        raise ModelError("there is no such file or folder", where=path, remedy="check the path")
    raise catalogue.unknown(source)


def hub_repository(source: str) -> str | None:
    """The repository on the hub that a model of the hub or the catalogue is in; None for others. Asks no network."""
    found = locate(source)
    if found.entry is not None:
        return found.entry.hub
    return None if found.hub is None else found.hub.repo


def hash_of_folder(folder: Path, progress: Progress = silent) -> str:
    """One SHA-256 over config, tokenizer and weights: the files' names and contents, in the order of their names.

    The hub's cache names a large file by its SHA-256; it is not read again for that. hub_files.py has checked what it
    fetched itself; what another program fetched is taken at its name.
    """
    files = {
        path for pattern in ("config.json", WEIGHTS, *COMPANIONS) for path in folder.glob(pattern) if path.is_file()
    }
    total = sum(path.stat().st_size for path in files)
    done = 0
    whole = hashlib.sha256()
    for path in sorted(files):
        whole.update(f"{path.name}\0{_sha256_of(path)}\n".encode())
        done += path.stat().st_size
        progress("hash the model: bytes", done, total)
    return whole.hexdigest()


def _sha256_of(path: Path) -> str:
    if path.is_symlink():
        blob = path.parent / path.readlink()
        if blob.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", blob.name):
            return blob.name
    return sha256_of(path)


def _from_gguf(found: Located, source: str, progress: Progress) -> ModelFolder:
    if found.entry is None:
        key = _key(_sha256_of(found.path), "gguf")
        label = _label(source)
    else:
        key = _key(found.entry.sha256, "gguf")
        label = found.entry.name

    def make(part: Path) -> None:
        path = found.path if found.entry is None else catalogue.get(found.entry, progress)
        write_gguf_folder(path, part, progress=progress)

    path, was_there = _made_once(label, key, make)
    return ModelFolder(path, source, key, found.already_there and was_there, found.revision)


def _made_once(label: str, key: str, make: Callable[[Path], Any]) -> tuple[Path, bool]:
    """The cache's folder for ``key``, made if it is not there; and whether it was."""
    path = cache_folder("models") / f"{label}-{key[:16]}"
    if path.is_dir():
        return path, True
    with alone(path):
        if path.is_dir():
            return path, True
        with new_folder(path) as part:
            make(part)
    return path, False


def _key(sha256: str, how: str) -> str:
    return hashlib.sha256(f"{sha256} {how} {CONVERSION}".encode()).hexdigest()


def _label(source: str) -> str:
    """What a person recognises the model by, in a file name."""
    return re.sub(r"[^\w.-]", "-", Path(source).name.removesuffix(".gguf"))[:60] or "model"
