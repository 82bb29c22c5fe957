"""Of two answers to a prompt, whether a network finds the better one likelier: what preferences are learned for.

A longer answer is less likely as a whole, whatever is said; so how often the better one is likelier is counted for
whole answers and for a token on average, and where the two differ, length has decided. By how many nats it is likelier
shows a gain long before it turns a pair round.
"""

import numpy as np

from mlxtune.evaluation.heldout import HeldOut
from mlxtune.evaluation.measured import Measured, ratio

WHOLE, A_TOKEN, MARGIN = "preferred", "preferred_a_token", "preference_margin"


def preferred(better: HeldOut, worse: HeldOut) -> dict[str, Measured]:
    """The figures, pair by pair: of answers that are as likely as each other, half; the margin in nats, of wholes."""
    wholes = worse.loss_sum - better.loss_sum
    tokens = worse.loss_sum / worse.target_count - better.loss_sum / better.target_count
    values = {A_TOKEN: (np.sign(tokens) + 1) / 2, WHOLE: (np.sign(wholes) + 1) / 2, MARGIN: wholes}
    pairs = np.arange(len(wholes))
    return {name: ratio(pairs, of_each, np.ones(len(pairs))) for name, of_each in values.items()}
