"""Names and terms that the owner lists: a person, a client, a project's name.

Whole words, in capitals or not, whatever white space is between them. Terms are found by their first word, so that a
list of thousands costs about what a list of one does.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from mlxtune.data.detectors.match import Detector, Match
from mlxtune.errors import DataError

WORD = re.compile(r"\w+")


def read_terms(path: Path) -> list[str]:
    """The terms of a file, one a line; blank lines, and lines that begin with ``#``, hold none.

    Raises: DataError, if it cannot be read, is no UTF-8, or has no terms.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror}", where=path, remedy="name a file that you can read"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError("the file is not UTF-8", where=path, remedy="save it as UTF-8") from error
    terms = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    _check_terms(terms, path)
    if not terms:
        raise DataError("the file has no terms", where=path, remedy="write one name or term a line")
    return terms


def term_detector(terms: Sequence[str]) -> Detector:
    """Finds ``terms``. Raises: DataError, if one has no letter or digit."""
    _check_terms(terms, "terms")
    by_first: dict[str, list[tuple[str, ...]]] = {}
    for term in {_words_of(term) for term in terms}:
        by_first.setdefault(term[0], []).append(term)
    for same in by_first.values():
        same.sort(key=len, reverse=True)  # the longest counts

    def find_terms(text: str, key: str) -> Iterator[Match]:  # noqa: ARG001 - a detector's interface
        found = list(WORD.finditer(text))
        plain = [_fold(word[0]) for word in found]
        for place, first in enumerate(plain):
            for term in by_first.get(first, ()):
                last = place + len(term) - 1
                if tuple(plain[place : last + 1]) == term:
                    start, end = found[place].start(), found[last].end()
                    yield Match("term", "listed term", start, end, " ".join(term), f"{text[start]}…")
                    break

    return find_terms


def _check_terms(terms: Sequence[str], where: Path | str) -> None:
    if not all(map(WORD.search, terms)):
        raise DataError("a term without a letter or digit", where=where, remedy="give names or words")


def _words_of(term: str) -> tuple[str, ...]:
    return tuple(_fold(word) for word in WORD.findall(term))


def _fold(word: str) -> str:
    return unicodedata.normalize("NFC", word).casefold()
