"""How much of the answer's runs of words the reference has (BLEU), counted by sacrebleu.

For translations, where it is what other people's tables show. The figure of many rows is made of their summed counts,
as ``sacrebleu`` makes it for a corpus (smoothing ``exp``); that of one row, which is a reward, is its BLEU of a
sentence, over the lengths of runs that the answer has. Runs up to 4 words say little of short answers: chrf is kinder.

Source: Papineni et al., BLEU (2002), https://aclanthology.org/P02-1040; Post, A Call for Clarity in Reporting BLEU
Scores (2018), https://aclanthology.org/W18-6319
"""

import functools
from typing import Any

from mlxtune.errors import DataError, UsageError

PRIMARY = "bleu"


def score(output: str, reference: str, *, tokenize: str, lowercase: bool, where: object = None) -> dict[str, float]:
    """Score one text: ``bleu``, from 0 to 1.

    Args:
        tokenize: the name of sacrebleu's way of finding words.
        lowercase: whether upper and lower case are one.

    Raises: UsageError, if sacrebleu is not there; DataError, if the reference has nothing but white space.
    """
    bleu = _bleu(tokenize, lowercase)
    if not reference.strip():
        raise DataError("the reference is empty", where=where, remedy="give the row its answer")
    return {PRIMARY: min(1.0, bleu.sentence_score(output, [reference]).score / 100)}


def adds(output: str, reference: str, *, tokenize: str, lowercase: bool) -> list[int]:
    """Of runs of 1 to 4 words, how many are common and how many the answer has; then both texts' lengths in words."""
    counted = _bleu(tokenize, lowercase).sentence_score(output, [reference])
    return [*counted.counts, *counted.totals, counted.sys_len, counted.ref_len]


@functools.cache  # sacrebleu's tokenizers are made once, and remember what they have cut
def _bleu(tokenize: str, lowercase: bool) -> Any:
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError as error:
        raise UsageError(
            "the scorer bleu needs the package sacrebleu, which is not installed",
            remedy="pip install 'mlxtune[metrics]', or choose the scorer chrf",
        ) from error
    return BLEU(tokenize=tokenize, lowercase=lowercase, effective_order=True)
