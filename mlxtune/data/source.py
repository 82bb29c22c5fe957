"""Where the rows of a split come from: files, folders and data sets of the hub, found, weighed and read as one stream.

A location of a recipe (`DataFile`) is a file or, of a folder or a hub's data set, all files that belong to the split.
Each location has a form of its own, so that chats and texts may be trained on together. Knows places and weights;
nothing of what is in a file (`reading`), of forms (`normalize`) or of tokens.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mlxtune.data.example import Example
from mlxtune.data.faults import LISTED, Fault, refuse
from mlxtune.data.normalize import Normalized, Shape, normalize_stream, remedy_for
from mlxtune.data.read import REMEDY, read_stream
from mlxtune.data.reading.locations import find_files, is_remote
from mlxtune.data.store.census import Stream, Weighted
from mlxtune.data.store.row_count import estimate_rows
from mlxtune.errors import DataError
from mlxtune.files import sha256_of
from mlxtune.progress import Progress, silent


@dataclass(frozen=True)
class DataFile:
    """One location of a split, and how often each of its rows stands in an epoch: 0.5 is every other row.

    Of replay, general rows among those to learn, ``share`` says instead which share of an epoch's rows is its.
    """

    path: Path
    """The file; for a folder or a hub's data set, what the owner wrote, for messages alone."""
    weight: float = 1.0
    parts: tuple[Path, ...] = ()
    """The files of a folder or a hub's data set, in the order in which they are read; none: ``path`` is the file."""
    place: str = ""
    """Of a hub's data set: what the owner wrote."""
    commit: str = ""
    """And the commit that its files are of."""
    share: float | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        return self.parts or (self.path,)


@dataclass(frozen=True)
class Source:
    """All that a split is read from, found."""

    files: tuple[DataFile, ...]
    shape: Shape = field(default_factory=Shape)

    @property
    def path(self) -> Path:
        """Its first location, by which messages name the whole."""
        return self.files[0].path

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file that is read, in order."""
        return tuple(path for file in self.files for path in file.files)

    @property
    def own(self) -> "Source":
        """The same without replay: what says what the task is."""
        return replace(self, files=tuple(file for file in self.files if file.share is None))

    @property
    def replay(self) -> "Source | None":
        """Replay alone, if there is any."""
        files = tuple(file for file in self.files if file.share is not None)
        return replace(self, files=files) if files else None

    @property
    def commits(self) -> dict[str, str]:
        """The commit of each location that is the hub's."""
        return {file.place: file.commit for file in self.files if file.commit}


def find_source(
    locations: Sequence[tuple[str, float]],
    split: str,
    shape: Shape | None = None,
    *,
    replay: tuple[str, float] | None = None,
    commits: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> Source:
    """The files that ``locations`` mean, each with its weight; those of the hub are fetched where they are not cached.

    Args:
        locations: a file, a folder, or ``hf://datasets/org/name[@revision][/path]``, and a weight.
        split: train, valid or test: of a folder with several splits, the files of that one.
        replay: one more location, and the share of an epoch's rows that is to be its. What ``shape`` says is not meant
            for it: its own rows tell its form.
        commits: of hub locations that were read before, the commits that they are to be read at again.

    Raises: DataError, for what is not there, a folder without such rows, or one that could be read in several ways;
        NetworkError.
    """
    found = []
    places = [(location, weight, None) for location, weight in locations]
    for location, weight, share in places if replay is None else [*places, (replay[0], 1.0, replay[1])]:
        files = find_files(location, split, commit=(commits or {}).get(location), progress=progress)
        if is_remote(location):
            # Path would make hf:/datasets of it; it names the place in messages alone.
            name = Path(location.replace("://", ":"))
            found.append(DataFile(name, weight, files.paths, location, files.commit, share))
        else:
            is_file = files.paths == (Path(location),)
            found.append(DataFile(Path(location), weight, () if is_file else files.paths, share=share))
    return Source(tuple(found), Shape() if shape is None else shape)


def open_file(file: DataFile, shape: Shape) -> Normalized:
    """The rows of one location, from the beginning; says the form that they have, and why it is that."""
    own = shape if file.share is None else Shape()
    return normalize_stream((row for path in file.files for row in read_stream(path)), own)


def iterate(source: Source) -> Iterator[Example | Fault]:
    """The rows of a split, each once whatever it weighs, with a fault in place of what is wrong."""
    for file in source.files:
        yield from open_file(file, source.shape)


def stream_of(source: Source) -> Stream:
    """The same rows as a stream that can be gone through again, with their weights."""
    return Stream(
        tuple(
            Weighted(
                lambda file=file: open_file(file, source.shape),
                str(file.path),
                weight=file.weight,
                total=_estimate(file),
                share=file.share,
            )
            for file in source.files
        )
    )


def read_examples(source: Source) -> list[Example]:
    """The rows of a split, in memory.

    Raises: DataError, for all faults of a location at once, and where it has no rows.
    """
    examples: list[Example] = []
    for file in source.files:
        stream = open_file(file, source.shape)
        faults: list[Fault] = []
        count = 0
        before = len(examples)
        for row in stream:
            if isinstance(row, Example):
                examples.append(row)
                continue
            count += 1
            if len(faults) < LISTED:
                faults.append(row)
        if faults:
            remedy = remedy_for(stream, faults) if stream.form is not None else faults[0].remedy or REMEDY
            refuse(faults, path=file.path, remedy=remedy, count=count)
        if len(examples) == before:
            raise DataError("the file has no rows", where=file.path, remedy="name one that has")
    return examples


def hash_of(source: Source) -> str:
    """A hash of what the files hold, in their order, and of weights and shares: of one file alone, its SHA-256."""
    if len(source.paths) == 1 and source.files[0].weight == 1 and source.files[0].share is None:
        return sha256_of(source.paths[0])
    content = [
        [file.weight, [sha256_of(path) for path in file.files], *([] if file.share is None else [file.share])]
        for file in source.files
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _estimate(file: DataFile) -> int:
    counts = [estimate_rows(path) for path in file.files]
    return sum(counts) if all(counts) else 0
