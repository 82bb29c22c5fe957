"""Private data in files of rows, before a model learns them: what was found, where, and a copy without it.

Reads line by line, so that a file may be larger than memory; what is kept is a count of each kind, the first
``LISTED`` findings, and for a redacted copy a hash of each value. A line that is no JSON is scanned as it stands, since
what is private there is private too. What was found is never shown in full: a finding has its place and a mask.

The price of finding what people write is that some of it is nothing: a scan says where to look, and clears nobody.
"""

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mlxtune.data.detectors import REGIONS, find_private, make_detectors
from mlxtune.data.detectors.match import Match
from mlxtune.data.read import read_lines
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


@dataclass(frozen=True, slots=True)
class Finding:
    """One place with private data."""

    kind: str
    what: str
    file: Path
    line: int
    field: str
    """Where in the row, such as ``messages[1].content``; empty for a line that is no JSON."""
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
        """What is private in a row, and in which field."""
        for field, key, text in _texts(value):
            for match in self.find(text, key):
                yield field, match

    def redact(self, text: str, key: str, placeholders: "Placeholders") -> str:
        """A text with placeholders."""
        parts: list[str] = []
        end = 0
        for match in self.find(text, key):
            parts += [text[end : match.start], placeholders.of(match)]
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

    Raises: DataError, if the file cannot be read; to redact, also if a line is no JSON. UsageError, for a region that
        there is not. OutputExistsError.
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
    redact = partial(scanner.redact, placeholders=Placeholders())
    rows = 0
    for number, path in enumerate(paths):
        with contextlib.ExitStack() as stack:
            copy = stack.enter_context(copies[number].open("wb")) if copies else None
            for line, raw in _lines(path, progress):
                rows += 1
                value = _parse(raw, path, line, must_be_json=copy is not None)
                changed = False
                for field, match in scanner.scan(value):
                    changed = True
                    counts[match.kind] += 1
                    if len(findings) < LISTED:
                        findings.append(Finding(match.kind, match.what, path, line, field, match.mask))
                if copy is not None:
                    copy.write(_as_line(_replaced(value, "", redact), raw) if changed else raw)
    ordered = {kind: counts[kind] for kind in sorted(counts)}
    return ScanReport(tuple(paths), rows, tuple(regions), ordered, tuple(findings), redacted)


def _lines(path: Path, progress: Progress) -> Iterator[tuple[int, bytes]]:
    done, total = 0, path.stat().st_size if path.is_file() else 0
    for count, (line, raw) in enumerate(read_lines(path)):
        if count % REPORT_EVERY == 0:
            progress(f"scan {path.name}: bytes", done, total)
        done += len(raw)
        yield line, raw
    progress(f"scan {path.name}: bytes", total, total)


def _parse(raw: bytes, path: Path, line: int, *, must_be_json: bool) -> Any:
    """A line's value; of one that is no JSON, its text."""
    try:
        return parse_json(raw)
    except ValueError as error:
        if must_be_json:
            remedy = "mend this line or take it out: a copy is made of rows, one JSON value a line"
            raise DataError(str(error), where=f"{path}:{line}", remedy=remedy) from error
        return raw.decode("utf-8", "replace")


def _as_line(value: Any, raw: bytes) -> bytes:
    """A row as JSON, written as ``raw`` was: what was escaped there may be no UTF-8 otherwise."""
    line = json.dumps(value, ensure_ascii=b"\\u" in raw)
    return line.encode() + (b"\r\n" if raw.endswith(b"\r\n") else b"\n")


def _texts(value: Any, field: str = "", key: str = "") -> Iterator[tuple[str, str, str]]:
    """Every text in a JSON value, long numbers and keys among them: its field, the key it stands under, itself."""
    if isinstance(value, dict):
        for name, inside in value.items():
            below = f"{field}.{name}" if field else name
            yield field, "", name
            yield from _texts(inside, below, name)
    elif isinstance(value, list):
        for number, inside in enumerate(value):
            yield from _texts(inside, f"{field}[{number}]", key)
    elif (text := _text(value)) is not None:
        yield field, key, text


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    is_long = isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**DIGITS_OF_NUMBERS
    return str(value) if is_long and value.bit_length() < 256 else None  # noqa: PLR2004 - more is no number of anything


def _replaced(value: Any, key: str, change: Callable[[str, str], str]) -> Any:
    """A JSON value with its texts changed, as `_texts` finds them."""
    if isinstance(value, dict):
        return {change(name, ""): _replaced(inside, name, change) for name, inside in value.items()}
    if isinstance(value, list):
        return [_replaced(inside, key, change) for inside in value]
    text = _text(value)
    if text is None:
        return value
    new = change(text, key)
    return value if new == text else new


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
