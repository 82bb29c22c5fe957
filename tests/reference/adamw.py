"""AdamW in numpy, float64, written from algorithm 2 of Decoupled Weight Decay Regularization.

The paper's schedule multiplier is folded into alpha, and alpha multiplies the decay too, as everybody has it since.
https://arxiv.org/abs/1711.05101
"""

import numpy as np


class AdamW:
    """One parameter's optimizer; ``step`` returns the parameter's next value."""

    def __init__(self, *, weight_decay: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        self.weight_decay, self.betas, self.eps = weight_decay, betas, eps
        self.m = self.v = 0.0
        self.t = 0

    def step(self, parameter: np.ndarray, gradient: np.ndarray, alpha: float) -> np.ndarray:
        """theta - alpha (m_hat / (sqrt(v_hat) + eps) + lambda theta), the moments bias-corrected."""
        theta, g = np.asarray(parameter, np.float64), np.asarray(gradient, np.float64)
        beta_1, beta_2 = self.betas
        self.t += 1
        self.m = beta_1 * self.m + (1 - beta_1) * g
        self.v = beta_2 * self.v + (1 - beta_2) * g**2
        m_hat = self.m / (1 - beta_1**self.t)
        v_hat = self.v / (1 - beta_2**self.t)
        return theta - alpha * (m_hat / (np.sqrt(v_hat) + self.eps) + self.weight_decay * theta)
