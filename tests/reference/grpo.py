"""Group relative policy optimization in numpy, written from the papers, for one group of answers to one prompt.

Shao et al., 2024, section 4.1, https://arxiv.org/abs/2402.03300 (GRPO): equation 3 is the objective, equation 4 the
estimate of the KL divergence. Liu et al., 2025, section 3.2, https://arxiv.org/abs/2503.20783 (Dr. GRPO): advantages
are not divided by the group's deviation, and every answer by the same constant in place of its own length.
Log-probabilities are a list a token for each answer: by the policy, by the policy that the answers were drawn from, and
by the reference.
"""

import numpy as np


def advantages(rewards, *, by_deviation=True):
    """[G], from [G] rewards. Where all are the same there is nothing to learn."""
    centred = np.asarray(rewards, float) - np.mean(rewards)
    if not by_deviation:
        return centred
    deviation = np.std(rewards)
    return centred / deviation if deviation > 0 else np.zeros(len(centred))


def clipped(ratio, advantage, *, below, above):
    """What a token adds to the objective, before the KL divergence."""
    return np.minimum(ratio * advantage, np.clip(ratio, 1 - below, 1 + above) * advantage)


def kl_estimate(now, reference):
    """Of each token: never below 0, and unbiased over tokens drawn from the policy."""
    gap = np.asarray(reference) - np.asarray(now)
    return np.exp(gap) - gap - 1


def grpo_loss(now, drawn, reference, rewards, *, beta, below=0.2, above=0.2, length=None):
    """The loss of a group: less the objective, so that it is to be made small.

    Args:
        length: None for GRPO; for Dr. GRPO what each answer is divided by.
    """
    scores = advantages(rewards, by_deviation=length is None)
    answers = []
    for policy, old, start, advantage in zip(now, drawn, reference, scores, strict=True):
        gain = clipped(np.exp(np.asarray(policy) - np.asarray(old)), advantage, below=below, above=above)
        tokens = gain - beta * kl_estimate(policy, start)
        answers.append(np.sum(tokens) / (len(policy) if length is None else length))
    return -np.mean(answers)


def clip_share(now, drawn, rewards, *, below=0.2, above=0.2):
    """The share of the tokens that the clipping leaves without a gradient."""
    stopped = []
    for policy, old, advantage in zip(now, drawn, advantages(rewards), strict=True):
        ratio = np.exp(np.asarray(policy) - np.asarray(old))
        stopped += [(one > 1 + above and advantage > 0) or (one < 1 - below and advantage < 0) for one in ratio]
    return np.mean(stopped)
