"""Cross-entropy of a softmax, and its gradient, written from the formula in float64."""

import numpy as np


def cross_entropy(logits: np.ndarray, target: np.ndarray) -> np.ndarray:
    """-log(exp(z_t) / sum_v exp(z_v)): [T, V] and [T] to [T]."""
    z = logits.astype(np.float64)
    z = z - z.max(axis=1, keepdims=True)
    return np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(target)), target]


def cross_entropy_gradient(logits: np.ndarray, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """d(sum w * cross_entropy)/dz = w * (softmax(z) - onehot(t)): [T, V]."""
    z = logits.astype(np.float64)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(len(target)), target] -= 1
    return weight[:, None] * p
