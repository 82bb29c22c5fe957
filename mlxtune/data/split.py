"""One file into three: train, valid and test, by a hash of what each row says.

A hash is a point in [0, 1): the lowest points are test's, the next valid's. Rows that hang together stand in one split:
those that say or ask the same, near-duplicates (duplicates.py), and with ``group_by`` those of one group; all go where
the oldest of them, the first in the file, goes. What that promises:

- Rows added at the end move no old row, unless a new row hangs together with two old ones that did not: then the
  younger of the two goes where the older is. A phrase that becomes or ceases to be common to half of the first
  2,000 rows (duplicates.py) can part or join rows too; equal rows and groups never part.
- Without ``stratify`` the point is the row's own, or its group's key: order in the file matters only for which row of
  those that hang together is the oldest.
- With ``stratify`` the points of a class, row by row, are a golden-ratio sequence that begins at its value's hash:
  each class has its shares almost exactly instead of on average. The price: rows put in before others move them.

Reads the file twice and holds some bytes a row in memory. Lines of JSON Lines are copied byte for byte; of any other
kind of file, each record is written as a line of JSON.
"""

import json
from array import array
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np

from mlxtune.data.faults import Fault, refuse
from mlxtune.data.likeness.duplicates import RowIndex
from mlxtune.data.likeness.shingles import THRESHOLD
from mlxtune.data.normalize import Shape
from mlxtune.data.read import REMEDY, read_lines, read_stream
from mlxtune.data.reading.kinds import kind_of
from mlxtune.data.split_keys import SplitKeys
from mlxtune.data.store.row_count import estimate_rows
from mlxtune.errors import DataError, OutputExistsError, UsageError
from mlxtune.files import naming, new_files, new_folder
from mlxtune.progress import Progress, silent

Split = Literal["train", "valid", "test"]

SPLITS: tuple[Split, ...] = ("train", "valid", "test")
TEST_SHARE = 0.1
VALID_SHARE = 0.1
FAULTS = 1000
"""Bad rows after which reading ends."""
LOWEST_SIMILARITY = 0.7
"""Below it the candidates of shingles.py are no longer nearly all pairs."""
PACKED = (".gz", ".zst")
REPORT_EVERY = 1024


@dataclass(frozen=True)
class SplitReport:
    """What was written: the folder, rows a split, and why rows are where they are.

    ``duplicates`` rows say what an earlier one says; ``alike`` more ask the same or nearly so. The largest set of rows
    that hang together has ``largest``. ``moved`` are the lines of rows that fill a split that would be empty. ``why``
    says what the rows were taken for.
    """

    folder: Path
    rows: dict[Split, int]
    duplicates: int
    alike: int
    largest: int
    moved: tuple[int, ...]
    why: str


