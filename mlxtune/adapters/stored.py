"""An adapter as its folder has it, whoever wrote it: its tensors by layer, and the rule that says which layers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import mlx.core as mx
from mlx import nn

from mlxtune.adapters.names import Names
from mlxtune.errors import AdapterError

LONGEST_TOLD = 100
MERGE_WITH_PEFT = "merge it with PEFT (merge_and_unload), and use the model that comes out"
"""The way out for what PEFT alone can open."""
HIGHEST = 1e30
"""Of a config's number: what is larger than this has no meaning in float32."""


class WordsMissing(Exception):  # noqa: N818 - no mistake of anybody's
    """A program's files have no words for an adapter; the text says for what of it."""


@dataclass(frozen=True)
class Factors:
    """One layer's update: lora_a [D_in, R], lora_b [R, D_out], DoRA's magnitude; in mlx-lm's layout, float32."""

    lora_a: mx.array
    lora_b: mx.array
    m: mx.array | None = None


class Rule(Protocol):
    """What a config says of its adapter's layers, in the words of the program that wrote it."""

    @property
    def dropout(self) -> float: ...

    @property
    def ties_head(self) -> bool:
        """Whether what is put on an embedding is put on a head tied to it, too."""
        ...

    @property
    def use_rslora(self) -> bool:
        """Whether `scale_of` divides by the root of the rank."""
        ...

    @property
    def embedding_norm_axis(self) -> int:
        """Of an embedding [V, D]: along which DoRA takes lengths."""
        ...

    def scale_of(self, name: str) -> float:
        """What the product of the layer ``name`` is multiplied with."""
        ...

    def targets(self, network: Any, layers: Mapping[str, nn.Module], names: Names) -> set[str]:
        """The paths of those of a network's ``layers`` that have an update."""
        ...


@dataclass(frozen=True)
class Stored:
    """What was read; layers and modules by the names that their program has for them."""

    config: dict[str, Any]
    rule: Rule
    factors: dict[str, Factors]
    saved: dict[str, dict[str, mx.array]] = field(default_factory=dict)
    """Whole modules' arrays."""
    copies: dict[str, mx.array] = field(default_factory=dict)
    """Weights of the base that PEFT writes beside an embedding's update."""


def told(value: Any) -> str:
    """A config's value in a sentence."""
    text = repr(value)
    return text if len(text) <= LONGEST_TOLD else f"{text[:LONGEST_TOLD]} ..."


def is_list_of(value: Any, kind: type) -> bool:
    """Whether a config's value is a list of one kind, with something in it."""
    return isinstance(value, list) and bool(value) and all(type(item) is kind for item in value)


def integer(values: Mapping[str, Any], key: str, where: Path) -> int:
    """A config's whole number. Raises: AdapterError, if it is none."""
    if type(value := values.get(key)) is not int:
        raise AdapterError(f"{key} is {told(value)}, not a whole number", where=where)
    return value


def number(values: Mapping[str, Any], key: str, where: Path, default: float | None = None) -> float:
    """A config's number. Raises: AdapterError, if it is none."""
    value = values.get(key, default)
    if type(value) not in (int, float) or abs(value) > HIGHEST:
        raise AdapterError(f"{key} is {told(value)}, not a number", where=where)
    return value


def flag(values: Mapping[str, Any], key: str, where: Path) -> bool:
    """A config's yes or no; no, if it is not there. Raises: AdapterError, if it is neither."""
    value = values.get(key)
    if value is not None and type(value) is not bool:
        raise AdapterError(f"{key} is {told(value)}, neither true nor false", where=where)
    return bool(value)


def dropout_of(values: Mapping[str, Any], key: str, where: Path) -> float:
    """A config's share that is dropped, 0 if it is not there. Raises: AdapterError, if it is none."""
    dropout = number(values, key, where, default=0.0)
    if not 0.0 <= dropout < 1.0:
        raise AdapterError(f"a LoRA dropout is at least 0 and below 1, not {dropout}", where=where)
    return dropout


def checked_rank(rank: int, alpha: float, where: Path) -> None:
    """Raises: AdapterError, for values that mean nothing."""
    if rank < 1:
        raise AdapterError(f"a LoRA rank is at least 1, not {rank}", where=where)
    if not 0.0 < alpha < float("inf"):
        raise AdapterError(f"a LoRA alpha is a number above 0, not {alpha}", where=where)


def checked_matrix(name: str, array: mx.array, dims: tuple[int, ...], file: Path) -> mx.array:
    """A tensor of an adapter, float32. Raises: AdapterError, for other dimensions, and for what is no finite float."""
    if array.ndim not in dims or not mx.issubdtype(array.dtype, mx.floating):
        raise AdapterError(f"{name} is {array.dtype} of {list(array.shape)}, not a matrix of floats", where=file)
    array = array.astype(mx.float32)
    if not mx.all(mx.isfinite(array)).item():
        raise AdapterError(f"{name} has values that are not finite", where=file, remedy="go back to a sound checkpoint")
    return array
