"""Llama with LoRA in numpy, float64, forward only, from the papers' formulas; gradients are central differences.

Sources: RMSNorm, https://arxiv.org/abs/1910.07467; RoPE, https://arxiv.org/abs/2104.09864, on halves as Hugging Face's
llama has it; grouped queries, https://arxiv.org/abs/2305.13245; SwiGLU, https://arxiv.org/abs/2002.05202; the whole,
https://arxiv.org/abs/2302.13971; LoRA, https://arxiv.org/abs/2106.09685.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Weights = dict[str, np.ndarray]
"""By mlx-lm's names; an adapted layer has ``.linear.weight``, ``.lora_a`` and ``.lora_b``."""


@dataclass(frozen=True)
class Llama:
    """One sequence at a time: token ids [L] to logits [L, V]; the head is the embedding."""

    layers: int
    heads: int
    kv_heads: int
    theta: float
    eps: float
    alpha: float

    def logits(self, weights: Weights, ids: np.ndarray) -> np.ndarray:
        embedding = weights["model.embed_tokens.weight"]
        x = embedding[ids]
        for i in range(self.layers):
            block = f"model.layers.{i}"
            x = x + self._attention(weights, block, self._norm(x, weights[f"{block}.input_layernorm.weight"]))
            x = x + self._mlp(weights, block, self._norm(x, weights[f"{block}.post_attention_layernorm.weight"]))
        return self._norm(x, weights["model.norm.weight"]) @ embedding.T

    def _norm(self, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + self.eps) * weight

    def _linear(self, weights: Weights, path: str, x: np.ndarray) -> np.ndarray:
        a, b = weights[f"{path}.lora_a"], weights[f"{path}.lora_b"]
        return x @ weights[f"{path}.linear.weight"].T + self.alpha / a.shape[1] * (x @ a @ b)

    def _attention(self, weights: Weights, block: str, x: np.ndarray) -> np.ndarray:
        length = len(x)
        q, k, v = (self._linear(weights, f"{block}.self_attn.{name}_proj", x) for name in "qkv")
        q = self._rotate(q.reshape(length, self.heads, -1))
        k = self._rotate(k.reshape(length, self.kv_heads, -1))
        v = v.reshape(length, self.kv_heads, -1)
        after = np.triu(np.ones((length, length), bool), 1)
        heads = []
        for head in range(self.heads):
            group = head // (self.heads // self.kv_heads)
            scores = q[:, head] @ k[:, group].T / np.sqrt(q.shape[-1])
            scores[after] = -np.inf
            scores = np.exp(scores - scores.max(axis=1, keepdims=True))
            heads.append(scores / scores.sum(axis=1, keepdims=True) @ v[:, group])
        return self._linear(weights, f"{block}.self_attn.o_proj", np.concatenate(heads, axis=1))

    def _rotate(self, x: np.ndarray) -> np.ndarray:
        """[L, H, d]: the pair (x_i, x_i+d/2) at position p is turned by p * theta ** (-2 i / d)."""
        length, _, d = x.shape
        angle = np.arange(length)[:, None, None] * self.theta ** (-2 * np.arange(d // 2) / d)
        a, b = x[..., : d // 2], x[..., d // 2 :]
        return np.concatenate([a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)], axis=-1)

    def _mlp(self, weights: Weights, block: str, x: np.ndarray) -> np.ndarray:
        gate, up = (self._linear(weights, f"{block}.mlp.{name}_proj", x) for name in ("gate", "up"))
        return self._linear(weights, f"{block}.mlp.down_proj", gate / (1 + np.exp(-gate)) * up)


def central_differences(loss: Callable[[Weights], float], weights: Weights, names: list[str], h: float) -> Weights:
    """d loss / d weights[name] for every entry of each name: (loss(w + h) - loss(w - h)) / 2h."""
    gradients = {}
    for name in names:
        array = weights[name]
        gradients[name] = np.zeros_like(array)
        for entry in np.ndindex(array.shape):
            kept = array[entry]
            array[entry] = kept + h
            above = loss(weights)
            array[entry] = kept - h
            below = loss(weights)
            array[entry] = kept
            gradients[name][entry] = (above - below) / (2 * h)
    return gradients
