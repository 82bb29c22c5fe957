"""Rendered rows, kept between runs: a file that was rendered once is not rendered again.

An entry's name is the hash of all that rendering depends on: what the rows say, the tokenizer's files and chat
template, `train_on`, the code and the libraries that do it; how long a row may be is decided later and no part of it.
So nothing kept is ever stale, and a file that is moved, or whose lines change but not what they say, is found again.
The price is two bytes a token on the disk, four where the vocabulary is large, in the user's own cache; text is not
kept there. Knows rows and hashes; what cannot be kept or read back is simply rendered.
"""

import contextlib
import hashlib
import importlib.metadata
import io
import os
import pkgutil
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlxtune.cache import cache_folder, make_room
from mlxtune.data.normalize import Example
from mlxtune.data.render import Rendered
from mlxtune.data.split import content_hash
from mlxtune.errors import DeviceError
from mlxtune.files import sha256_of, write_bytes
from mlxtune.models.tokenizer import ENDS
from mlxtune.models.write import COMPANIONS
from mlxtune.recipe.choices import TrainOn

FOLDER = "tokens"
VERSION = 1
"""Of an entry's layout; a change to it makes new entries."""
CACHE_BYTES = 4 << 30
"""Of all entries together; those unused for longest make room."""
LEAST_ROWS = 64
"""Fewer are rendered about as quickly as they are looked up."""

LIBRARIES = ("jinja2", "mlx-lm", "tokenizers", "transformers")
CHANGING = re.compile(r"strftime_now|\brandom\b")
"""In a chat template: what gives another text another day."""
DIGEST_BYTES = hashlib.sha256().digest_size


def find_entry(examples: Sequence[Example], tokenizer: Any, folder: Path, train_on: TrainOn) -> Path | None:
    """Where these rows are kept, if they are; None where they are too few, their rendering changes with the day, or
    there is no cache.

    Args:
        tokenizer: mlx_lm's TokenizerWrapper, opened from ``folder``.
    """
    if len(examples) < LEAST_ROWS or CHANGING.search(str(tokenizer.chat_template or "")):
        return None
    digest = hashlib.sha256(_tokenizer_hash(tokenizer, folder).encode())
    digest.update(f"{VERSION} {train_on}\n".encode())
    digest.update(pkgutil.get_data("mlxtune.data", "render.py") or b"")
    for example in examples:
        digest.update(content_hash(example).encode())
    try:
        return cache_folder(FOLDER) / f"{digest.hexdigest()[:32]}.rows"
    except DeviceError:
        return None


def _tokenizer_hash(tokenizer: Any, folder: Path) -> str:
    """Of the tokenizer's files, what was made of them, and the libraries that did."""
    files = {path for pattern in (*ENDS, *COMPANIONS) for path in folder.glob(pattern) if path.is_file()}
    parts = [f"{path.relative_to(folder)} {sha256_of(path)}" for path in sorted(files)]
    parts += [f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES]
    parts += [str(tokenizer.bos_token_id), str(sorted(tokenizer.eos_token_ids)), str(tokenizer.chat_template)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def read_rows(entry: Path, examples: Sequence[Example]) -> list[Rendered] | None:
    """The rows of an entry, each with the place of its example; None if there is none, or it is damaged.

    Rows share one array each of token ids and targets, which cannot be written to.
    """
    try:
        kept = entry.read_bytes()
        os.utime(entry)  # used last
    except OSError:
        return None
    digest, content = kept[:DIGEST_BYTES], kept[DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        return None
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        token_ids, ends = arrays["token_ids"].astype(np.int32), arrays["ends"].tolist()
        is_target = np.unpackbits(arrays["is_target"], count=len(token_ids)).astype(bool)
    token_ids.flags.writeable = is_target.flags.writeable = False
    spans = zip([0, *ends], ends, examples, strict=False)  # the last end begins no row
    return [Rendered(token_ids[start:end], is_target[start:end], example.where) for start, end, example in spans]


def keep_rows(entry: Path, rows: Sequence[Rendered]) -> None:
    """Put rows into the cache, if there is room for them: whole or not at all."""
    token_ids = np.concatenate([row.token_ids for row in rows])
    content = io.BytesIO()
    np.savez(
        content,
        token_ids=token_ids.astype(np.uint16 if token_ids.max() <= np.iinfo(np.uint16).max else np.int32),
        is_target=np.packbits(np.concatenate([row.is_target for row in rows])),
        ends=np.cumsum([len(row.token_ids) for row in rows]),
    )
    with contextlib.suppress(OSError):  # a full or read-only disk: nothing is lost but time
        write_bytes(entry, hashlib.sha256(content.getbuffer()).digest() + content.getvalue())
        make_room(FOLDER, CACHE_BYTES)
