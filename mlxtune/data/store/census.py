"""What is noted of the rows of a data set as they stream by: enough to name, weigh and find them again later.

A stream can be gone through again, as a file can be read again: whoever needs the words of a row asks for them then.
Knows examples; nothing of tokens. The price is about 25 bytes a row.
"""

import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from mlxtune.data.example import Example, Kind, content_hash
from mlxtune.data.faults import LISTED, Fault
from mlxtune.data.normalize import Normalized, remedy_for
from mlxtune.data.rendering.answer_spans import thinks
from mlxtune.data.store.rows import Places, PlacesWriter

if TYPE_CHECKING:
    from mlxtune.recipe.choices import Form

KINDS: tuple[Kind, ...] = ("chat", "preference", "prompt_completion", "text")
SYSTEMS = 100
"""Different system messages that are told apart; whether a data set has one or none is all that is asked."""
FIRST_ROWS = 64
"""By which a data set is told from most others."""


@dataclass(frozen=True)
class Weighted:
    """The rows of one file, and how often each stands in an epoch.

    ``open`` gives the rows from the beginning, each time that it is called. Of a weight's fraction, the rows whose
    content hash is below it stand there once more: 0.5 takes every other row on average, the same each time.
    """

    open: Callable[[], Iterable[Example | Fault]]
    name: str = ""
    weight: float = 1.0
    total: int = 0
    """About how many rows there are, for progress; 0 where nobody knows."""
    share: float | None = None
    """Of replay: the share of an epoch's rows that is to be this file's; it has no weight then. Of a file with more
    rows than that, those with the lowest content hashes stand there, in every epoch the same."""


@dataclass(frozen=True)
class Stream:
    """All rows that a split is read from, file by file."""

    files: tuple[Weighted, ...]

    @property
    def total(self) -> int:
        """About how many rows there are; 0 where nobody knows."""
        totals = [file.total for file in self.files]
        return sum(totals) if all(totals) else 0

    def rows(self, *, replay: bool) -> Iterator[Example | Fault]:
        """All rows of replay, or all others, from the beginning."""
        for file in self.files:
            if (file.share is not None) == replay:
                yield from file.open()

    @property
    def weighs(self) -> bool:
        """Whether some rows may be left out of an epoch."""
        return any(file.weight % 1 or file.share is not None for file in self.files)


