"""From what a user calls a model to a local folder that can be opened: a catalogue name, a folder, or a .gguf file.

Local first: what exists on this machine under the given name is taken before the catalogue. A GGUF file and a wanted
quantization are converted into the cache, once; an entry's name holds the hash of what it was made from and how, so
nothing there is ever stale. The price is a second copy on the disk.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxtune.cache import cache_folder
from mlxtune.errors import ModelError, UsageError
from mlxtune.files import new_folder, sha256_of
from mlxtune.models import catalogue
from mlxtune.models.gguf import write_gguf_folder
from mlxtune.models.load import check_config, read_config
from mlxtune.models.once import alone
from mlxtune.models.rewrite import is_stored_as, rewrite_folder
from mlxtune.models.safetensors import WEIGHTS
from mlxtune.models.write import COMPANIONS
from mlxtune.progress import Progress, silent
from mlxtune.recipe.choices import BITS, GROUP_SIZES, in_words

CONVERSION = "1"
"""The version of what the conversions write; a change to that makes new cache entries."""


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


@dataclass(frozen=True)
class Located:
    """What a source means on this machine, before anything is fetched or converted."""

    kind: str
    """``folder``, ``gguf`` or ``catalogue``."""
    path: Path
    entry: catalogue.CatalogueEntry | None = None


def find_model(
    source: str, *, base: Path | None = None, quantize: tuple[int, int] | None = None, progress: Progress = silent
) -> ModelFolder:
    """The local folder that ``source`` means, fetched and converted where needed.

    Args:
        source: a catalogue name, a folder in Hugging Face's or MLX's form, or a ``.gguf`` file.
        base: what a relative path is relative to; the working folder by default.
        quantize: bits and group size, if the model is wanted quantized so.

    Raises: ModelError, if there is no such model or it cannot be used; NetworkError, if it cannot be fetched.
    """
    if quantize is not None:
        check_quantization(*quantize)
    found = locate(source, base=base)
    if found.kind == "folder":
        check_config(read_config(found.path), found.path)
        folder = ModelFolder(found.path, source, hash_of_folder(found.path, progress), already_there=True)
    else:
        folder = _from_gguf(found, source, progress)
    if quantize is None or is_stored_as(folder.path, *quantize):
        return folder
    bits, group_size = quantize
    key = _key(folder.sha256, f"{bits} bits in groups of {group_size}")

    def make(part: Path) -> None:
        rewrite_folder(folder.path, part, quantize=quantize, progress=progress)

    path, was_there = _made_once(f"{_label(source)}-{bits}bit-{group_size}", key, make)
    return ModelFolder(path, source, key, already_there=folder.already_there and was_there)


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
    is_hub_id = catalogue.HUB_ID.fullmatch(source) and not source.startswith(".")
    if not is_hub_id and ("/" in source or source.startswith((".", "~")) or path.suffix):
        raise ModelError("there is no such file or folder", where=path, remedy="check the path")
    raise catalogue.unknown(source)


def check_quantization(bits: int, group_size: int) -> None:
    """Raises: UsageError, if MLX has no such quantization."""
    if bits not in BITS or group_size not in GROUP_SIZES:
        raise UsageError(
            f"{bits} bits in groups of {group_size} is no quantization of MLX's",
            remedy=f"choose {in_words(BITS)} bits and a group size of {in_words(GROUP_SIZES)}",
        )


def hash_of_folder(folder: Path, progress: Progress = silent) -> str:
    """One SHA-256 over config, tokenizer and weights: the files' names and contents, in the order of their names."""
    files = {
        path for pattern in ("config.json", WEIGHTS, *COMPANIONS) for path in folder.glob(pattern) if path.is_file()
    }
    total = sum(path.stat().st_size for path in files)
    done = 0
    whole = hashlib.sha256()
    for path in sorted(files):
        whole.update(f"{path.name}\0{sha256_of(path)}\n".encode())
        done += path.stat().st_size
        progress("hash the model: bytes", done, total)
    return whole.hexdigest()


def _from_gguf(found: Located, source: str, progress: Progress) -> ModelFolder:
    if found.entry is None:
        key = _key(sha256_of(found.path), "gguf")
        label = _label(source)
    else:
        key = _key(found.entry.sha256, "gguf")
        label = found.entry.name

    def make(part: Path) -> None:
        path = found.path if found.entry is None else catalogue.get(found.entry, progress)
        write_gguf_folder(path, part, progress=progress)

    path, was_there = _made_once(label, key, make)
    return ModelFolder(path, source, key, already_there=was_there)


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
