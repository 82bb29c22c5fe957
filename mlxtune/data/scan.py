"""Private data in files of rows, before a model learns them: what was found, where, and a copy without it.

Reads line by line, so that a file may be larger than memory; what is kept is a count of each kind, the first
``LISTED`` findings, and for a redacted copy a hash of each value. A line that is no JSON is scanned as it stands, since
what is private there is private too. What was found is never shown in full: a finding has its place and a mask.

The price of finding what people write is that some of it is nothing: a scan says where to look, and clears nobody.
"""

import contextlib
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mlxtune.data.detectors import REGIONS, find_private, make_detectors
from mlxtune.data.detectors.match import Match
from mlxtune.data.read import read_rows_as_lines
from mlxtune.errors import DataError
from mlxtune.files import check_new_file, check_new_folder, new_file, new_folder
from mlxtune.json_text import parse_json
from mlxtune.progress import Progress, silent

LISTED = 10_000
"""Findings that a report names; all are counted."""
REPORT_EVERY = 1024
"""Lines between two reports of progress."""
REMEMBERED = 100_000
"""Texts without a finding that are known again: rows repeat their instructions."""
DIGITS_OF_NUMBERS = 6
"""JSON numbers with more digits are scanned too: some write telephone numbers so."""
DEEPEST = 100
"""Levels of a JSON value that are gone into; Python's own limit comes too late to say which line it was."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One place with private data."""

    kind: str
    what: str
    file: Path
    line: int
    field: str
    """Where in the row, such as ``messages[1].content``; keys with a finding are masked. Empty for a line that is no
    JSON."""
    mask: str


@dataclass(frozen=True)
class ScanReport:
    """What a scan found in its files."""

    files: tuple[Path, ...]
    rows: int
    """Lines that hold something."""
    regions: tuple[str, ...]
    counts: dict[str, int]
    """Of each kind that was found."""
    findings: tuple[Finding, ...]
    """The first of them."""
    redacted: Path | None = None

    @property
    def total(self) -> int:
        return sum(self.counts.values())


class Scanner:
    """Finds what is private in a row's texts; remembers, by their hash, those that hold nothing."""

    def __init__(self, regions: Sequence[str], terms: Sequence[str]) -> None:
        self._detectors = make_detectors(regions=regions, terms=terms)
        self._clean: set[bytes] = set()

    def find(self, text: str, key: str) -> list[Match]:
        digest = _digest(f"{key}\0{text}")
        if digest in self._clean:
            return []
        matches = find_private(text, key, self._detectors)
        if not matches:
            if len(self._clean) >= REMEMBERED:
                self._clean.clear()
            self._clean.add(digest)
        return matches

    def scan(self, value: Any) -> Iterator[tuple[str, Match]]:
        """What is private in a row, and in which field. Raises: ValueError, if the row is nested too deeply."""
        for field, key, text in _texts(value, self.masked):
            for match in self.find(text, key):
                yield field, match

    def masked(self, text: str) -> str:
        """A key or a message, to be shown."""
        return self.replace(text, "", lambda match: match.mask)

    def replace(self, text: str, key: str, new: Callable[[Match], str]) -> str:
        """A text with something else for what is private in it."""
        parts: list[str] = []
        end = 0
        for match in self.find(text, key):
            parts += [text[end : match.start], new(match)]
            end = match.end
        return "".join([*parts, text[end:]])


