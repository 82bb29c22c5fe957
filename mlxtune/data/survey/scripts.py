"""Which scripts and languages rows are written in, and which rows in another than most.

Letters are counted by the script that Unicode's names give them; `languages` tells some of those with Latin letters
apart. Knows text alone; holds a small count a script and a language, and the first places of each.
"""

import functools
import string
import unicodedata
from collections import Counter
from dataclasses import dataclass

from mlxtune.data.survey.languages import language_of

LEAST_LETTERS = 8
"""Of a row, before it is said to be written in a script."""
PLACES = 20
"""Rows that are named of each script or language, at most."""

# Names of letters begin with their script; a Japanese row mixes three, and is written in one.
_JOINED: dict[str, str] = dict.fromkeys(
    ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "IDEOGRAPHIC"), "Han and kana"
)
_ASCII_LETTERS = string.ascii_letters.encode()
_STYLED = ("FULLWIDTH", "HALFWIDTH", "MATHEMATICAL", "MODIFIER", "DOUBLE-STRUCK", "SCRIPT", "BLACK-LETTER", "FEMININE")


@dataclass(frozen=True, slots=True)
class Written:
    """One script or language: the rows that are written in it, and the first of them."""

    name: str
    rows: int
    places: tuple[str, ...]


@dataclass(frozen=True)
class Writing:
    """What rows are written in, those of most rows first; and each script's share of all letters, the largest first.

    A row of few letters has no script, and a row whose language cannot be told none.
    """

    scripts: tuple[Written, ...]
    languages: tuple[Written, ...]
    letter_shares: tuple[tuple[str, float], ...]


class WritingCounter:
    """Counts row by row."""

    def __init__(self) -> None:
        self._letters: Counter[str] = Counter()
        self._scripts, self._languages = _Tally(), _Tally()

    def add(self, where: str, text: str) -> None:
        """One row's text."""
        own = letters_by_script(text)
        self._letters.update(own)
        if own.total() < LEAST_LETTERS:
            return
        script = own.most_common(1)[0][0]
        self._scripts.add(script, where)
        if script == "Latin" and (language := language_of(text)) is not None:
            self._languages.add(language, where)

    def finish(self) -> Writing:
        total = self._letters.total()
        shares = tuple((name, count / total) for name, count in self._letters.most_common())
        return Writing(self._scripts.finish(), self._languages.finish(), shares)


def letters_by_script(text: str) -> Counter[str]:
    """How many letters there are of each script."""
    if text.isascii():  # most text, and this takes a tenth of the time
        raw = text.encode()
        return Counter(Latin=len(raw) - len(raw.translate(None, _ASCII_LETTERS)))
    own: Counter[str] = Counter()
    for character, count in Counter(text).items():
        if (script := script_of(character)) is not None:
            own[script] += count
    return own


class _Tally:
    """Rows and first places, by name."""

    def __init__(self) -> None:
        self._rows: Counter[str] = Counter()
        self._places: dict[str, list[str]] = {}

    def add(self, name: str, where: str) -> None:
        self._rows[name] += 1
        places = self._places.setdefault(name, [])
        if len(places) < PLACES:
            places.append(where)

    def finish(self) -> tuple[Written, ...]:
        return tuple(Written(name, rows, tuple(self._places[name])) for name, rows in self._rows.most_common())


@functools.lru_cache(maxsize=65536)
def script_of(character: str) -> str | None:
    """The script of a letter, such as ``Latin``; None of what is no letter, or is no script's own."""
    if not unicodedata.category(character).startswith("L"):
        return None
    first = unicodedata.name(character, "").split(" ")[0]
    if not first or first in _STYLED:
        return None
    return _JOINED.get(first, first.capitalize())
