"""What the rewards of a run that draws its answers say of how it learned: nothing, not yet all, or the wrong way.

Its loss is less the mean reward, so none of learning.py's thresholds, which are of nats a token, means anything here. A
reward is in the scorers' units, whatever they weigh: it is compared with itself alone.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlxtune.iteration.diagnose.evidence import Evidence, at
from mlxtune.iteration.diagnose.finding import Finding
from mlxtune.iteration.diagnose.learning import FEWEST_STEPS, falls, length_key, parts
from mlxtune.runs.listing import number_of

ALIKE = 1e-6
"""A deviation of a group's rewards that is none."""
MOST = 0.8
"""Of the updates, in which there was nothing to prefer: what is left over is no more than a few."""
CUT = 0.5
"""Of the answers of the last part, that reached the limit: most of what is judged is then a beginning."""


def of_rewards(evidence: Evidence, *, is_over: bool = True) -> Finding | None:
    """The first of: nothing could be preferred, rewards fell, answers are cut, rewards did not rise.

    Args:
        is_over: whether the run is; else what only the end tells is not said.
    """
    lines = [line for line in evidence.metrics if number_of(line.get("reward")) is not None]
    if len(lines) < FEWEST_STEPS:
        return None
    rewards = _values(lines, "reward")
    first, *_, last = parts(rewards)
    rises, sinks = falls(_less(first), _less(last)), falls(first, last)
    numbers = {
        "reward_at_start": round(float(np.mean(first)), 4),
        "reward_at_end": round(float(np.mean(last)), 4),
        "steps": len(rewards),
    }
    told = f"{np.mean(first):.3f} at the start, {np.mean(last):.3f} at the end of {len(rewards)} steps"
    alike = sum(deviation <= ALIKE for deviation in _values(lines, "reward_deviation"))
    if alike >= MOST * len(lines) and not rises:
        return Finding(
            "nothing_to_prefer",
            "problem",
            f"in {alike:,} of {len(lines):,} updates all answers of each group had the same reward, so nothing was "
            f"learned from them (mean reward {np.mean(rewards):.3f})",
            "reward a part of the way, show an example in the prompt, or train with sft on some rows first and start "
            "from that run (model.adapter); where the reward is as high as it gets, the prompts are too easy",
            numbers | {"updates_alike": alike},
            "objective.rewards",
        )
    if sinks:
        return Finding(
            "learning_rate_too_high",
            "problem",
            f"the mean reward of the answers that were drawn fell: {told}",
            "lower training.learning_rate, or raise objective.beta",
            numbers,
            "training.learning_rate",
        )
    cut = float(np.mean(parts(_values(lines, "cut_share"))[-1]))
    if cut >= CUT:
        return Finding(
            "answers_are_cut",
            "hint",
            f"{cut:.0%} of the answers that were drawn last reached objective.max_tokens, and were judged as they were",
            "raise it, or reward answers that end in time",
            {"cut_share_at_end": round(cut, 4), "max_tokens": at(evidence.recipe, "objective", "max_tokens")},
            "objective.max_tokens",
        )
    if is_over and not rises:
        return Finding(
            "underfitting",
            "hint",
            f"the mean reward of the answers that were drawn did not rise: {told}",
            "train longer, raise the learning rate, or draw more answers (objective.group_size)",
            numbers,
            length_key(evidence),  # where it began near the most that there is, no more is to be had: hence a hint
        )
    return None


def _less(rewards: Sequence[float]) -> list[float]:
    """So that a rise is a fall."""
    return [-reward for reward in rewards]


def _values(lines: Sequence[Any], name: str) -> list[float]:
    return [number_of(line.get(name)) or 0.0 for line in lines]
