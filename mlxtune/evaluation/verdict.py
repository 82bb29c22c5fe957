"""Better, worse or not distinguishable: what a paired difference of two models says in words.

Knows which metrics are better when lower, and how sure is sure enough; nothing of models or of how a difference came
about. A difference counts where the paired test says that chance seldom makes one as large, and its interval leaves no
difference out: two ways of asking, of which the more doubtful decides. Each metric is judged alone: of twenty metrics
that two equal models are compared by, one may come out different by chance.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, Literal

import numpy as np

from mlxtune.evaluation.measured import Measured
from mlxtune.evaluation.preferred import MARGIN
from mlxtune.evaluation.statistics import Difference

Verdict = Literal["better", "worse", "not distinguishable"]

LOWER_IS_BETTER = frozenset({"loss", "bits_per_byte"})
"""Of every other metric higher is better."""
OWN_UNITS = LOWER_IS_BETTER | {MARGIN}
"""Metrics in units of their own. Every other one is a rate from 0 to 1, shown in percent."""

OF_TOKENS = frozenset({"loss", "token_accuracy", "preferred_a_token"})
"""Metrics a token: they mean the same for two models only where both cut the text into the same tokens."""

FEWEST_ROWS = 6
"""With fewer rows no difference is called one: not even a sign test on 5 rows that all agree reaches 5 % (2 / 2^5)."""

SIGNIFICANCE = 0.05
"""A difference that chance makes this often, or more often, is none."""


def verdict(metric: str, difference: Difference) -> Verdict:
    """What the difference of a tuned model's score less another's says of the tuned model."""
    if difference.count < FEWEST_ROWS or difference.p_value >= SIGNIFICANCE:
        return "not distinguishable"
    if difference.low <= 0 <= difference.high:
        return "not distinguishable"
    return "better" if (difference.mean < 0) == (metric in LOWER_IS_BETTER) else "worse"


def judge(tuned: Mapping[str, Measured], other: Mapping[str, Measured], *, seed: int) -> dict[str, dict[str, Any]]:
    """The tuned model less another one, metric by metric, each with its verdict; plain values, for scores.json.

    Left out are metrics that the two do not share: measured of other rows, or of one model alone, or a token where
    the two have other tokens.
    """
    found = {}
    for name in tuned:
        if name in other and are_comparable(name, tuned[name], other[name]):
            difference = tuned[name].minus(other[name], seed=seed)
            found[name] = asdict(difference) | {"verdict": verdict(name, difference)}
    return found


def are_comparable(metric: str, one: Measured, other: Measured) -> bool:
    """Whether two models were measured alike, on the same rows."""
    if one.figure != other.figure or not np.array_equal(one.rows, other.rows):
        return False
    # What is counted a token is the same text only if every row has as many of them.
    return metric not in OF_TOKENS or np.array_equal(one.sums[:, 1], other.sums[:, 1])


def read_difference(content: Mapping[str, Any]) -> Difference:
    """A difference out of scores.json."""
    return Difference(**{field.name: content[field.name] for field in fields(Difference)})
