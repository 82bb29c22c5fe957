"""What a build has done so far, beside its output until that is there: documents as read, answers as they came.

A hidden folder, its owner's alone, since it holds what the documents say. A document is known by its name, its content
and the version that read it; an answer also by what was asked and of whom. So nothing there is ever stale: what changed
has another name. Documents are whole or absent; answers are lines, of which a torn last one is dropped.
"""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlxtune.errors import UsageError
from mlxtune.files import write_bytes


class Kept:
    """The folder of a build."""

    def __init__(self, folder: Path, asked: str) -> None:
        """
        Args:
            asked: all that answers depend on beside the document, as one string.
        """
        self.folder = folder
        self._documents = folder / "documents"
        self._answers = folder / f"answers-{_digest(asked)[:16]}"

    def document(self, key: str) -> dict[str, Any] | None:
        """What `keep_document` got for this key, if it did."""
        path = self._documents / f"{key}.json"
        return json.loads(path.read_bytes()) if path.is_file() else None

    def keep_document(self, key: str, value: dict[str, Any]) -> None:
        self._documents.mkdir(mode=0o700, exist_ok=True)
        write_bytes(self._documents / f"{key}.json", json.dumps(value).encode())

    def answers(self, key: str) -> list[list[str]]:
        """The batches of answers that are there for a document, in order."""
        path = self._answers / f"{key}.jsonl"
        if not path.is_file():
            return []
        whole, _, torn = path.read_bytes().rpartition(b"\n")
        if torn:
            write_bytes(path, whole + b"\n" if whole else b"")
        return [json.loads(line) for line in whole.split(b"\n") if line]

    def keep_answers(self, key: str, batch: Sequence[str]) -> None:
        """Add a batch."""
        self._answers.mkdir(mode=0o700, exist_ok=True)
        with (self._answers / f"{key}.jsonl").open("ab") as file:
            file.write(json.dumps(list(batch)).encode() + b"\n")

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def folder_beside(out: Path) -> Path:
    """Where a build to ``out`` keeps what it has done."""
    return out.with_name(f".{out.name}.build")


@contextmanager
def open_kept(out: Path, asked: str) -> Iterator[Kept]:
    """What is kept for ``out``, for one process at a time; it stays where the block fails.

    Raises: UsageError, if another process builds the same output.
    """
    folder = folder_beside(out)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(
                "another process builds this file", where=out, remedy="wait until it is done, or choose another place"
            ) from error
        yield Kept(folder, asked)


def key_of(name: str, sha256: str, version: str) -> str:
    """The key of a document."""
    return _digest(f"{name}\0{sha256}\0{version}")[:32]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
