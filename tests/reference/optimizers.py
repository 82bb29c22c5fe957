"""Optimizers in numpy, float64, each written from the formula of its paper.

Each holds one parameter's state; ``step`` returns the parameter's next value. Weight decay, where the paper has none,
is AdamW's: theta - alpha lambda theta, beside the update.
"""

import numpy as np


class Adam:
    """Algorithm 1 of Adam: A Method for Stochastic Optimization, https://arxiv.org/abs/1412.6980."""

    def __init__(self, *, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        self.betas, self.eps = betas, eps
        self.m = self.v = 0.0
        self.t = 0

    def step(self, theta: np.ndarray, g: np.ndarray, alpha: float) -> np.ndarray:
        beta_1, beta_2 = self.betas
        self.t += 1
        self.m = beta_1 * self.m + (1 - beta_1) * g
        self.v = beta_2 * self.v + (1 - beta_2) * g**2
        m_hat = self.m / (1 - beta_1**self.t)
        v_hat = self.v / (1 - beta_2**self.t)
        return theta - alpha * m_hat / (np.sqrt(v_hat) + self.eps)


class AdamW(Adam):
    """Algorithm 2 of Decoupled Weight Decay Regularization, https://arxiv.org/abs/1711.05101.

    The paper's schedule multiplier is folded into alpha, and alpha multiplies the decay too, as everybody has it since.
    """

    def __init__(self, *, weight_decay: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        super().__init__(betas=betas, eps=eps)
        self.weight_decay = weight_decay

    def step(self, theta: np.ndarray, g: np.ndarray, alpha: float) -> np.ndarray:
        theta = np.asarray(theta, np.float64)
        return super().step(theta, np.asarray(g, np.float64), alpha) - alpha * self.weight_decay * theta


class Sgd:
    """Momentum and L2: PyTorch's form, in which the rate of today applies to the whole momentum.

    Where the rate changes, the form of https://arxiv.org/abs/1711.05101, algorithm 1, differs: each gradient keeps the
    rate of its own step. Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.SGD.html
    """

    def __init__(self, *, weight_decay: float, momentum: float = 0.9) -> None:
        self.weight_decay, self.momentum, self.b = weight_decay, momentum, 0.0

    def step(self, theta: np.ndarray, g: np.ndarray, alpha: float) -> np.ndarray:
        self.b = self.momentum * self.b + g + self.weight_decay * theta
        return theta - alpha * self.b


class Lion:
    """Program 1 of Symbolic Discovery of Optimization Algorithms, https://arxiv.org/abs/2302.06675."""

    def __init__(self, *, weight_decay: float, betas: tuple[float, float] = (0.9, 0.99)) -> None:
        self.weight_decay, self.betas, self.m = weight_decay, betas, 0.0

    def step(self, theta: np.ndarray, g: np.ndarray, alpha: float) -> np.ndarray:
        beta_1, beta_2 = self.betas
        update = np.sign(beta_1 * self.m + (1 - beta_1) * g)
        self.m = beta_2 * self.m + (1 - beta_2) * g
        return theta - alpha * (update + self.weight_decay * theta)


class Adafactor:
    """Algorithm 4 of Adafactor, with absolute steps alpha in place of max(eps_2, RMS(X)) rho.

    https://arxiv.org/abs/1804.04235; beta_2 is 1 - t^-0.8 and the clipping threshold d is 1, as proposed in section 9.
    """

    def __init__(self, *, weight_decay: float) -> None:
        self.weight_decay, self.t, self.r, self.c = weight_decay, 0, 0.0, 0.0

    def step(self, theta: np.ndarray, g: np.ndarray, alpha: float) -> np.ndarray:
        self.t += 1
        beta_2 = 1 - self.t**-0.8
        square = g**2 + 1e-30
        self.r = beta_2 * self.r + (1 - beta_2) * square.sum(axis=1)
        self.c = beta_2 * self.c + (1 - beta_2) * square.sum(axis=0)
        u = g / np.sqrt(np.outer(self.r, self.c) / self.r.sum())
        u = u / max(1.0, np.sqrt((u**2).mean()))
        return theta - alpha * (u + self.weight_decay * theta)


class Muon:
    """Nesterov momentum, made nearly orthogonal by five steps of Newton-Schulz's iteration.

    An odd polynomial of a matrix is that of its singular values, so here it is applied to those. The factor for tall
    matrices is of the author's implementation. https://kellerjordan.github.io/posts/muon
    """

    def __init__(self, *, weight_decay: float, momentum: float = 0.95) -> None:
        self.weight_decay, self.momentum, self.b = weight_decay, momentum, 0.0

    def step(self, theta: np.ndarray, g: np.ndarray, alpha: float) -> np.ndarray:
        self.b = self.momentum * self.b + g
        u, s, v = np.linalg.svd(g + self.momentum * self.b, full_matrices=False)
        s = s / np.sqrt((s**2).sum())
        for _ in range(5):
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
        rows, columns = theta.shape
        return theta - alpha * (np.sqrt(max(1.0, rows / columns)) * (u * s) @ v + self.weight_decay * theta)
