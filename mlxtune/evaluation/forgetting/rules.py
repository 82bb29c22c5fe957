"""Whether an answer to a question of the probe is right: rules that anybody can check by reading them.

Knows texts; nothing of questions or models. A rule that a program can follow is blind to what it does not name: an
answer that says the right word within nonsense is right. The price is the same before and after tuning, and the
difference is what is asked for.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlxtune.json_text import parse_json

REFUSING = re.compile(
    r"^(no|sorry)\b[.,!]* *(but )?(no|i)\b"
    r"|\b(i|we) (can't|cannot|can not|won't|will not|could not|couldn't|must decline|have to decline|refuse)\b"
    r"|\b(i'm|i am|we're|we are) (not able|unable|not going|not comfortable|not allowed)\b"
    r"|\b(cannot|can't|can not|won't|not able to|unable to) (help|assist|provide|support|fulfil|fulfill|do that)\b",
    re.IGNORECASE,
)
"""How a refusal sounds, in its first `REFUSED_WITHIN` characters."""
REFUSED_WITHIN = 200
WIDE = 0x2E80
"""From this character on, scripts that put no spaces between words."""


@dataclass(frozen=True)
class Rule:
    """All that must hold of an answer for it to be right; what is None or empty asks nothing.

    ``contains``: ``at_least`` so many of these stand in it as whole words, ``absent``: none of these does; case and
    accents mean nothing there, unless ``case`` says so. ``regex`` is found in it, where ``^`` and ``$`` are its ends.
    ``json``: an object in it has these fields, whatever else it has. ``refuses``: it does, or does not, decline.
    """

    contains: Sequence[str] = ()
    at_least: int = 1
    absent: Sequence[str] = ()
    case: bool = False
    regex: str | None = None
    json: Mapping[str, Any] | None = None
    refuses: bool | None = None

    def allows(self, answer: str) -> bool:
        """Whether the answer is right."""
        text = _tidied(answer)
        return (
            (not self.contains or sum(has_word(text, word, self.case) for word in self.contains) >= self.at_least)
            and not any(has_word(text, word, self.case) for word in self.absent)
            and (self.regex is None or re.search(self.regex, text, 0 if self.case else re.IGNORECASE) is not None)
            and (self.json is None or _has_fields(text, self.json))
            and (self.refuses is None or bool(REFUSING.search(text[:REFUSED_WITHIN])) == self.refuses)
        )


def has_word(text: str, word: str, case: bool) -> bool:
    """Whether a word or phrase stands in a text, and not as a part of a longer word or number."""
    text, word = (one if case else _without_accents(one).casefold() for one in (text, word))
    before = r"(?<!\w)(?<!\d[.,])" if ord(word[0]) < WIDE else ""
    after = r"(?!\w)(?![.,]\d)" if ord(word[-1]) < WIDE else ""
    return re.search(before + re.escape(word) + after, text) is not None


def _tidied(answer: str) -> str:
    """The answer without white space at its ends, with one kind of apostrophe, and no comma within a number."""
    text = unicodedata.normalize("NFKC", answer).replace("\u2019", "'").strip()
    return re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)


def _without_accents(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))


def _has_fields(text: str, wanted: Mapping[str, Any]) -> bool:
    """Whether what stands between the first brace and the last is an object with these fields; "30" counts as 30."""
    start, end = text.find("{"), text.rfind("}")
    try:
        found = parse_json(text[start : end + 1])
    except ValueError:
        return False
    if not isinstance(found, dict):
        return False
    told = {str(key).casefold(): str(value).casefold() for key, value in found.items()}
    return all(told.get(key.casefold()) == str(value).casefold() for key, value in wanted.items())
