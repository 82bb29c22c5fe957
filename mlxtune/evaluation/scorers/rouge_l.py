"""How much of the reference's words, in their order, stands in the answer, with others between them (ROUGE-L).

For summaries: what is common is the longest common subsequence of words. A word is a run of letters and digits, in any
script, without case; so for English text, and for it alone, the numbers are those of Google's rouge-score without
stemming, which knows no other letters. Text in scripts without spaces has no words to count: chrf is for it.

Source: Lin, ROUGE: A Package for Automatic Evaluation of Summaries (2004), https://aclanthology.org/W04-1013
"""

import re
from collections.abc import Sequence

from mlxtune.errors import DataError

PRIMARY = "rouge_l"

WORD = re.compile(r"[^\W_]+")


def score(output: str, reference: str, *, where: object = None) -> dict[str, float]:
    """Score one text.

    Returns: ``rouge_l``, the harmonic mean of ``rouge_l_precision`` (of the answer's words, how many are common) and
        ``rouge_l_recall`` (of the reference's).
    Raises: DataError, if the reference has no words.
    """
    expected, found = WORD.findall(reference.lower()), WORD.findall(output.lower())
    if not expected:
        raise DataError("the reference has no words", where=where, remedy="correct the row, or choose another scorer")
    common = common_length(expected, found)
    precision, recall = common / max(1, len(found)), common / len(expected)
    mean = 2 * precision * recall / (precision + recall) if common else 0.0
    return {"rouge_l": mean, "rouge_l_precision": precision, "rouge_l_recall": recall}


def common_length(left: Sequence[str], right: Sequence[str]) -> int:
    """The length of the longest common subsequence.

    A row of the usual table is the bits of one number, which Python adds in one go: quick for long texts too.
    Source: Hyyrö, Bit-Parallel LCS-length Computation Revisited (2004)
    """
    places: dict[str, int] = {}
    for i, word in enumerate(left):
        places[word] = places.get(word, 0) | 1 << i
    all_ones = (1 << len(left)) - 1
    row = all_ones
    for word in right:
        here = row & places.get(word, 0)
        row = (row + here | row - here) & all_ones
    return len(left) - row.bit_count()
