"""Losses of preferences in numpy, written from their papers, for one pair at a time.

All take log-probabilities in nats: of the better answer w and the worse l, by the network and by its reference.
"""

import math


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def dpo_loss(w, l, w_ref, l_ref, *, beta, smoothing=0.0):  # noqa: E741 - the paper's letters
    """Rafailov et al., 2023, equation 7; with a share of the labels taken as swapped (conservative DPO)."""
    ratio = beta * (w - w_ref) - beta * (l - l_ref)
    return -(1 - smoothing) * math.log(sigmoid(ratio)) - smoothing * math.log(sigmoid(-ratio))


def ipo_loss(w, l, w_ref, l_ref, *, tau):  # noqa: E741
    """Azar et al., 2023, equation 17."""
    h = math.log((math.exp(w) * math.exp(l_ref)) / (math.exp(l) * math.exp(w_ref)))
    return (h - 1 / (2 * tau)) ** 2


def kto_loss(w, l, w_ref, l_ref, *, beta, mismatched, desirable=1.0, undesirable=1.0):  # noqa: E741
    """Ethayarajh et al., 2024, section 4.1: the mean over a desirable answer w and an undesirable l.

    Args:
        mismatched: pairs of log-probabilities, by the network and its reference, of answers to other prompts.
    """
    z0 = max(0, sum(now - then for now, then in mismatched) / len(mismatched))
    value_w = desirable * sigmoid(beta * ((w - w_ref) - z0))
    value_l = undesirable * sigmoid(beta * (z0 - (l - l_ref)))
    return ((desirable - value_w) + (undesirable - value_l)) / 2


def slopes(loss, values, *, step=1e-4):
    """The loss's derivative in each of its values, by central differences."""
    found = []
    for number in range(len(values)):
        up, down = ([value + sign * step * (place == number) for place, value in enumerate(values)] for sign in (1, -1))
        found.append((loss(*up) - loss(*down)) / (2 * step))
    return found


def orpo_loss(w_mean, l_mean, *, weight):
    """Hong et al., 2024, equations 3 to 7; the means are over an answer's tokens."""

    def odds(mean):
        p = math.exp(mean)
        return p / (1 - p)

    return -w_mean - weight * math.log(sigmoid(math.log(odds(w_mean) / odds(l_mean))))
