"""Characters in the rows that a person does not see, and that a model learns all the same.

Each is counted by kind, with the first places. Knows text alone: whether an odd character is meant, only its owner
knows (code has tags, French has no-break spaces), so nothing here is an error, and nothing is changed. The price of
plain patterns: mojibake is told by the pairs that UTF-8 read as Windows-1252 gives most often, not by trying to read
the text again.
"""

import re
import unicodedata
from dataclasses import dataclass

from mlxtune.printable import printable

PLACES = 20
"""Of each kind, how many are named before they are only counted."""
SHOWN = 24
"""Characters of a finding, at most: a tag may be long."""

_BYTES = [bytes([number]) for number in range(0x80, 0xC0)]
_FOLLOWING = "".join(byte.decode("latin-1") + byte.decode("cp1252", "ignore") for byte in _BYTES)
"""What the second and later bytes of a character in UTF-8 are read as; none of it is special in a set of a pattern."""
_EMOJI_OR_LETTER = r"[^\x00-\x7f]"
_HTML_TAGS = (
    "a|abbr|article|b|blockquote|body|br|button|center|code|div|em|font|form|h[1-6]|head|hr|html|i|iframe|img|input|li"
    "|link|meta|ol|p|pre|script|section|small|span|strong|style|sub|sup|table|tbody|td|th|tr|u|ul"
)

KINDS: dict[str, tuple[str, str]] = {
    "control_characters": ("control characters", r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]"),
    "invisible": (
        "invisible characters",
        (
            # Joiners are at home between letters of some scripts and between emoji; tags, after the black flag.
            r"[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u2060-\u2064\u3164\ufeff]"
            rf"|(?<!{_EMOJI_OR_LETTER})[\u200c\u200d]|[\u200c\u200d](?!{_EMOJI_OR_LETTER})"
            r"|(?<![\U0001f3f4\U000e0000-\U000e007f])[\U000e0000-\U000e007f]+"
        ),
    ),
    "bidi_controls": ("characters that turn the direction of writing", r"[\u202a-\u202e\u2066-\u2069]"),
    "replacement_characters": ("replacement characters: a decoder lost what stood there", r"\ufffd"),
    "mojibake": (
        "mojibake: UTF-8 that was read as another encoding",
        (
            # What Latin letters, Cyrillic ones, punctuation, byte order marks and emoji begin with, and what follows.
            rf"[ÂÃÄÅ][{_FOLLOWING}]|(?:[ÐÑ][{_FOLLOWING}]){{2,}}|â[\u20ac\u0080][{_FOLLOWING}]"
            r"|ï»¿|ï¿½|ð[\u0178\u009f]"
        ),
    ),
    "private_use": (
        "characters that Unicode gives no meaning",
        r"[\ue000-\uf8ff\ufdd0-\ufdef\ufffe\uffff\U000f0000-\U0010ffff]",
    ),
    "html": (
        "HTML tags and entities",
        rf"(?i:</?(?:{_HTML_TAGS})(?:\s[^<>]{{0,300}})?/?>|&(?:[a-z]{{2,8}}[0-9]{{0,2}}|#[0-9]{{2,6}}|#x[0-9a-f]{{2,5}});)",
    ),
    "unusual_white_space": (
        "unusual white space",
        r"[\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\x0b\x0c]|\r(?!\n)",
    ),
}
"""What is looked for: by the name that programs are given, what it is, and a pattern."""

_PATTERNS = {kind: re.compile(pattern) for kind, (_, pattern) in KINDS.items()}
_IN_ASCII = ("control_characters", "html", "unusual_white_space")


@dataclass(frozen=True, slots=True)
class Place:
    """Where one stands, as ``file:line``, and what it is: by name if it cannot be seen."""

    where: str
    what: str


@dataclass(frozen=True, slots=True)
class Oddity:
    """What was found of one kind: in how many rows, how often, and the first rows that have it."""

    kind: str
    meaning: str
    rows: int
    count: int
    places: tuple[Place, ...]


class OddityCounter:
    """Counts row by row; holds no text but what it names."""

    def __init__(self) -> None:
        self._rows = dict.fromkeys(KINDS, 0)
        self._count = dict.fromkeys(KINDS, 0)
        self._places: dict[str, list[Place]] = {kind: [] for kind in KINDS}

    def add(self, where: str, text: str) -> None:
        """One row's text."""
        for kind in _IN_ASCII if text.isascii() else KINDS:
            first, count = "", 0
            for match in _PATTERNS[kind].finditer(text):  # not a list: a row may have millions
                first = first or match.group()
                count += 1
            if count:
                self._rows[kind] += 1
                self._count[kind] += count
                if len(self._places[kind]) < PLACES:
                    self._places[kind].append(Place(where, name_of(first)))

    def found(self) -> list[Oddity]:
        """The kinds that the rows have."""
        return [
            Oddity(kind, meaning, self._rows[kind], self._count[kind], tuple(self._places[kind]))
            for kind, (meaning, _) in KINDS.items()
            if self._rows[kind]
        ]


def name_of(found: str) -> str:
    """What was found, so that it can be read: ``U+200B ZERO WIDTH SPACE``, or in quotes what can be seen."""
    if len(found) == 1 and (not found.isprintable() or found == "\ufffd" or found.isspace()):
        meant = bytes([ord(found)]).decode("cp1252", "ignore") if "\x80" <= found <= "\x9f" else ""
        name = f"({meant} in Windows-1252)" if meant else unicodedata.name(found, "")
        return f"U+{ord(found):04X} {name}".rstrip()
    shown = printable(found[:SHOWN])
    return f"'{shown}{'…' if len(found) > SHOWN else ''}'"
