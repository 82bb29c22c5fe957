"""One layer with a low-rank update beside its frozen weight W: it answers as W + scale D would, D being of rank R.

Linear layers carry one, so do those of a mixture's experts, and embeddings, also where they serve as the head. Names
and layouts of the factors are mlx-lm's. With a magnitude m the sum is rescaled, which is DoRA: each of its rows gets
the length m, or in PEFT's embeddings each column.

The factors are float32, whatever the base is stored in, because an optimizer's steps are smaller than bfloat16 can
tell apart; the forward pass brings them to the activation's type, so that they never widen it. Dropout draws from a key
that is handed in, never from MLX's global state: the mask of a step is then a function of that key alone, and the
recomputation under gradient checkpointing meets it again. The price is one call before each step,
`set_dropout_keys`. Knows nothing of networks beyond walking them; which layers get an update is attach.py's.
"""

import hashlib
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx import nn

from mlxtune.device.dequantize import is_quantized, unpacked_weight


@dataclass(frozen=True)
class Gain:
    """What DoRA multiplies with, and the arrays that it was worked out from."""

    made_of: tuple[mx.array, ...]
    value: mx.array


class LowRank(nn.Module, ABC):
    """What all layers with an update have in common.

    Attributes:
        lora_a, lora_b: the factors, float32; R is a dimension of both.
        m: DoRA's magnitude, float32; not there in LoRA.
        scale: of the product; alpha / R, or alpha / sqrt(R) in rsLoRA.
        dropout: the share of the update's input that a training step drops; the rest is scaled by 1 / (1 - dropout).
        norm_axis: of the weight, along which a row's (or column's) length is taken for DoRA.
        use_rslora: whether ``scale`` was made by rsLoRA's rule; it changes nothing but what ``alpha`` is said to be.

    Source: LoRA, section 4.1, https://arxiv.org/abs/2106.09685; rsLoRA, https://arxiv.org/abs/2312.03732; DoRA,
    equation 5 and, for the gradient, section 4.3, https://arxiv.org/abs/2402.09353
    """

    base_name = "linear"
    input_axis = 0
    """Of lora_a, along which the layer's input is."""

    def __init__(
        self,
        base: nn.Module,
        lora_a: mx.array,
        lora_b: mx.array,
        *,
        scale: float,
        dropout: float = 0.0,
        m: mx.array | None = None,
        norm_axis: int = 1,
        use_rslora: bool = False,
    ) -> None:
        super().__init__()
        setattr(self, self.base_name, base)  # first: gradients come in the order of the attributes
        self.lora_a = lora_a
        self.lora_b = lora_b
        if m is not None:
            self.m = m
        self.scale = scale
        self.dropout = dropout
        self.norm_axis = norm_axis
        self.use_rslora = use_rslora
        # An underscore keeps it out of parameters(), while network.state, which a compiled step captures, has it.
        self._dropout_key: mx.array | None = None
        self._gain: Gain | None = None  # no array, list or dict, hence in neither

    @property
    def base(self) -> Any:
        """The layer without the update."""
        return self[self.base_name]

    @property
    @abstractmethod
    def rank(self) -> int:
        """R."""

    @property
    def alpha(self) -> float:
        """PEFT's lora_alpha, of which `scale_of` makes ``scale``; as round a number as it was before it was divided."""
        divisor = math.sqrt(self.rank) if self.use_rslora else self.rank
        alpha = round(self.scale * divisor, 9)
        if alpha / divisor != self.scale:
            return self.scale * divisor
        return int(alpha) if alpha == int(alpha) else alpha

    @property
    def factors(self) -> tuple[str, ...]:
        """The names of the arrays that are the update."""
        return ("lora_a", "lora_b", "m") if "m" in self else ("lora_a", "lora_b")

    @staticmethod
    @abstractmethod
    def factor_shapes(base: Any, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of ``lora_a`` and ``lora_b``."""

    @abstractmethod
    def product(self) -> mx.array:
        """D, float32, in the shape of the base's weight."""

    def merged(self) -> mx.array:
        """The weight of a layer without update that answers as this one does; float32, lazy."""
        weight = self._moved()
        return weight if "m" not in self else mx.expand_dims(self._gain_of(weight), self.norm_axis) * weight

    def gain(self) -> mx.array:
        """DoRA's m / |W + scale D|, float32, lazy.

        Kept for as long as the factors are the same arrays, since it costs as much as forming the whole weight.
        """
        made_of = tuple(self[name] for name in self.factors)
        if self._gain is None or any(old is not new for old, new in zip(self._gain.made_of, made_of, strict=True)):
            self._gain = Gain(made_of, self._gain_of(self._moved()))
        return self._gain.value

    def forget_gain(self) -> None:
        """Keep nothing that it was worked out from."""
        self._gain = None

    def _moved(self) -> mx.array:
        return base_weight(self.base) + self.scale * self.product()

    def _gain_of(self, weight: mx.array) -> mx.array:
        # The length is a constant to the gradient, as in the paper: all but the same result, for less memory.
        return self.m / mx.stop_gradient(mx.linalg.norm(weight, axis=self.norm_axis))

    def set_dropout_key(self, key: mx.array | None) -> None:
        """Draw the masks of the next forward passes from ``key``; None switches dropout off."""
        self._dropout_key = key

    def _dropped(self, x: mx.array) -> mx.array:
        if self._dropout_key is None or self.dropout == 0.0:
            return x
        kept = mx.random.bernoulli(1.0 - self.dropout, x.shape, key=self._dropout_key)
        return mx.where(kept, x * (1.0 / (1.0 - self.dropout)), mx.array(0.0, x.dtype))


class LoRALinear(LowRank):
    """A linear layer with its update: y = W x + scale B (A x).

    ``linear`` is `nn.Linear` or `nn.QuantizedLinear` of [D_out, D_in]; ``lora_a`` is [D_in, R], ``lora_b`` [R, D_out],
    ``m`` [D_out].
    """

    @staticmethod
    def factor_shapes(base: Any, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of ``lora_a`` and ``lora_b``."""
        output_dims, width = base.weight.shape
        input_dims = width * 32 // base.bits if is_quantized(base) else width
        return (input_dims, rank), (rank, output_dims)

    @property
    def rank(self) -> int:
        return self.lora_a.shape[1]

    def product(self) -> mx.array:
        return self.lora_b.T @ self.lora_a.T

    def __call__(self, x: mx.array) -> mx.array:
        """[..., D_in] to [..., D_out], in the type that the base layer gives."""
        update = self._dropped(x) @ self.lora_a.astype(x.dtype)
        # The scale goes where the numbers are few: R a position, not D_out.
        y = self.base(x) + (self.scale * update) @ self.lora_b.astype(x.dtype)
        if "m" not in self:
            return y
        bias, gain = self.base.get("bias", 0.0), self.gain().astype(y.dtype)
        return gain * (y - bias) + bias


class LoRASwitchLinear(LowRank):
    """The linear layers of a mixture's E experts, each with an update of its own.

    ``linear`` is mlx-lm's `SwitchLinear` or `QuantizedSwitchLinear` of [E, D_out, D_in]; ``lora_a`` is [E, R, D_in],
    ``lora_b`` [E, D_out, R]. No DoRA.
    """

    input_axis = -1

    @staticmethod
    def factor_shapes(base: Any, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of ``lora_a`` and ``lora_b``."""
        experts, output_dims, width = base.weight.shape
        input_dims = width * 32 // base.bits if is_quantized(base) else width
        return (experts, rank, input_dims), (experts, output_dims, rank)

    @property
    def rank(self) -> int:
        return self.lora_a.shape[1]

    def product(self) -> mx.array:
        return self.lora_b @ self.lora_a

    def __call__(self, x: mx.array, indices: mx.array, sorted_indices: bool = False) -> mx.array:
        """[..., D_in] and each row's expert to [..., D_out]."""

        def through(x: mx.array, factor: mx.array) -> mx.array:
            experts = factor.astype(x.dtype).swapaxes(-1, -2)
            return mx.gather_mm(x, experts, rhs_indices=indices, sorted_indices=sorted_indices)

        update = through(self.scale * through(self._dropped(x), self.lora_a), self.lora_b)
        return self.base(x, indices, sorted_indices=sorted_indices) + update


class LoRAEmbedding(LowRank):
    """An embedding with its update; used as a head, it has the update there too. Dropout does not touch it, as in PEFT.

    ``embedding`` is `nn.Embedding` or `nn.QuantizedEmbedding` of [V, D]; ``lora_a`` is [V, R], ``lora_b`` [R, D], ``m``
    [V] where ``norm_axis`` is 1, as in mlx-lm, and [D] where it is 0, as in PEFT.
    """

    base_name = "embedding"

    @staticmethod
    def factor_shapes(base: Any, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of ``lora_a`` and ``lora_b``."""
        tokens, width = base.weight.shape
        dims = width * 32 // base.bits if is_quantized(base) else width
        return (tokens, rank), (rank, dims)

    @property
    def rank(self) -> int:
        return self.lora_a.shape[1]

    def product(self) -> mx.array:
        return self.lora_a @ self.lora_b

    def __call__(self, x: mx.array) -> mx.array:
        """Token ids [...] to [..., D]."""
        y = self.base(x)
        y = y + ((self.scale * self.lora_a[x]) @ self.lora_b).astype(y.dtype)
        if "m" not in self:
            return y
        gain = self.gain().astype(y.dtype)
        return gain * y if self.norm_axis == 0 else gain[x][..., None] * y

    def as_linear(self, x: mx.array) -> mx.array:
        """Hidden states [..., D] to logits [..., V]."""
        gain = self.gain().astype(x.dtype) if "m" in self else None
        if gain is not None and self.norm_axis == 0:
            x = gain * x
        update = self.scale * (x @ self.lora_b.T.astype(x.dtype))
        y = self.base.as_linear(x) + update @ self.lora_a.T.astype(x.dtype)
        return y if gain is None or self.norm_axis == 0 else gain * y


def base_weight(layer: Any) -> mx.array:
    """The weight of a layer without update, dequantized; float32, lazy."""
    return unpacked_weight(layer) if is_quantized(layer) else layer.weight.astype(mx.float32)


def adapted_kind(module: Any) -> type[Any] | None:
    """The class that puts an update on ``module``; None where there is none for it.

    A subclass may do with its weight what an update would not follow, so only the classes themselves count.
    """
    # Here, not above: mlx_lm takes 0.6 s to import, and whoever has a network has imported it.
    from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear

    kinds: dict[type, type[LowRank]] = {
        nn.Linear: LoRALinear,
        nn.QuantizedLinear: LoRALinear,
        SwitchLinear: LoRASwitchLinear,
        QuantizedSwitchLinear: LoRASwitchLinear,
        nn.Embedding: LoRAEmbedding,
        nn.QuantizedEmbedding: LoRAEmbedding,
    }
    return kinds.get(type(module))


def initial_factors(layer: Any, rank: int, *, seed: int, path: str) -> tuple[mx.array, mx.array]:
    """The factors that training starts from: A uniform in +-1/sqrt(D_in), B zero, so that the first update is none.

    A depends on (seed, path) alone: the same layer gets the same factor whichever other layers have one, and whatever
    else has drawn random numbers.

    Args:
        layer: one that `adapted_kind` has a class for.

    Returns: ``lora_a`` and ``lora_b``, float32.
    """
    kind = adapted_kind(layer)
    assert kind is not None
    shape_a, shape_b = kind.factor_shapes(layer, rank)
    digest = hashlib.sha256(f"{seed}:{path}".encode()).digest()
    bound = shape_a[kind.input_axis] ** -0.5
    key = mx.random.key(int.from_bytes(digest[:8], "big"))
    return mx.random.uniform(-bound, bound, shape_a, key=key), mx.zeros(shape_b)


def initial_magnitude(layer: Any) -> mx.array:
    """DoRA's m before training, the length of each of the weight's rows: [D_out], or [V] of an embedding; float32."""
    return mx.linalg.norm(base_weight(layer), axis=1)


def lora_layers(network: nn.Module) -> list[tuple[str, Any]]:
    """Every adapted layer with its path, such as ``model.layers.0.self_attn.q_proj``, in the order of the paths."""
    return sorted((path, module) for path, module in network.named_modules() if isinstance(module, LowRank))


def set_dropout_keys(network: nn.Module, key: mx.array | None) -> None:
    """Give every adapted layer its own part of ``key``; None, as after `attach_lora`, switches dropout off everywhere.

    Inside a compiled function the keys are tracers: set None before it returns.
    """
    layers = lora_layers(network)
    keys = [None] * len(layers) if key is None else list(mx.random.split(key, max(len(layers), 1)))
    for (_, layer), layer_key in zip(layers, keys, strict=False):
        layer.set_dropout_key(layer_key)


def forget_gains(network: nn.Module) -> None:
    """Have no adapted layer keep what its gain was worked out from, so that an update can take the places of that."""
    for _, layer in lora_layers(network):
        layer.forget_gain()
