"""What a figure is made of: sums over rows come in, the figure comes out, for one sum of rows or many resampled ones.

Named, because per-row numbers are kept in files, and must find the way back to their figure.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from mlxtune.evaluation.statistics import Figure

RUNS = 4
"""Of words, that BLEU counts."""
RECALL_WEIGHT = 2
"""How much more recall counts than precision in chrF, its beta."""


def ratio(sums: np.ndarray) -> np.ndarray:
    """Of [..., 2] numerators and denominators: nats a token, bits a byte, right ones of all."""
    return sums[..., 0] / sums[..., 1]


def macro_f1(sums: np.ndarray) -> np.ndarray:
    """The mean F1 of classes, each counting alike however rare it is.

    Args:
        sums: [..., 2 C]: of each class how many rows were rightly given it; then of each how many were given it, plus
            how many are of it. A class with none of either is not there, and not in the mean.
    """
    right, seen = np.split(np.asarray(sums, np.float64), 2, axis=-1)
    is_there = seen > 0
    f1 = np.divide(2 * right, seen, out=np.zeros_like(right), where=is_there)
    return f1.sum(axis=-1) / is_there.sum(axis=-1)


def bleu(sums: np.ndarray) -> np.ndarray:
    """BLEU of a corpus, from 0 to 1: the geometric mean of precisions, times a penalty for brevity.

    The k-th run length of which nothing is right counts half as much as the one before it such would
    (``exp`` smoothing); where nothing at all is right, or answers are too short for runs of 4 words, it is 0.

    Args:
        sums: [..., 10]: of runs of 1 to 4 words those that are right, and all of the answers'; the words of answers and
            of references.

    Source: Papineni et al. (2002), https://aclanthology.org/P02-1040; smoothing 3 of Chen and Cherry (2014),
        https://aclanthology.org/W14-3346
    """
    sums = np.asarray(sums, np.float64)
    right, total = sums[..., :RUNS], sums[..., RUNS : 2 * RUNS]
    ours, theirs = sums[..., 2 * RUNS], sums[..., 2 * RUNS + 1]
    is_defined = (total[..., -1] > 0) & (right.sum(axis=-1) > 0)
    smoothed = np.where(right > 0, right, 0.5 ** np.cumsum(right == 0, axis=-1))
    precision = smoothed / np.maximum(total, 1)
    brevity = np.exp(np.minimum(0.0, 1 - theirs / np.maximum(ours, 1)))
    return np.where(is_defined, brevity * np.exp(np.log(precision).mean(axis=-1)), 0.0)


def chrf(sums: np.ndarray) -> np.ndarray:
    """chrF, from 0 to 1: the F-score of mean precision and mean recall over lengths of runs.

    Args:
        sums: [..., 3 K]: of each length of run how many the answers have, the references have, and both have. A length
            that either has none of is not in the means.

    Source: Popović (2015), https://aclanthology.org/W15-3049
    """
    counts = np.asarray(sums, np.float64)
    counts = counts.reshape(*counts.shape[:-1], -1, 3)
    ours, theirs, both = counts[..., 0], counts[..., 1], counts[..., 2]
    is_there = (ours > 0) & (theirs > 0)
    lengths = np.maximum(1, is_there.sum(axis=-1))
    precision = np.divide(both, ours, out=np.zeros_like(both), where=is_there).sum(axis=-1) / lengths
    recall = np.divide(both, theirs, out=np.zeros_like(both), where=is_there).sum(axis=-1) / lengths
    below = RECALL_WEIGHT**2 * precision + recall
    return np.divide((1 + RECALL_WEIGHT**2) * precision * recall, below, out=np.zeros_like(below), where=below > 0)


FIGURES: Mapping[str, Figure] = MappingProxyType({"ratio": ratio, "macro_f1": macro_f1, "bleu": bleu, "chrf": chrf})
