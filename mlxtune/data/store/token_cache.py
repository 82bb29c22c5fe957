"""Rendered rows, kept between runs: a file that was rendered once is not rendered again.

An entry's name is the hash of all that rendering depends on: what the rows say, the tokenizer's files and chat
template, `train_on`, the code and the libraries that do it; how long a row may be is decided later and no part of it.
So nothing kept is ever stale, and a file that is moved, or whose lines change but not what they say, is found again.
Its first half is the hash of the first rows alone, by which one pass is enough where nothing is kept: no entry begins
so. The price is two bytes a token on the disk, four in rows that need them, in the user's own cache; text is not kept
there. Knows rows and hashes; what cannot be kept or read back is simply rendered.
"""

import contextlib
import hashlib
import importlib.metadata
import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxtune import data, models
from mlxtune.cache import cache_folder, make_room
from mlxtune.data.store.census import FIRST_ROWS
from mlxtune.data.store.token_store import Store, open_store
from mlxtune.errors import DeviceError, OutputExistsError
from mlxtune.files import PART, new_file, sha256_of
from mlxtune.models.tokenizer import ENDS
from mlxtune.models.write import COMPANIONS
from mlxtune.recipe.choices import TrainOn

FOLDER = "tokens"
VERSION = 2
"""Of an entry's layout; a change to it makes new entries."""
CACHE_BYTES = 4 << 30
"""Of all entries together; those unused for longest make room."""
LEAST_ROWS = FIRST_ROWS
"""Fewer are rendered about as quickly as they are looked up."""
LEFT_BEHIND_S = 3600.0
"""A file that is half written and older was left by a process that was killed: to write one takes seconds."""

LIBRARIES = ("jinja2", "mlx-lm", "tokenizers", "transformers")
CHANGING = re.compile(r"strftime_now|\brandom\b")
"""In a chat template: what gives another text another day."""


@dataclass(frozen=True)
class Entries:
    """Where the rows of a data set are kept, whose first `LEAST_ROWS` rows are known."""

    folder: Path
    first: str
    """The hash of these rows and of all that rendering depends on besides rows."""

    def may_hold(self) -> bool:
        """Whether there is an entry that begins with these rows."""
        return any(self.folder.glob(f"{self.first}-*.rows"))

    def open(self, content: str) -> Store | None:
        """The rows of an entry; None if there is none, or it is damaged."""
        path = self.path(content)
        with contextlib.suppress(OSError):
            os.utime(path)  # used last
        return open_store(path)

    def keep(self, content: str, store: Store) -> Store:
        """Put rows into the cache, if there is room for them: whole or not at all; the rows, from wherever they are."""
        with contextlib.suppress(OSError, OutputExistsError):  # a full or read-only disk: nothing is lost but time
            _clear_left_behind(self.folder)
            with new_file(self.path(content), force=True) as part, part.open("wb") as file:
                store.copy_to(file)
            make_room(FOLDER, CACHE_BYTES)
        return self.open(content) or store

    def path(self, content: str) -> Path:
        """Args: content: the hash of what all rows say, in their order."""
        return self.folder / f"{self.first}-{content[:32]}.rows"


def find_entries(first: Iterable[str], tokenizer: Any, folder: Path, train_on: TrainOn) -> Entries | None:
    """Where rows that begin with ``first`` (each one's `content_hash`) are kept; None where rendering changes with the
    day, or there is no cache.

    Args:
        tokenizer: mlx_lm's TokenizerWrapper, opened from ``folder``.
    """
    if CHANGING.search(str(tokenizer.chat_template or "")):
        return None
    digest = hashlib.sha256(_tokenizer_hash(tokenizer, folder).encode())
    digest.update(f"{VERSION} {train_on}\n".encode())
    for path in _code():
        digest.update(sha256_of(path).encode())
    for content in first:
        digest.update(content.encode())
    cache = tokens_folder()
    return None if cache is None else Entries(cache, digest.hexdigest()[:32])


def tokens_folder() -> Path | None:
    """The cache's folder for token ids; None where there can be none."""
    try:
        return cache_folder(FOLDER)
    except DeviceError:
        return None


def _code() -> list[Path]:
    """All of data/, and of models/, which opens tokenizers and runs chat templates: what a row becomes hangs on much of
    them, and an entry too many is only time.
    """
    return sorted(path for package in (data, models) for path in Path(package.__file__ or "").parent.rglob("*.py"))


def _tokenizer_hash(tokenizer: Any, folder: Path) -> str:
    """Of the tokenizer's files, what was made of them, and the libraries that did."""
    files = {path for pattern in (*ENDS, *COMPANIONS) for path in folder.glob(pattern) if path.is_file()}
    parts = [f"{path.relative_to(folder)} {sha256_of(path)}" for path in sorted(files)]
    parts += [f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES]
    parts += [str(tokenizer.bos_token_id), str(sorted(tokenizer.eos_token_ids)), str(tokenizer.chat_template)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _clear_left_behind(folder: Path) -> None:
    for path in folder.iterdir():
        if PART.fullmatch(path.name) and time.time() - path.lstat().st_mtime > LEFT_BEHIND_S:
            path.unlink(missing_ok=True)
