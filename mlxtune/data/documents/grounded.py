"""Whether a draft says what its passage says, by a stated lexical rule, and where in the passage it stands.

- A quote occurs in the passage, but for case, white space and punctuation.
- Every number of an answer occurs in the passage.
- Of an answer's content words (letters, at least four), at least `LEAST_SHARE` occur there; words count as the same
  that begin with the same five letters, so that inflections pass. An answer without such a word has to occur whole.

The rule knows words, not sense: it finds what was made up from other words, and passes a wrong sentence of right ones.
That is why a draft is a draft.
"""

import re

LEAST_SHARE = 0.7
STEM = 5
LEAST_LETTERS = 4
_NUMBER = re.compile(r"\d+(?:[.,:/]\d+)*")
_WORD = re.compile(r"[^\W\d_]+")
_TOKEN = re.compile(r"\w+")
_SENTENCE = re.compile(r"[^\n.!?]*(?:[.!?](?!\s)[^\n.!?]*)*[.!?]?")

NOT_QUOTED = "the quote is not in the passage"
OTHER_NUMBER = "a number is not in the passage"
OTHER_WORDS = "too few of its words are in the passage"


def find_quote(quote: str, passage: str) -> tuple[int, int] | None:
    """Where ``quote`` is in ``passage``, but for case, white space and punctuation; None, if nowhere."""
    words = _TOKEN.findall(quote)
    if not words:
        return None
    found = re.search(r"\b" + r"\W+".join(re.escape(word) for word in words) + r"\b", passage, re.IGNORECASE)
    return found.span() if found else None


def check_grounded(answer: str, passage: str) -> str:
    """Why ``answer`` is not grounded in ``passage``, as one of the sentences above; "" if it is."""
    numbers = set(_NUMBER.findall(passage))
    if any(number not in numbers for number in _NUMBER.findall(answer)):
        return OTHER_NUMBER
    words = _content(answer)
    if not words:
        return "" if find_quote(answer, passage) else OTHER_WORDS
    there = _content(passage)
    return "" if sum(word in there for word in words) >= LEAST_SHARE * len(words) else OTHER_WORDS


def _content(text: str) -> set[str]:
    """Content words of a text, or their beginnings."""
    return {word.casefold()[:STEM] for word in _WORD.findall(text) if len(word) >= LEAST_LETTERS or not word.isascii()}


def nearest_sentence(answer: str, passage: str) -> tuple[int, int]:
    """The sentence of ``passage`` that shares most words with ``answer``, the first of them: from where to where."""
    words = {word.casefold() for word in _TOKEN.findall(answer)}
    best, place = -1.0, (0, len(passage))
    for found in _SENTENCE.finditer(passage):
        text = found[0]
        if not text.strip():
            continue
        shared = sum(word.casefold() in words for word in set(_TOKEN.findall(text)))
        if shared > best:
            start = found.start() + len(text) - len(text.lstrip())
            best, place = shared, (start, found.start() + len(text.rstrip()))
    return place