def scan_file(
    path: Path,
    *,
    regions: Sequence[str] = REGIONS,
    terms: Sequence[str] = (),
    redact: Path | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> ScanReport:
    """Private data in a file of rows, or of other text in UTF-8.

    Args:
        regions: ISO's two letters: whose national telephone and identity numbers are looked for.
        terms: names and words of the owner.
        redact: a file to write, where each value is a placeholder, the same one wherever it stands; numbers become
            strings there. Lines without a finding are copied byte by byte.

    Raises: DataError, if the file cannot be read, or a term has no letter or digit; to redact, also if a line is no
        JSON, is nested too deeply or has a number too large to be written again. UsageError, for a region that there is
        not, or none. OutputExistsError.
    """
    scanner = Scanner(regions, terms)
    if redact is None:
        return _scan([path], scanner, regions, progress)
    check_new_file(redact, force=force)
    _refuse_source([path], redact)
    with new_file(redact, force=force) as part:
        return _scan([path], scanner, regions, progress, redacted=redact, copies=[part])


def scan_files(
    paths: Mapping[str, Path],
    *,
    regions: Sequence[str] = REGIONS,
    terms: Sequence[str] = (),
    redact: Path | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> ScanReport:
    """`scan_file` for a recipe's splits; ``redact`` is a folder, and a value has one placeholder in all its files."""
    scanner = Scanner(regions, terms)
    if redact is None:
        return _scan(list(paths.values()), scanner, regions, progress)
    check_new_folder(redact, force=force)
    _refuse_source(list(paths.values()), redact)
    with new_folder(redact, force=force) as part:
        copies = [part / f"{name}.jsonl" for name in paths]
        return _scan(list(paths.values()), scanner, regions, progress, redacted=redact, copies=copies)


def _refuse_source(paths: Sequence[Path], redact: Path) -> None:
    if any(path.resolve().is_relative_to(redact.resolve()) for path in paths):
        raise DataError("the copy would replace what is read", where=redact, remedy="choose another place")


def _scan(
    paths: Sequence[Path],
    scanner: Scanner,
    regions: Sequence[str],
    progress: Progress,
    *,
    redacted: Path | None = None,
    copies: Sequence[Path] = (),
) -> ScanReport:
    """Scan files, and write what they hold to ``copies`` without what is found, if copies are wanted."""
    counts: Counter[str] = Counter()
    findings: list[Finding] = []
    redact = partial(scanner.replace, new=Placeholders().of)
    rows = 0
    for number, path in enumerate(paths):
        with contextlib.ExitStack() as stack:
            copy = stack.enter_context(copies[number].open("wb")) if copies else None
            for line, raw in _lines(path, progress):
                rows += 1
                try:
                    value, found = _find(raw, scanner, must_be_json=copy is not None)
                    if copy is not None:
                        copy.write(_as_line(_replaced(value, "", redact), raw) if found else raw)
                except ValueError as error:
                    remedy = "mend this line or take it out: a copy is made of rows, one JSON value a line"
                    raise DataError(scanner.masked(str(error)), where=f"{path}:{line}", remedy=remedy) from error
                for field, match in found:
                    counts[match.kind] += 1
                    if len(findings) < LISTED:
                        findings.append(Finding(match.kind, match.what, path, line, field, match.mask))
    ordered = {kind: counts[kind] for kind in sorted(counts)}
    return ScanReport(tuple(paths), rows, tuple(regions), ordered, tuple(findings), redacted)


def _lines(path: Path, progress: Progress) -> Iterator[tuple[int, bytes]]:
    done, total = 0, path.stat().st_size if path.is_file() else 0
    for count, (line, raw) in enumerate(read_rows_as_lines(path)):
        if count % REPORT_EVERY == 0:
            progress(f"scan {path.name}: bytes", min(done, total), total)
        done += len(raw)
        yield line, raw
    progress(f"scan {path.name}: bytes", total, total)


def _find(raw: bytes, scanner: Scanner, *, must_be_json: bool) -> tuple[Any, list[tuple[str, Match]]]:
    """A line's value and what is private in it; a line that is no JSON, or too deep, is a text.

    Raises: ValueError, with a sentence for the user, if such a line must be JSON.
    """
    try:
        value = parse_json(raw)
        return value, list(scanner.scan(value))
    except ValueError:
        if must_be_json:
            raise
        text = raw.decode("utf-8", "replace")
        return text, list(scanner.scan(text))


def _as_line(value: Any, raw: bytes) -> bytes:
    """A row as JSON, written as ``raw`` was: what was escaped there may be no UTF-8 otherwise.

    Raises: ValueError, with a sentence for the user, for a number that Python reads as infinite.
    """
    try:
        line = json.dumps(value, ensure_ascii=b"\\u" in raw, allow_nan=False)
    except ValueError as error:
        raise ValueError("a number is too large to be written again") from error
    return line.encode() + (b"\r\n" if raw.endswith(b"\r\n") else b"\n")


def _texts(
    value: Any, show: Callable[[str], str], field: str = "", key: str = "", depth: int = 0
) -> Iterator[tuple[str, str, str]]:
    """Every text in a JSON value, long numbers and keys among them: its field, the key it stands under, itself."""
    if depth > DEEPEST:
        raise ValueError(f"nested too deeply: more than {DEEPEST} levels")
    if isinstance(value, dict):
        for name, inside in value.items():
            below = f"{field}.{show(name)}" if field else show(name)
            yield field, "", name
            yield from _texts(inside, show, below, name, depth + 1)
    elif isinstance(value, list):
        for number, inside in enumerate(value):
            yield from _texts(inside, show, f"{field}[{number}]", key, depth + 1)
    elif (text := _text(value)) is not None:
        yield field, key, text


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    # pandas writes a column of whole numbers with gaps as 4111111111111111.0
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    # of more digits it is no number of anything, and True is 1
    return str(int(value)) if is_whole and 10**DIGITS_OF_NUMBERS <= abs(value) < 2**256 else None


def _replaced(value: Any, key: str, change: Callable[[str, str], str]) -> Any:
    """A JSON value with its texts changed, as `_texts` finds them."""
    if isinstance(value, dict):
        changed: dict[str, Any] = {}
        for name, inside in value.items():
            changed[_unused(change(name, ""), changed)] = _replaced(inside, name, change)
        return changed
    if isinstance(value, list):
        return [_replaced(inside, key, change) for inside in value]
    text = _text(value)
    if text is None:
        return value
    new = change(text, key)
    return value if new == text else new


def _unused(name: str, taken: Mapping[str, Any]) -> str:
    """A key that is not yet there: two ways to write one address have one placeholder, but each its own value."""
    names = itertools.chain([name], (f"{name} ({number})" for number in itertools.count(2)))
    return next(one for one in names if one not in taken)


class Placeholders:
    """One placeholder for each value: ``[EMAIL_1]``, ``[EMAIL_2]``. Remembers values by their hash alone."""

    def __init__(self) -> None:
        self._known: dict[bytes, int] = {}
        self._counts: Counter[str] = Counter()

    def of(self, match: Match) -> str:
        digest = _digest(f"{match.kind} {match.value}")
        if digest not in self._known:
            self._counts[match.kind] += 1
            self._known[digest] = self._counts[match.kind]
        return f"[{match.kind.upper()}_{self._known[digest]}]"


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
