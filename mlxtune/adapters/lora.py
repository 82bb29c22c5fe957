"""One linear layer with a trainable low-rank update beside its frozen weight: y = W x + scale B (A x).

The factors are float32, whatever the base is stored in, because an optimizer's steps are smaller than bfloat16 can
tell apart; the forward pass brings them to the activation's type, so that they never widen it. Dropout draws from a key
that is handed in, never from MLX's global state: the mask of a step is then a function of that key alone, and the
recomputation under gradient checkpointing meets it again. The price is one call before each step,
`set_dropout_keys`. Knows nothing of networks beyond walking them; which layers get an update is attach.py's.
"""

import hashlib

import mlx.core as mx
from mlx import nn


class LoRALinear(nn.Module):
    """A linear layer W plus its low-rank update; attributes and parameters are named as mlx-lm names them.

    Attributes:
        linear: the base, `nn.Linear` or `nn.QuantizedLinear` of [D_out, D_in].
        lora_a, lora_b: [D_in, R] and [R, D_out], float32.
        scale: alpha / R.
        dropout: the share of the update's input that a training step drops; the rest is scaled by 1 / (1 - dropout).

    Source: LoRA, section 4.1, https://arxiv.org/abs/2106.09685
    """

    def __init__(self, linear: nn.Module, lora_a: mx.array, lora_b: mx.array, *, scale: float, dropout: float) -> None:
        super().__init__()
        self.linear = linear
        self.lora_a = lora_a
        self.lora_b = lora_b
        self.scale = scale
        self.dropout = dropout
        # An underscore keeps it out of parameters(), while network.state, which a compiled step captures, has it.
        self._dropout_key: mx.array | None = None

    def set_dropout_key(self, key: mx.array | None) -> None:
        """Draw the masks of the next forward passes from ``key``; None switches dropout off."""
        self._dropout_key = key

    def __call__(self, x: mx.array) -> mx.array:
        """[..., D_in] to [..., D_out], in the type that the base layer gives."""
        update = self._dropped(x) @ self.lora_a.astype(x.dtype)
        # The scale goes where the numbers are few: R a position, not D_out.
        return self.linear(x) + (self.scale * update) @ self.lora_b.astype(x.dtype)

    def _dropped(self, x: mx.array) -> mx.array:
        if self._dropout_key is None or self.dropout == 0.0:
            return x
        kept = mx.random.bernoulli(1.0 - self.dropout, x.shape, key=self._dropout_key)
        return mx.where(kept, x * (1.0 / (1.0 - self.dropout)), mx.array(0.0, x.dtype))


def initial_factors(input_dims: int, output_dims: int, rank: int, *, seed: int, path: str) -> tuple[mx.array, mx.array]:
    """The factors that training starts from: A uniform in +-1/sqrt(D_in), B zero, so that the first update is none.

    A depends on (seed, path) alone: the same layer gets the same factor whichever other layers have one, and whatever
    else has drawn random numbers.

    Returns: [D_in, R] and [R, D_out], float32.
    """
    digest = hashlib.sha256(f"{seed}:{path}".encode()).digest()
    bound = input_dims**-0.5
    key = mx.random.key(int.from_bytes(digest[:8], "big"))
    return mx.random.uniform(-bound, bound, (input_dims, rank), key=key), mx.zeros((rank, output_dims))


def lora_layers(network: nn.Module) -> list[tuple[str, LoRALinear]]:
    """Every adapted layer with its path, such as ``model.layers.0.self_attn.q_proj``, in the order of the paths."""
    return sorted((path, module) for path, module in network.named_modules() if isinstance(module, LoRALinear))


def set_dropout_keys(network: nn.Module, key: mx.array | None) -> None:
    """Give every adapted layer its own part of ``key``; None, as after `attach_lora`, switches dropout off everywhere.

    Inside a compiled function the keys are tracers: set None before it returns.
    """
    layers = lora_layers(network)
    keys = [None] * len(layers) if key is None else list(mx.random.split(key, max(len(layers), 1)))
    for (_, layer), layer_key in zip(layers, keys, strict=False):
        layer.set_dropout_key(layer_key)
