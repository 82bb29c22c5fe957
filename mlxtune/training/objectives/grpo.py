"""Group relative policy optimization: of some answers that the network drew to a prompt, the better are made likelier.

No second network says what an answer is worth: it is compared with the others of its group. An answer comes with its
advantage, which its tokens share, and is learned once or a few times; clipping keeps each time close to the network
that drew it, and the KL divergence all of them to the network that training started from.

Sources: Shao et al., 2024, section 4.1, equations 3 and 4, https://arxiv.org/abs/2402.03300; Liu et al., 2025, section
3.2, https://arxiv.org/abs/2503.20783, for ``loss="dr_grpo"``.
"""

from typing import Literal

import mlx.core as mx
import numpy as np

from mlxtune.data.batch import Batch
from mlxtune.inference.likelihood import Reader
from mlxtune.training.objectives.log_probabilities import through_log_probabilities
from mlxtune.training.objectives.objective import Drawing, Objective

REWARDS = ("reward", "reward_deviation")
"""Means over answers: what each was given, and how much the answers of its group differ."""
ANSWERS = ("answer_tokens", "cut_share")
"""How long they are, and how many of them reached the limit."""
CLIPPED, KL = "clipped_share", "kl"
"""Means over answers of means over tokens: how many have no gradient any more, of several updates; and the estimate of
the KL divergence from where training started, in nats a token, where that counts."""
ALIKE = 1e-6
"""A deviation of rewards that is rounding."""


def grpo(
    *,
    group_size: int,
    max_tokens: int,
    loss: Literal["grpo", "dr_grpo"] = "grpo",
    beta: float = 0.0,
    num_iterations: int = 1,
    epsilon: float = 0.2,
    epsilon_high: float | None = None,
) -> Objective:
    """The objective. `Batch.beside` has, [B, 4] float32, each answer's advantage, reward, the deviation of its group,
    and 1 if it was cut, else 0; then [T] float32 each, as far as they are needed: the log-probabilities, in nats, that
    the targets had when they were drawn (``num_iterations`` above 1) and where training started (``beta`` above 0).

    A unit is an answer, and the loss of a group is the mean of its answers'. What is told is the paper's less the mean
    reward, which has no gradient: the formula's own value is near 0 from the first step to the last.
    """
    keeps_close, again = beta > 0, num_iterations > 1
    below, above = 1 - epsilon, 1 + (epsilon if epsilon_high is None else epsilon_high)

    def of_batch(reader: Reader, batch: Batch) -> tuple[mx.array, list[mx.array]]:
        told, *of_tokens = batch.beside
        rows, length = batch.token_ids.shape[:2]
        answer = mx.minimum(batch.target_index // length, rows - 1)
        is_there = batch.target_weight > 0
        counted = is_there.astype(mx.float32)
        tokens = mx.zeros((rows,)).at[answer].add(counted)
        divisor = mx.full((rows,), float(max_tokens)) if loss == "dr_grpo" else tokens
        advantage, reward, deviation, is_cut = (told[:, i] for i in range(told.shape[1]))

        def of_targets(now: mx.array) -> tuple[mx.array, list[mx.array]]:
            # padding may be so unlikely that its exponential is infinite, which no weight of 0 takes away
            now = mx.where(is_there, now, 0.0)
            drawn = of_tokens[0] if again else mx.stop_gradient(now)
            ratio, gained = mx.exp(now - drawn), advantage[answer]
            gain = mx.minimum(ratio * gained, mx.clip(ratio, below, above) * gained)
            figures = [reward, deviation, tokens, is_cut]
            a_token = counted / tokens[answer]
            if again:
                stopped = mx.where(gained > 0, ratio > above, (ratio < below) & (gained < 0))
                figures.append(a_token * stopped)
            if keeps_close:
                gap = of_tokens[-1] - now
                kl = mx.exp(gap) - gap - 1
                gain = gain - beta * kl
                figures.append(a_token * kl)
            return -mx.sum(counted * gain / divisor[answer]) - mx.sum(reward), [mx.sum(figure) for figure in figures]

        return through_log_probabilities(reader, batch, of_targets)

    return Objective(
        of_batch,
        figures=(*REWARDS, *ANSWERS, *([CLIPPED] if again else []), *([KL] if keeps_close else [])),
        drawing=Drawing(
            group_size, max_tokens, updates=num_iterations, compares=keeps_close, by_deviation=loss == "grpo"
        ),
    )


def advantages(rewards: np.ndarray, *, by_deviation: bool) -> np.ndarray:
    """How much better each answer is than its group, [..., G] of [..., G] rewards; zeros, where all are alike.

    Args:
        by_deviation: in units of the group's standard deviation.
    """
    centred = rewards - rewards.mean(axis=-1, keepdims=True)
    if not by_deviation:
        return centred
    deviation = rewards.std(axis=-1, keepdims=True)
    return np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > ALIKE)
