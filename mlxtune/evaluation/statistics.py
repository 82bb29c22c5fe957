"""How sure a score is: means and ratios over held-out rows, each with a bootstrap interval.

Knows rows of numbers; nothing of metrics, models or which direction is better. The percentile bootstrap supposes no
distribution and serves means and ratios of sums alike. Its price: with few rows it is too narrow, and rows that all
agree give it no width at all, which for rates ``bootstrap_rate_interval`` mends.

Source: Efron, Bootstrap Methods: Another Look at the Jackknife, Annals of Statistics 7 (1979),
https://doi.org/10.1214/aos/1176344552
"""

from dataclasses import dataclass, replace

import numpy as np

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
    numerators, denominators = _checked(numerators), _checked(denominators)
    if numerators.shape != denominators.shape:
        raise ValueError(f"{numerators.size} numerators and {denominators.size} denominators")
    if denominators.min() <= 0:
        raise ValueError("a denominator is not above 0")
    if not 0 < confidence < 1 or resamples < 1:
        raise ValueError(f"confidence {confidence} is not between 0 and 1, or resamples {resamples} not above 0")
    count = numerators.size
    generator = np.random.default_rng(seed)
    # The rows in their own order come first, summed by the same code: equal rows give equal sums to the last bit.
    ratios = [_ratios(numerators, denominators, np.arange(count)[np.newaxis])]
    block = max(1, BLOCK_NUMBERS // count)
    for start in range(0, resamples, block):
        rows = generator.integers(count, size=(min(block, resamples - start), count))
        ratios.append(_ratios(numerators, denominators, rows))
    mean, resampled = float(ratios[0][0]), np.concatenate(ratios[1:])
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(mean, min(float(low), mean), max(float(high), mean), count, confidence)


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
    unseen = 1 - ((1 - confidence) / 2) ** (1 / interval.count)
    if highest == 0:
        return replace(interval, high=unseen)
    if lowest == 1:
        return replace(interval, low=1 - unseen)
    return interval


def _checked(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"numbers of shape {values.shape}; one for each of at least one row is needed")
    if not np.isfinite(values).all():
        raise ValueError("a number is not finite")
    return values


def _ratios(numerators: np.ndarray, denominators: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """[resamples] ratios of sums over ``rows`` [resamples, rows]."""
    return numerators[rows].sum(axis=1) / denominators[rows].sum(axis=1)
