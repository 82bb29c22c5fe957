"""Whole modules that an adapter brings along, and a head that an adapter parts from the embedding it was tied to.

PEFT calls the first modules_to_save: a copy of a module that was trained as it is. The second comes with it and with
LoRA on one side alone: in PEFT, what is put on a tied embedding leaves the head as it was, and the other way round.
The base stays beside the copy, so that what changed can be told; the price is its memory.
"""

import copy
from collections.abc import Mapping
from typing import Any

import mlx.core as mx
from mlx import nn

from mlxtune.adapters.lora import LowRank, base_weight
from mlxtune.device.dequantize import is_quantized


class SavedModule(nn.Module):
    """A module with weights of an adapter's own in the place of the base's; ``original`` is not used, but kept.

    The weights are float32, as an adapter's factors are; what comes out has the type that the base would give it.
    """

    def __init__(self, original: Any, saved: Any) -> None:
        super().__init__()
        self.original = original
        self.saved = saved
        stored = original.scales.dtype if is_quantized(original) else original.weight.dtype
        self.dtype = stored if mx.issubdtype(stored, mx.floating) else mx.bfloat16  # mxfp4's scales are bytes

    def __call__(self, x: mx.array) -> mx.array:
        return self.saved(x).astype(self.dtype)

    def as_linear(self, x: mx.array) -> mx.array:
        """Of an embedding that serves as the head."""
        return self.saved.as_linear(x).astype(self.dtype)


class SeparateHead(nn.Module):
    """In an embedding's place: token ids go through ``inputs``, hidden states to logits through ``outputs``."""

    def __init__(self, inputs: Any, outputs: Any) -> None:
        super().__init__()
        self.inputs = inputs
        self.outputs = outputs

    def __call__(self, x: mx.array) -> mx.array:
        return self.inputs(x)

    def as_linear(self, x: mx.array) -> mx.array:
        """Hidden states [..., D] to logits [..., V]."""
        return self.outputs(x)


def separate_head(embedding: Any) -> SeparateHead:
    """A tied embedding as two layers that share their arrays, and can be adapted apart."""
    tokens, dims = base_weight(embedding).shape
    if is_quantized(embedding):
        outputs: nn.Module = nn.QuantizedLinear(
            dims, tokens, bias=False, group_size=embedding.group_size, bits=embedding.bits, mode=embedding.mode
        )
    else:
        outputs = nn.Linear(dims, tokens, bias=False)
    for name, array in _arrays(embedding).items():  # its own random weights are lazy, and never worked out
        outputs[name] = array
    return SeparateHead(embedding, outputs)


def with_weights(module: Any, arrays: Mapping[str, mx.array]) -> SavedModule:
    """``module`` with ``arrays``, by its own names, in place of its weights; not quantized, whatever it was."""
    if is_quantized(module):
        plain_kind = nn.Embedding if isinstance(module, nn.QuantizedEmbedding) else nn.Linear
        saved: Any = plain_kind(1, 1)  # its own weights are replaced
        saved.pop("bias", None)
    else:
        saved = copy.copy(module)
        saved._no_grad = set()  # the copy has a share in the module's own  # noqa: SLF001
    for name, array in arrays.items():
        saved[name] = array
    return SavedModule(module, saved)


def can_be_saved(module: Any) -> bool:
    """Whether a copy may stand in for ``module``, which is then called with one array and gives one.

    Families have norms of their own, which nothing but the name tells; those that take a gate too are not called so.
    """
    layers = (nn.Linear, nn.QuantizedLinear, nn.Embedding, nn.QuantizedEmbedding)
    return type(module) in layers or isinstance(module, nn.LayerNorm) or type(module).__name__.endswith("Norm")


def weight_shapes(module: Any) -> dict[str, tuple[int, ...]]:
    """The arrays that a copy of ``module`` consists of, by name, with the shapes that they have when not quantized."""
    if not is_quantized(module):
        return {name: array.shape for name, array in _arrays(module).items()}
    shapes = {name: array.shape for name, array in _arrays(module).items() if name == "bias"}
    return {"weight": base_weight(module).shape, **shapes}


def own_weights(module: Any) -> dict[str, mx.array]:
    """The arrays that a copy of ``module`` starts from, by name, float32, dequantized; lazy.

    They share no memory with the base's: after the first update they could not, and a plan measures what is before it.
    """
    arrays = {name: array for name, array in _arrays(module).items() if name in weight_shapes(module)}
    if is_quantized(module):
        arrays["weight"] = base_weight(module)
    return {name: array.astype(mx.float32) * 1.0 for name, array in arrays.items()}


def saved_modules(network: nn.Module) -> list[tuple[str, SavedModule]]:
    """Every saved module with its path, in the order of the paths."""
    found = [(path, module) for path, module in network.named_modules() if isinstance(module, SavedModule)]
    return sorted(found, key=lambda one: one[0])


def under_adapter(module: Any) -> Any:
    """The layer below whatever an adapter put on it: its shapes are those of the whole, its numbers may not be."""
    while isinstance(module, LowRank | SavedModule | SeparateHead):
        module = (
            module.base
            if isinstance(module, LowRank)
            else module.saved
            if isinstance(module, SavedModule)
            else module.outputs
        )
    return module


def _arrays(module: nn.Module) -> dict[str, mx.array]:
    return {name: array for name, array in module.items() if isinstance(array, mx.array)}
