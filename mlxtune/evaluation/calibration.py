"""How far a network's confidence can be believed: of the tokens it is 80 % sure of, are 80 % right?

At each target token the network's confidence is the probability of its likeliest token, and it is right if that token
is the target. Tokens are sorted by confidence into bins of equal width, and in each bin the mean confidence is held
against the share that is right. The expected calibration error is their mean distance, weighed by tokens. Knows counts;
nothing of rows, so it has no interval: its price for few numbers to keep. With few tokens it comes out too large.

Source: Guo et al., On Calibration of Modern Neural Networks (2017), https://arxiv.org/abs/1706.04599, section 2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

BINS = 15
"""As in the paper."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Sums over target tokens, bin by bin, each [BINS]: bin i has confidences from i / BINS to (i + 1) / BINS."""

    count: np.ndarray
    """Tokens."""
    confidence_sum: np.ndarray
    hit_count: np.ndarray
    """Tokens that were the likeliest."""

    @property
    def error(self) -> float:
        """The expected calibration error, from 0 to 1. Raises: ZeroDivisionError, without tokens."""
        return float(np.abs(self.hit_count - self.confidence_sum).sum()) / int(self.count.sum())

    def summary(self) -> dict[str, Any]:
        """What is shown of it: ``ece``, and of each bin its bounds, ``count``, mean ``confidence`` and ``accuracy``,
        which are None in a bin without tokens.
        """
        bins = []
        rows = zip(self.count.tolist(), self.confidence_sum.tolist(), self.hit_count.tolist(), strict=True)
        for i, (count, confidence_sum, hits) in enumerate(rows):
            confidence = confidence_sum / count if count else None
            accuracy = hits / count if count else None
            span = {"low": i / BINS, "high": (i + 1) / BINS}
            bins.append({**span, "count": count, "confidence": confidence, "accuracy": accuracy})
        return {"ece": self.error, "bins": bins}

    def to_json(self) -> dict[str, Any]:
        return {
            "count": self.count.tolist(),
            "confidence_sum": self.confidence_sum.tolist(),
            "hit_count": self.hit_count.tolist(),
        }

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "Calibration":
        """What `to_json` gave. Raises: KeyError or ValueError, for anything else."""
        count, hits = (np.array(content[name], np.int64) for name in ("count", "hit_count"))
        found = Calibration(count, np.array(content["confidence_sum"], np.float64), hits)
        if any(sums.shape != (BINS,) for sums in (found.count, found.confidence_sum, found.hit_count)):
            raise ValueError("these are no sums of calibration bins")
        return found


def calibration_of(confidences: np.ndarray, hits: np.ndarray) -> Calibration:
    """Of tokens: how likely the likeliest was, [T] from 0 to 1, and whether it was the target, [T] bool.

    A confidence that is no number, as of a network that has diverged, counts as none at all: 0.
    """
    # Rounding may take a float32 probability a last bit above 1.
    confidences = np.clip(np.nan_to_num(np.asarray(confidences, np.float64), nan=0.0), 0, 1)
    bins = np.minimum((confidences * BINS).astype(np.int64), BINS - 1)
    return Calibration(
        np.bincount(bins, minlength=BINS),
        np.bincount(bins, confidences, minlength=BINS),
        np.bincount(bins[np.asarray(hits, bool)], minlength=BINS),
    )
