"""How an answer's tokens are drawn: the settings of one request, by the names that OpenAI's and Hugging Face's API use.

The order is theirs too: bias and penalties change the logits, temperature divides them, then ``top_k``, ``top_p`` and
``min_p`` take tokens away, and what is left is drawn from. The work itself is drawing.py's.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from mlxtune.errors import UsageError

PENALTY_LIMIT = 2.0
BIAS_LIMIT = 100.0
WHOLE = ("max_tokens", "top_k")
"""Settings that count tokens."""


@dataclass(frozen=True)
class Sampling:
    """Settings of one answer. Raises: UsageError, for values out of range, by the setting's name."""

    max_tokens: int
    """The longest answer."""
    temperature: float = 0.0
    """0 takes the likeliest token."""
    top_p: float = 1.0
    """The likeliest tokens that together have this probability are drawn from."""
    top_k: int = 0
    """So many of the likeliest tokens are drawn from; 0: all."""
    min_p: float = 0.0
    """Tokens of less than this share of the likeliest one's probability are not drawn."""
    seed: int = 0
    stop: tuple[str, ...] = ()
    """Texts before which the answer ends."""
    presence_penalty: float = 0.0
    """Taken off the logit of each token that the answer has had."""
    frequency_penalty: float = 0.0
    """Taken off the logit of each token as often as the answer has had it."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Added to the logits of these tokens."""
    top_logprobs: int | None = None
    """How many of the likeliest tokens are told at each place, beside the drawn one; None: no log-probability is."""

    def __post_init__(self) -> None:
        ranges = {
            "max_tokens": (1, math.inf),
            "temperature": (0, math.inf),
            "top_p": (0, 1),
            "top_k": (0, math.inf),
            "min_p": (0, 1),
            "presence_penalty": (-PENALTY_LIMIT, PENALTY_LIMIT),
            "frequency_penalty": (-PENALTY_LIMIT, PENALTY_LIMIT),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not (low <= value <= high and math.isfinite(value)):
                ends = f"{low} or more" if high == math.inf else f"between {low:g} and {high:g}"
                raise UsageError(f"{name} is {value}", where=name, remedy=f"give a number {ends}")
            if name in WHOLE and value != int(value):
                raise UsageError(f"{name} is {value}", where=name, remedy="give a whole number")
        if self.top_p == 0:
            raise UsageError(
                "top_p is 0, which leaves no token", where="top_p", remedy="give a number above 0, up to 1"
            )
        if any(abs(bias) > BIAS_LIMIT or math.isnan(bias) for bias in self.logit_bias.values()):
            raise UsageError(
                "a logit_bias is out of range", where="logit_bias", remedy=f"give numbers of at most {BIAS_LIMIT:g}"
            )
