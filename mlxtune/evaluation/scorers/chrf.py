"""How much of the reference's runs of letters the answer has, and how much it has besides (chrF, chrF++).

For text in any language: nothing has to be cut into words, and a wrong ending costs less than a wrong word. The figure
of many rows is made of their summed counts, as sacrebleu makes it (``chrF2``, character runs up to 6, white space left
out); that of one row, which is a reward, of its own.

Source: Popović, chrF: character n-gram F-score for automatic MT evaluation (2015), https://aclanthology.org/W15-3049;
chrF++: words helping character n-grams (2017), https://aclanthology.org/W17-4770
"""

import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

from mlxtune.errors import DataError
from mlxtune.evaluation.figures import FIGURES

PRIMARY = "chrf"

CHARACTER_ORDER = 6


def score(output: str, reference: str, *, word_order: int, where: object = None) -> dict[str, float]:
    """Score one text: ``chrf``, from 0 to 1.

    Args:
        word_order: runs of words up to so many count as well; 0 is chrF, 2 is chrF++.

    Raises: DataError, if the reference has nothing but white space.
    """
    if not reference.strip():
        raise DataError("the reference is empty", where=where, remedy="give the row its answer")
    return {PRIMARY: float(FIGURES[PRIMARY](np.array(adds(output, reference, word_order=word_order), np.float64)))}


def adds(output: str, reference: str, *, word_order: int) -> list[int]:
    """For each length of run, of characters, then of words: how many the answer has, the reference has, both have."""
    counts: list[int] = []
    for cut, order in ((_characters, CHARACTER_ORDER), (_words, word_order)):
        ours, theirs = cut(output), cut(reference)
        for length in range(1, order + 1):
            counts += _counts(_runs(ours, length), _runs(theirs, length))
    return counts


def _characters(text: str) -> Sequence[str]:
    return "".join(text.split())


def _words(text: str) -> Sequence[str]:
    """What stands between white space, a mark of punctuation at its end or else at its beginning apart."""
    words: list[str] = []
    for word in text.split():
        if len(word) > 1 and word[-1] in string.punctuation:
            words += [word[:-1], word[-1]]
        elif len(word) > 1 and word[0] in string.punctuation:
            words += [word[0], word[1:]]
        else:
            words.append(word)
    return words


def _runs(items: Sequence[str], length: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(items[start : start + length]) for start in range(len(items) - length + 1))


def _counts(ours: Counter[tuple[str, ...]], theirs: Counter[tuple[str, ...]]) -> list[int]:
    # Of a length that the reference is too short for the answer's runs cannot be right, and are no fault either.
    return [ours.total() if theirs else 0, theirs.total(), (ours & theirs).total()]
