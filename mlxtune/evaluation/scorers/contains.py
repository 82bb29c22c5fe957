"""Does the reference stand in the answer, whatever else stands there?

For answers that are sentences and references that are names, dates or terms. It has to stand there as words: "no" is
not in "I know". Between letters of scripts without spaces (Chinese, Thai) and of those that join words (Arabic) no word
ends can be seen, and none are asked for. Who says everything is always right, which is the price: as a reward it
teaches to talk.
"""

import unicodedata

from mlxtune.errors import DataError
from mlxtune.evaluation.scorers.exact_match import normalized

PRIMARY = "contains"

JOINED = frozenset({"Lu", "Ll", "Lt", "Lm", "Mn", "Nd"})
"""Kinds of characters that make one word with their like; letters without case (Lo) are of the scripts named above."""


def score(output: str, reference: str, *, where: object = None) -> dict[str, float]:
    """Score one text.

    Returns: ``contains``, and ``contains_normalized``, which forgives case and the amount of white space; 0 or 1.
    Raises: DataError, if the reference is empty: every text has nothing in it.
    """
    if not reference.strip():
        raise DataError("the reference is empty", where=where, remedy="give the row its answer")
    return {
        "contains": float(_holds(output, reference.strip())),
        "contains_normalized": float(_holds(normalized(output), normalized(reference))),
    }


def _holds(text: str, wanted: str) -> bool:
    start = text.find(wanted)
    while start >= 0:
        end = start + len(wanted)
        if not _joins(text[start - 1 : start], wanted[0]) and not _joins(wanted[-1], text[end : end + 1]):
            return True
        start = text.find(wanted, start + 1)
    return False


def _joins(left: str, right: str) -> bool:
    """Whether two characters, either of which may be none, are of one word."""
    return bool(left and right) and {unicodedata.category(left), unicodedata.category(right)} <= JOINED
