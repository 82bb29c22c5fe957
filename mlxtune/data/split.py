"""One file into three: train, valid and test, by a hash of what each row says.

A row's place depends on its own content alone: equal rows never stand on both sides, and rows added to the file later
move no old one. The price is that shares are met on average, not exactly. Knows rows as they are normalized; copies
their lines byte for byte. Rows that are merely alike are not looked for.
"""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mlxtune.data.normalize import Example, read_examples
from mlxtune.data.read import read_lines
from mlxtune.errors import DataError, OutputExistsError
from mlxtune.files import new_folder, write_bytes, write_together

Split = Literal["train", "valid", "test"]

SPLITS: tuple[Split, ...] = ("train", "valid", "test")
TEST_SHARE = 0.1
VALID_SHARE = 0.1


@dataclass(frozen=True)
class SplitReport:
    """What was written: the folder, rows a split, rows that repeat an earlier one, and lines moved to fill a split."""

    folder: Path
    rows: dict[Split, int]
    duplicates: int
    moved: tuple[int, ...]


def split_file(path: Path, out: Path | None = None, *, force: bool = False) -> SplitReport:
    """Write ``train.jsonl``, ``valid.jsonl`` and ``test.jsonl``, all or none.

    Where ``force`` overwrites, all three are whole on the medium before the first takes its place; only a process that
    is killed between the renames that follow leaves a mix: split again then.

    In a file so small that a split would stay empty, the nearest row by hash is moved there; such a row alone may
    move back when the file grows.

    Args:
        path: a JSONL file of any form that training takes.
        out: a folder; beside ``path`` and named after it, if not given.
        force: overwrite the three files; others in the folder stay.

    Raises: OutputExistsError, before anything is written; DataError, as `read_examples` does, and with
        fewer than three different rows.
    """
    folder = out if out is not None else _folder_beside(path)
    _refuse_taken(folder, path, force=force)
    keys = [content_hash(example) for example in read_examples(path)]
    if len(set(keys)) < len(SPLITS):
        raise DataError(
            f"the file has {len(set(keys))} different rows, and each of train, valid and test needs one",
            where=path,
            remedy="add rows",
        )
    place: dict[str, Split] = {key: split_of(key) for key in keys}
    moved_keys = _fill_empty(place)
    parts: dict[Split, list[bytes]] = {split: [] for split in SPLITS}
    moved: list[int] = []
    for (line, raw), key in zip(read_lines(path), keys, strict=True):
        parts[place[key]].append(raw if raw.endswith(b"\n") else raw + b"\n")
        if key in moved_keys:
            moved.append(line)
    _write(folder, {f"{split}.jsonl": b"".join(lines) for split, lines in parts.items()})
    return SplitReport(
        folder=folder,
        rows={split: len(lines) for split, lines in parts.items()},
        duplicates=sum(count - 1 for count in Counter(keys).values()),
        moved=tuple(moved),
    )


def content_hash(example: Example) -> str:
    """SHA-256 of what a row says, whatever else its line holds: key order, spaces, escapes and further keys."""
    content = [example.kind, [[message.role, message.content] for message in example.messages], example.text]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def split_of(key: str) -> Split:
    """The split of a content hash, which is a point in [0, 1): the lowest shares are test's, then valid's."""
    point = int(key[:16], 16) / 16**16
    if point < TEST_SHARE:
        return "test"
    return "valid" if point < TEST_SHARE + VALID_SHARE else "train"


def _fill_empty(place: dict[str, Split]) -> set[str]:
    """Give each empty split one row from the fullest, in place. Returns: the keys that moved."""
    moved: set[str] = set()
    for split in SPLITS:
        counts = Counter(place.values())
        if not counts[split]:
            fullest = counts.most_common(1)[0][0]
            keys = [key for key in place if place[key] == fullest]
            # The nearest: SPLITS go down the line of hashes, so an earlier split lies above the fullest.
            key = max(keys) if SPLITS.index(split) < SPLITS.index(fullest) else min(keys)
            place[key] = split
            moved.add(key)
    return moved


def _folder_beside(path: Path) -> Path:
    return path.with_suffix("") if path.suffix else path.with_name(path.name + ".split")


def _refuse_taken(folder: Path, path: Path, *, force: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError("the output is there, and no folder", where=folder, remedy="choose another place")
    if not folder.exists():
        return
    if any(folder.iterdir()) and not force:
        raise OutputExistsError(
            "the output exists already", where=folder, remedy="choose another place, or add --force"
        )
    for split in SPLITS:
        target = folder / f"{split}.jsonl"
        if target.is_dir():
            raise OutputExistsError("a folder has this name", where=target, remedy="choose another place")
        if path.exists() and target.exists() and target.samefile(path):
            raise OutputExistsError("the file would overwrite itself", where=target, remedy="choose another place")


def _write(folder: Path, files: dict[str, bytes]) -> None:
    if folder.exists() and any(folder.iterdir()):
        write_together({folder / name: content for name, content in files.items()})
        return
    with new_folder(folder) as part:
        for name, content in files.items():
            write_bytes(part / name, content)
