"""How sure a score is, and how sure a difference: figures made of sums over held-out rows, each with its interval.

Knows rows of numbers; nothing of metrics, models or which direction is better. The percentile bootstrap supposes no
distribution and serves whatever can be made of sums over rows: means, ratios, an F1, a BLEU. Its price: with few rows
it is too narrow, and rows that all agree give it no width at all, which for rates and their differences is mended.

Two models that answered the same rows are compared row by row: what both find easy or hard then counts for neither.
Right or wrong is tested exactly (McNemar), all else by resampling the pairs.

Sources: Efron, Bootstrap Methods: Another Look at the Jackknife, Annals of Statistics 7 (1979),
https://doi.org/10.1214/aos/1176344552; McNemar, Psychometrika 12 (1947), https://doi.org/10.1007/BF02295996, in its
exact form; Koehn, Statistical Significance Tests for Machine Translation Evaluation (2004),
https://aclanthology.org/W04-3250.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

Figure = Callable[[np.ndarray], np.ndarray]
"""Of sums over rows, [..., k], the figure that is made of them, [...]."""

CONFIDENCE = 0.95
RESAMPLES = 2000

BLOCK_NUMBERS = 1 << 20
"""Resampled row numbers held at once: a long test set is worked through in blocks of this size, 8 MB."""


@dataclass(frozen=True)
class Interval:
    """A score over ``count`` rows, and the bounds that hold its true value with probability ``confidence``.

    ``mean`` is the score on the rows themselves: their mean, or the ratio of two sums over them.
    """

    mean: float
    low: float
    high: float
    count: int
    confidence: float = CONFIDENCE


@dataclass(frozen=True)
class Difference:
    """The score of one model less that of another on the same ``count`` rows, and the bounds that hold its true value.

    ``p_value`` is how often a difference as large would come about by chance if there were none, by ``test``.
    """

    mean: float
    low: float
    high: float
    p_value: float
    test: Literal["McNemar", "paired bootstrap"]
    count: int
    confidence: float = CONFIDENCE


def bootstrap_interval(
    values: np.ndarray, *, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int
) -> Interval:
    """The mean of ``values`` [rows] with its percentile bootstrap interval.

    The same seed and number of rows draw the same resamples: base and tuned are resampled alike.

    Raises: ValueError, for no rows, numbers that are not finite, or a confidence outside (0, 1).
    """
    return bootstrap_ratio_interval(
        values, np.ones(np.shape(values)), confidence=confidence, resamples=resamples, seed=seed
    )


def bootstrap_ratio_interval(
    numerators: np.ndarray,
    denominators: np.ndarray,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int,
) -> Interval:
    """The ratio sum(numerators) / sum(denominators) with its percentile bootstrap interval.

    Rows are resampled, not tokens or bytes: those of one row depend on each other. A mean of the rows' own ratios would
    let a row of three tokens weigh as much as one of three hundred.

    Args:
        numerators: [rows]; nats for a loss, bits for bits per byte, right tokens for token accuracy.
        denominators: [rows], all above 0; target tokens, or bytes of target text.

    Raises: ValueError, for no rows, shapes that differ, numbers that are not finite, or a confidence outside (0, 1).
    """
    numerators, denominators = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    if numerators.shape != denominators.shape:
        raise ValueError(f"{numerators.size} numerators and {denominators.size} denominators")
    if denominators.size and denominators.min() <= 0:
        raise ValueError("a denominator is not above 0")
    return bootstrap_figure_interval(
        np.stack([numerators, denominators], axis=-1),
        lambda sums: sums[..., 0] / sums[..., 1],
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )


def bootstrap_figure_interval(
    sums: np.ndarray, figure: Figure, *, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int
) -> Interval:
    """A figure made of sums over rows, with its percentile bootstrap interval.

    Args:
        sums: [rows, k], what each row adds.

    Raises: ValueError, for no rows, numbers that are not finite, or a confidence outside (0, 1).
    """
    resampled = _resampled(_checked(sums, confidence, resamples), figure, resamples=resamples, seed=seed)
    mean = float(resampled[0])
    low, high = _bounds(resampled[1:], confidence)
    return Interval(mean, min(low, mean), max(high, mean), len(sums), confidence)


def paired_difference(
    before: np.ndarray,
    after: np.ndarray,
    figure: Figure,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int,
) -> Difference:
    """A figure of ``after`` less that of ``before``, which are [rows, k] of the same rows, in the same order.

    Where every row is right or wrong (k is 2: 0 or 1 of 1), the test is McNemar's, exact and two-sided: of the rows on
    which the two differ, as many would go either way by chance. Else the rows' pairs are resampled, and the p-value is
    the share of resampled differences that lie as far from the one found as that lies from none; at least
    1 / (resamples + 1).

    Raises: ValueError, for shapes that differ, and as `bootstrap_figure_interval`.
    """
    before, after = _checked(before, confidence, resamples), _checked(after, confidence, resamples)
    if before.shape != after.shape:
        raise ValueError(f"{before.shape} and {after.shape} are not the same rows")
    differences = _resampled(after, figure, resamples=resamples, seed=seed) - _resampled(
        before, figure, resamples=resamples, seed=seed
    )
    mean = float(differences[0])
    low, high = _bounds(differences[1:], confidence)
    bounds = min(low, mean), max(high, mean)
    if _is_right_or_wrong(before) and _is_right_or_wrong(after):
        better, worse = (int((after[:, 0] > before[:, 0]).sum()), int((after[:, 0] < before[:, 0]).sum()))
        if mean in (-1, 0, 1) and abs(better - worse) == better + worse:
            bounds = _bounds_where_all_agree(mean, len(before), confidence)
        return Difference(mean, *bounds, mcnemar(better, worse), "McNemar", len(before), confidence)
    # Of equal figures the resampled ones may differ by a rounding, which is as near as none.
    as_far = np.abs(differences[1:] - mean) >= abs(mean) - 1e-12
    p_value = (1 + int(as_far.sum())) / (1 + resamples)
    return Difference(mean, *bounds, p_value, "paired bootstrap", len(before), confidence)


def _bounds_where_all_agree(mean: float, count: int, confidence: float) -> tuple[float, float]:
    """What the difference of two rates may be where it is -1, 0 or 1 in every row: as `widen_at_ends`, a share of rows
    that none of these is of may do otherwise, by as much as a row can.
    """
    unseen = _unseen(count, confidence)
    return mean - unseen * (1 + mean), mean + unseen * (1 - mean)


def mcnemar(better: int, worse: int) -> float:
    """How often, were both models as good, so uneven a split of the rows on which they differ would come about.

    Args:
        better, worse: rows that only the one, and only the other, has right.
    """
    differing = better + worse
    tail = sum(math.comb(differing, i) for i in range(min(better, worse) + 1))
    return min(1.0, 2 * tail / 2**differing)


def bootstrap_rate_interval(
    values: np.ndarray, *, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int
) -> Interval:
    """``bootstrap_interval`` for values [rows] from 0 to 1, honest also where all are 0 or all are 1.

    Zero right of 100 does not prove a rate of zero: resampling cannot know it, but any rate r with
    (1 - r)^rows >= (1 - confidence) / 2 may well show no success, and that bound is used (0 of 100: up to 3.6 %).

    Raises: ValueError, for a value outside [0, 1], and as ``bootstrap_interval``.
    Source: Clopper and Pearson, Biometrika 26 (1934), https://doi.org/10.1093/biomet/26.4.404
    """
    interval = bootstrap_interval(values, confidence=confidence, resamples=resamples, seed=seed)
    lowest, highest = np.min(values), np.max(values)
    if lowest < 0 or highest > 1:
        raise ValueError(f"rates from {lowest} to {highest}; they lie between 0 and 1")
    return widen_at_ends(interval)


def widen_at_ends(interval: Interval) -> Interval:
    """The interval of a share, from 0 to 1, honest also where no row has any of it, or each has all: as
    ``bootstrap_rate_interval`` says, with a row as what happens or does not.
    """
    unseen = _unseen(interval.count, interval.confidence)
    if interval.mean == 0:
        return replace(interval, high=unseen)
    if interval.mean == 1:
        return replace(interval, low=1 - unseen)
    return interval


def _unseen(count: int, confidence: float) -> float:
    """The share of all rows that may be such as none of ``count`` is, at most."""
    return 1 - ((1 - confidence) / 2) ** (1 / count)


def _checked(sums: np.ndarray, confidence: float, resamples: int) -> np.ndarray:
    sums = np.asarray(sums, dtype=np.float64)
    if sums.ndim != 2 or not len(sums):  # noqa: PLR2004 - rows and what each adds
        raise ValueError(f"numbers of shape {sums.shape}; some for each of at least one row are needed")
    if not np.isfinite(sums).all():
        raise ValueError("a number is not finite")
    if not 0 < confidence < 1 or resamples < 1:
        raise ValueError(f"confidence {confidence} is not between 0 and 1, or resamples {resamples} not above 0")
    return sums


def _is_right_or_wrong(sums: np.ndarray) -> bool:
    return sums.shape[1] == 2 and bool((sums[:, 1] == 1).all()) and bool(np.isin(sums[:, 0], (0, 1)).all())  # noqa: PLR2004 - a ratio's two


def _resampled(sums: np.ndarray, figure: Figure, *, resamples: int, seed: int) -> np.ndarray:
    """[1 + resamples] figures: of the rows themselves, then of rows drawn from them by their number and the seed."""
    count = len(sums)
    generator = np.random.default_rng(seed)
    # The rows in their own order come first, summed by the same code: equal rows give equal sums to the last bit.
    own = figure(_sums(sums, np.arange(count)[np.newaxis]))
    block = max(1, BLOCK_NUMBERS // count)
    sizes = [min(block, resamples - start) for start in range(0, resamples, block)]
    drawn = [figure(_sums(sums, generator.integers(count, size=(size, count)))) for size in sizes]
    return np.concatenate([own, *drawn])


def _sums(sums: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """[resamples, k]: the sums over ``rows`` [resamples, rows]."""
    if sums.shape[1] <= 2:  # noqa: PLR2004 - a ratio's two
        return np.stack([column[rows].sum(axis=1) for column in sums.T], axis=-1)
    # Many numbers a row are counts, whose sums are exact however they are formed.
    numbers = rows + len(sums) * np.arange(len(rows))[:, np.newaxis]
    drawn = np.bincount(numbers.ravel(), minlength=len(rows) * len(sums)).reshape(len(rows), len(sums))
    return drawn @ sums


def _bounds(resampled: np.ndarray, confidence: float) -> tuple[float, float]:
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