class Census:
    """What is noted of a stream's examples, in their order.

    Args:
        hashing: whether their content is to be hashed.
    """

    def __init__(self, stream: Stream, *, hashing: bool) -> None:
        self._stream, self._hashing = stream, hashing or stream.weighs
        self._digest = hashlib.sha256()
        self._places, self._shares, self._systems = PlacesWriter(), array("d"), array("b")
        self._known: dict[str | None, int] = {}
        self._faults: list[Fault] = []
        self._of: Normalized | None = None
        self.rows_read = [0] * len(stream.files)
        """Of each file."""
        self.forms: list[Form | Kind] = ["text"] * len(stream.files)
        self.whys = [""] * len(stream.files)
        """Of each file that has rows: its form, and why it is that; of rows that were never in a form, their kind."""
        self._kinds: set[Kind] = set()
        self._thinking = 0
        self.first: list[str] = []
        """The content hashes of the first `FIRST_ROWS` rows."""

    @property
    def rows(self) -> int:
        return sum(self.rows_read)

    @property
    def kind(self) -> Kind:
        """What the rows come to, of which there is one; of several kinds, the one that is prompted most strictly."""
        return next(kind for kind in KINDS if kind in self._kinds)

    @property
    def thinks(self) -> bool:
        """Whether most rows' last answers have thoughts."""
        return 2 * self._thinking > self.rows - int(self.is_replay().sum())

    def is_replay(self) -> np.ndarray:
        """[rows]: which are of replay, and so have no say in what kind the rows are and how they are prompted."""
        return np.repeat([file.share is not None for file in self._stream.files], self.rows_read)

    @property
    def content(self) -> str:
        """The hash of what all rows say, in their order."""
        return self._digest.hexdigest()

    def watch(
        self,
        rows_a_file: int | None = None,
        *,
        sides: Callable[[Example], Sequence[Example]] = lambda example: (example,),
    ) -> Iterator[Example | Fault]:
        """The stream from its beginning, or so many rows of each file, each noted as it goes by.

        Args:
            sides: the rows that an example comes to.
        """
        for number, file in enumerate(self._stream.files):
            rows = file.open()
            several = (side for item in rows for side in (sides(item) if isinstance(item, Example) else (item,)))
            for item in islice(several, rows_a_file):
                if isinstance(item, Example):
                    if not self.rows_read[number]:
                        self._note_form(number, rows, item)
                    self.rows_read[number] += 1
                    self._note(item, is_replay=file.share is not None)
                elif isinstance(rows, Normalized) and len(self._faults) < LISTED:
                    self._faults.append(item)
                    self._of = self._of or rows
                yield item

    def remedy(self, faults: Sequence[Fault]) -> str:
        """The way out for ``faults``, those of the stream among them: theirs, if there are any."""
        if self._of is not None and self._of.form is not None:
            return remedy_for(self._of, self._faults)
        return next((fault.remedy for fault in faults if fault.remedy), "")

    def places(self) -> Places:
        return self._places.finish()

    def copies(self, left: np.ndarray) -> np.ndarray:
        """[rows]: how often each row stands in an epoch.

        Args:
            left: [rows], how many rows of an epoch each comes to: 0 if it is dropped, several if it is split.
        """
        if all(file.weight == 1 and file.share is None for file in self._stream.files):
            return np.ones(self.rows, np.int32)
        weight = np.repeat([file.weight for file in self._stream.files], self.rows_read)
        whole = np.floor(weight)
        hashes = np.array(self._shares, np.float64) if self._stream.weighs else np.zeros(len(weight))
        copies = (whole + (hashes < weight - whole)).astype(np.int32)
        own = int((copies * left)[~self.is_replay()].sum())
        ends = np.cumsum(self.rows_read)
        for file, start, end in zip(self._stream.files, ends - self.rows_read, ends, strict=True):
            if file.share is not None:
                wanted = max(1, round(own * file.share / (1 - file.share)))
                copies[start:end] = replay_copies(hashes[start:end], left[start:end] > 0, wanted)
        return copies

    def system(self, rows: np.ndarray) -> str | None:
        """The system message that these rows, by number, begin with alike; None if one has another or none."""
        rows = rows[~self.is_replay()[rows]]
        found = np.unique(np.array(self._systems, np.int8)[rows])
        if len(found) != 1 or not 0 <= found[0] < SYSTEMS:
            return None
        return list(self._known)[found[0]]

    def _note_form(self, number: int, rows: Iterable[Example | Fault], first: Example) -> None:
        self.forms[number] = first.kind
        if isinstance(rows, Normalized) and rows.form is not None:
            self.forms[number], self.whys[number] = rows.form, rows.why

    def _note(self, example: Example, *, is_replay: bool) -> None:
        self._places.add(example.where)
        if not is_replay:
            self._kinds.add(example.kind)
            self._thinking += bool(example.messages) and thinks(example.messages[-1])
        first = example.messages[0] if example.messages else None
        system = first.content if first is not None and first.role == "system" else None
        if system not in self._known and len(self._known) < SYSTEMS:
            self._known[system] = len(self._known)
        self._systems.append(self._known.get(system, SYSTEMS))
        if self._hashing:
            content = content_hash(example)
            self._digest.update(content.encode())
            if self._stream.weighs:
                self._shares.append(int(content[:8], 16) / 2**32)
            if len(self.first) < FIRST_ROWS:
                self.first.append(content)


def replay_copies(hashes: np.ndarray, is_left: np.ndarray, wanted: int) -> np.ndarray:
    """[rows]: how often each stands in an epoch, so that together they come to ``wanted`` rows of it.

    Each as often as the others where there are too few, and of what is then missing the rows with the lowest hashes:
    the same ones wherever they stand in the file.

    Args:
        hashes: [rows], of what they say, from 0 to 1. is_left: [rows], those that were not dropped.
    """
    left = np.flatnonzero(is_left)
    copies = np.zeros(len(hashes), np.int32)
    if len(left):
        copies[left], rest = divmod(wanted, len(left))
        copies[left[np.argsort(hashes[left], kind="stable")[:rest]]] += 1
    return copies