def split_file(
    path: Path,
    out: Path | None = None,
    *,
    test: float = TEST_SHARE,
    valid: float = VALID_SHARE,
    group_by: str | None = None,
    stratify: str | None = None,
    similarity: float = THRESHOLD,
    shape: Shape | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> SplitReport:
    """Write ``train.jsonl``, and ``valid.jsonl`` and ``test.jsonl`` where they have a share, all or none.

    Where ``force`` overwrites, all are whole on the medium before the first takes its place; only a process that is
    killed between the renames that follow leaves a mix: split again then.

    In a file so small that a split would stay empty, the nearest rows that hang together are moved there; they alone
    may move back when the file grows.

    Args:
        path: a file of any kind and form that training takes.
        out: a folder; beside ``path`` and named after it, if not given.
        test, valid: their shares of the rows; the rest is train's. 0: no such file is written.
        group_by: a column; rows with an equal value stay together.
        stratify: a column of classes, each of which is to have these shares.
        similarity: the Jaccard similarity from which rows are near-duplicates, 0.7 to 1; 1: only those that ask the
            same, but for case and white space, stay together.
        shape: how rows are read, where their form cannot be told or has other columns.
        force: overwrite these files; others in the folder stay.

    Raises: UsageError, for what is not one file, and shares that leave nothing to train on; OutputExistsError, before
        anything is written; DataError, for bad rows as training names them, a column that is not there or holds no
        plain value, and where fewer sets of rows hang together than there are splits to fill.
    """
    shares: dict[Split, float] = {"test": test, "valid": valid}
    _check_settings(shares, similarity)
    _refuse_several(path)
    wanted: tuple[Split, ...] = tuple(split for split in SPLITS if split == "train" or shares[split])
    folder = out if out is not None else _folder_beside(path)
    _refuse_taken(folder, path, force=force)
    before = _state_of(path)
    keys = SplitKeys(path, group_by, stratify, shape)
    with RowIndex(threshold=similarity) as index, closing(keys):
        _index_rows(index, keys, progress)
        links = _link(index, keys, progress)
        place, moved = _places(index, keys, links, shares, wanted)
    moved_lines = _write_parts(path, folder, wanted, place, moved, before, progress)
    counts = np.bincount(place, minlength=len(SPLITS)).tolist()
    return SplitReport(
        folder=folder,
        rows={split: counts[SPLITS.index(split)] for split in wanted},
        duplicates=links.same,
        alike=links.alike,
        largest=int(np.bincount(links.root).max()),
        moved=tuple(moved_lines),
        why=keys.why,
    )


def _write_parts(
    path: Path,
    folder: Path,
    wanted: tuple[Split, ...],
    place: np.ndarray,
    moved: np.ndarray,
    before: tuple[int, int],
    progress: Progress,
) -> list[int]:
    """Write each line of the file to the split that its ``place`` [rows] says.

    Args:
        before: the state that the file has to have still.

    Returns: the lines of rows that were ``moved`` [rows]. Raises: DataError, for a file that was changed.
    """
    changed = DataError("the file was changed while it was split", where=path, remedy="split it again")
    if _state_of(path) != before:
        raise changed
    with _open_parts(folder, wanted) as files:
        moved_lines: list[int] = []
        written = 0
        for number, (line, raw) in enumerate(_lines(path)):
            if number >= len(place):
                raise changed
            written += 1
            files[SPLITS[place[number]]].write(raw)
            if moved[number]:
                moved_lines.append(line)
            if number % REPORT_EVERY == 0:
                progress("write: rows", number, len(place))
        if written != len(place) or _state_of(path) != before:
            raise changed
        progress("write: rows", len(place), len(place))
    return moved_lines


def split_of(key: str, *, test: float = TEST_SHARE, valid: float = VALID_SHARE) -> Split:
    """The split of a content hash, which is a point in [0, 1): the lowest shares are test's, then valid's."""
    point = int(key[:16], 16) / 16**16
    return SPLITS[int(_splits_at(np.array([point]), {"test": test, "valid": valid})[0])]


def _splits_at(points: np.ndarray, shares: Mapping[Split, float]) -> np.ndarray:
    """The splits of points in [0, 1), as places in `SPLITS`: uint8."""
    test, valid = shares["test"], shares["valid"]
    choices = [np.uint8(SPLITS.index("test")), np.uint8(SPLITS.index("valid"))]
    return np.select([points < test, points < test + valid], choices, np.uint8(SPLITS.index("train")))


def _check_settings(shares: Mapping[Split, float], similarity: float) -> None:
    for split, share in shares.items():
        if not 0 <= share < 1:  # false for NaN too
            raise UsageError(
                f"a share of {share:g} is none", where=f"--{split}", remedy="give a share from 0 to below 1"
            )
    total = sum(shares.values())
    if not 0 < total < 1:
        what = "nothing is held out" if total == 0 else "nothing is left to train on"
        remedy = "give --test and --valid shares above 0 that come to less than 1"
        raise UsageError(f"{what}: the shares come to {total:g}", where="--test, --valid", remedy=remedy)
    if not LOWEST_SIMILARITY <= similarity <= 1:
        remedy = f"choose from {LOWEST_SIMILARITY:g} to 1, where only rows that ask the same stay together"
        raise UsageError(f"a similarity of {similarity:g} is out of range", where="--similarity", remedy=remedy)


def _index_rows(index: RowIndex, keys: SplitKeys, progress: Progress) -> None:
    """Every row of the file into the index, and its keys noted. Raises: DataError, naming all bad rows."""
    total = estimate_rows(keys.path)
    faults: list[Fault] = []
    for item in keys.rows():
        if isinstance(item, Fault):
            faults.append(item)
            if len(faults) == FAULTS:
                break
        else:
            index.add(item)
            if index.rows % REPORT_EVERY == 0:
                progress("read: rows", index.rows, max(total, index.rows + 1) if total else 0)
    keys.refuse_missing_columns()
    refuse(faults, path=keys.path, remedy=next((fault.remedy for fault in faults if fault.remedy), REMEDY))
    if not index.rows:
        raise DataError("the file has no rows", where=keys.path, remedy="write one JSON object a line")
    progress("read: rows", index.rows, index.rows)
    index.finish()


@dataclass(frozen=True, eq=False)
class _Links:
    """Which rows hang together: ``root`` [rows], the oldest of each; and how many for which reason."""

    root: np.ndarray
    same: int
    alike: int


def _link(index: RowIndex, keys: SplitKeys, progress: Progress) -> _Links:
    parent = array("I", range(index.rows))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = row = parent[parent[row]]
        return row

    def join(first: int, second: int) -> None:
        older, younger = sorted((root(first), root(second)))
        parent[younger] = older

    same = alike = 0
    for pair in index.pairs(lambda first, second: root(first) != root(second), progress):
        if pair.likeness == "same":
            same += 1
        else:
            alike += 1
        join(pair.first, pair.row)
    if keys.groups is not None:
        for together in index.buckets(keys.groups):
            for row in together[1:].tolist():
                join(int(together[0]), row)
    flat = np.frombuffer(parent, np.uint32).copy()
    while (flat[flat] != flat).any():
        flat = flat[flat]
    return _Links(flat, same, alike)


def _places(
    index: RowIndex, keys: SplitKeys, links: _Links, shares: Mapping[Split, float], wanted: tuple[Split, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Of each row its split, as a place in `SPLITS`, and whether it was moved there so that it is not empty."""
    is_root = links.root == np.arange(index.rows, dtype=np.uint32)
    sets = int(is_root.sum())
    if sets < len(wanted):
        different = index.rows - links.same
        what = f"the file has {different} different row{'s' * (different != 1)}"
        remedy = "add rows"
        if different >= len(wanted):
            what += f" that hang together in {sets} set{'s' * (sets != 1)}, as groups or near-duplicates"
            remedy = "add rows, group by another column, or set --similarity 1"
        names = f"{', '.join(wanted[:-1])} and {wanted[-1]}"
        raise DataError(f"{what}, and each of {names} needs one", where=keys.path, remedy=remedy)
    place = np.concatenate([_splits_at(points, shares) for points in keys.points(index)])
    moved = np.zeros(index.rows, bool)
    counts = np.bincount(place[is_root], minlength=len(SPLITS))
    if not all(counts[SPLITS.index(split)] for split in wanted):
        points = np.concatenate(list(keys.points(index)))
        _fill_empty(place, moved, np.flatnonzero(is_root), points[is_root], wanted)
    return place[links.root], moved[links.root]


def _fill_empty(
    place: np.ndarray, moved: np.ndarray, roots: np.ndarray, points: np.ndarray, wanted: tuple[Split, ...]
) -> None:
    """Give each empty split the nearest of the fullest's sets of rows, by its root, in place."""
    for number in map(SPLITS.index, wanted):
        counts = np.bincount(place[roots], minlength=len(SPLITS))
        if not counts[number]:
            fullest = int(counts.argmax())
            inside = np.flatnonzero(place[roots] == fullest)
            # The nearest: SPLITS go down the line of points, so an earlier split lies above the fullest.
            at = inside[points[inside].argmax() if number < fullest else points[inside].argmin()]
            place[roots[at]], moved[roots[at]] = number, True


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The rows of a file as lines of JSON, each with its number: those of JSON Lines byte for byte."""
    if kind_of(path) == "jsonl":
        for line, raw in read_lines(path):
            yield line, raw if raw.endswith(b"\n") else raw + b"\n"
        return
    for record in read_stream(path):
        if not isinstance(record, Fault):
            yield record.line, json.dumps(record.fields, ensure_ascii=False).encode() + b"\n"


def _state_of(path: Path) -> tuple[int, int]:
    state = path.stat() if path.exists() else None  # what is not there, the reader says
    return (0, 0) if state is None else (state.st_size, state.st_mtime_ns)


def _folder_beside(path: Path) -> Path:
    if path.suffix.lower() in PACKED:
        path = path.with_suffix("")
    return path.with_suffix("") if path.suffix else path.with_name(path.name + ".split")


def _refuse_several(path: Path) -> None:
    """Raises: UsageError, for a folder or a data set of the hub, which have files and perhaps splits already."""
    if path.is_dir() or path.parts[:1] == ("hf:",):
        what = "is a folder" if path.is_dir() else "is a data set of the hub"
        raise UsageError(f"this {what}, and one file is split", where=path, remedy="name one file of rows")


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


@contextmanager
def _open_parts(folder: Path, wanted: tuple[Split, ...]) -> Iterator[Mapping[Split, IO[bytes]]]:
    """A file for each split, to be written; they appear in ``folder`` when the block has ended well."""
    names = [f"{split}.jsonl" for split in wanted]
    with ExitStack() as stack:
        if folder.exists() and any(folder.iterdir()):
            parts = stack.enter_context(new_files(folder / name for name in names))
            paths = list(parts.values())
        else:
            whole = stack.enter_context(new_folder(folder))
            paths = [whole / name for name in names]
        with naming(folder), ExitStack() as files:
            opened = [files.enter_context(path.open("wb")) for path in paths]
            yield dict(zip(wanted, opened, strict=True))
