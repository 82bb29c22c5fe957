"""Would more data help? What the validation losses of trials on parts of the rows say, with how sure that is.

The band is Student's 95 % interval of the mean over seeds, and the verdict is that of the differences between the two
largest parts, seed by seed: their parts are nested, so what a seed does to both falls out. Both speak of chance in
the rows that were taken, the adapter's beginning and the order; the validation rows are the same throughout, and what
other ones would say is not in the band. Nothing is said of sizes that were not tried: a curve fitted to three points
would look surer than it is.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Literal

CONFIDENCE = 0.95
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""The 97.5 % points of Student's distribution with 1, 2, ... degrees of freedom, as printed in any table of it."""

Verdict = Literal["yes", "no", "not distinguishable"]


@dataclass(frozen=True)
class Size:
    """The validation losses on one share of the rows."""

    share: float
    rows: int
    losses: tuple[float, ...]
    """One a seed, in the seeds' order."""
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Answer:
    """What it comes to."""

    sizes: tuple[Size, ...]
    verdict: Verdict
    difference: tuple[float, float, float]
    """Mean, low and high of the loss on the largest part less that on the next smaller one."""
    seeds: int
    sentence: str

    def to_json(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "sentence": self.sentence,
            "confidence": CONFIDENCE,
            "seeds": self.seeds,
            "difference": dict(zip(("mean", "low", "high"), self.difference, strict=True)),
            "sizes": [{**vars(size), "losses": list(size.losses)} for size in self.sizes],
        }


def answer(losses: Mapping[float, Sequence[float]], rows: Mapping[float, int]) -> Answer:
    """What the losses say.

    Args:
        losses: by share, one a seed, the same seeds in the same order; two or more of both.
        rows: how many rows each share is.
    """
    sizes = tuple(Size(share, rows[share], tuple(losses[share]), *interval(losses[share])) for share in sorted(losses))
    before, last = sizes[-2:]
    found = interval([ours - theirs for ours, theirs in zip(last.losses, before.losses, strict=True)])
    mean, low, high = found
    verdict: Verdict = "yes" if high < 0 else "no" if low > 0 else "not distinguishable"
    doublings = math.log2(last.rows / before.rows)
    told = f"from {before.rows} to {last.rows} rows the validation loss"
    band = f"95 % interval over {len(last.losses)} seeds"
    sentence = {
        "yes": f"Yes: {told} fell by {-mean:.3f} ({-high:.3f} to {-low:.3f}, {band}), {-mean / doublings:.3f} for each "
        "doubling; more rows like these will probably help again, though by less each time.",
        "no": f"No: {told} rose by {mean:.3f} ({low:.3f} to {high:.3f}, {band}); more rows like these do not help, and "
        "it is worth looking at what the added rows say.",
        "not distinguishable": f"That cannot be told: {told} changed by {mean:+.3f} ({low:+.3f} to {high:+.3f}, "
        f"{band}), which is not distinguishable from chance.",
    }[verdict]
    return Answer(sizes, verdict, found, len(last.losses), sentence)


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean and its interval: two values or more, at most as many as `T_975` has room for."""
    mean = fmean(values)
    half = T_975[len(values) - 2] * stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half
