"""What PEFT's adapter_config.json says of an adapter's layers, read as PEFT reads it.

A setting that would make the tensors mean something else, and is not known here, is refused by name. The rules of
matching are those of peft/tuners/tuners_utils.py and peft/utils/other.py, version 0.20.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mlx import nn

from mlxtune.adapters.lora import LoRALinear, LoRASwitchLinear, adapted_kind
from mlxtune.adapters.names import Names
from mlxtune.adapters.patterns import found, matches
from mlxtune.adapters.shape import is_named
from mlxtune.adapters.stored import (
    MERGE_WITH_PEFT,
    checked_rank,
    dropout_of,
    flag,
    integer,
    is_list_of,
    number,
    told,
)
from mlxtune.errors import AdapterError

T = TypeVar("T")

ALL_LINEAR = "all-linear"

# Settings that are read below, and those that change nothing in what the tensors mean.
KEYS = frozenset({"peft_type", "r", "lora_alpha", "lora_dropout", "target_modules", "bias", "init_lora_weights"})
KEYS |= {"layers_to_transform", "layers_pattern", "base_model_name_or_path", "task_type", "inference_mode"}
KEYS |= {"use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "exclude_modules", "modules_to_save"}
KEYS |= {"peft_version", "auto_mapping", "revision", "runtime_config", "qalora_group_size", "megatron_core"}
KEYS |= {"loftq_config", "eva_config", "corda_config", "lora_ga_config", "ensure_weight_tying"}
OTHERS = frozenset({"fine_tune_type", "num_layers", "lora_parameters", "mlxtune"})
# Ways of starting that leave the base weights as they are; others (pissa, olora, loftq) train against another base.
STARTS = (True, False, "gaussian", "eva", "orthogonal", "mica")


@dataclass(frozen=True)
class PeftRule:
    """Which layers have an update, and of which rank and strength, by the names that PEFT has for them."""

    rank: int
    alpha: float
    target_modules: str | tuple[str, ...]
    """``all-linear``, a pattern for whole names, or ends of names."""
    dropout: float = 0.0
    use_rslora: bool = False
    use_dora: bool = False
    rank_pattern: Mapping[str, int] | None = None
    alpha_pattern: Mapping[str, float] | None = None
    exclude_modules: str | tuple[str, ...] = ()
    layers: tuple[int, ...] | None = None
    layers_pattern: tuple[str, ...] = ()
    modules_to_save: tuple[str, ...] = ()
    ties_head: bool = False
    embedding_norm_axis: int = 0

    def rank_of(self, name: str) -> int:
        """R of the layer ``name``."""
        return _first_match(self.rank_pattern, name, self.rank)

    def scale_of(self, name: str) -> float:
        """What the product of the layer ``name`` is multiplied with."""
        rank = self.rank_of(name)
        return _first_match(self.alpha_pattern, name, self.alpha) / (math.sqrt(rank) if self.use_rslora else rank)

    def targets_name(self, name: str) -> bool:
        """Whether a layer of this name has an update; for ``all-linear``, if it is linear."""
        if _is_any(self.exclude_modules, name) or any(
            matches(rf"(.*\.)?({saved})(\..*)?", name) for saved in self.modules_to_save
        ):
            return False
        if self.target_modules == ALL_LINEAR:
            return name.rpartition(".")[2] != "lm_head"
        if isinstance(self.target_modules, str) or self.layers is None or name in self.target_modules:
            return _is_any(self.target_modules, name)
        return _is_any(self.target_modules, name) and self._block_of(name) in self.layers

    def _block_of(self, name: str) -> int | None:
        """The number of the block that a layer is in: in its name, the first that follows a word (of the pattern)."""
        for word in self.layers_pattern or ("[^.]*",):
            if (match := found(rf".*?\.{word}\.(?P<block>\d+)\..*", name)) is not None:
                return int(match["block"])
        return None

    def targets(self, network: Any, layers: Mapping[str, nn.Module], names: Names) -> set[str]:  # noqa: ARG002 - as mlx-lm's
        """The paths of those of a network's ``layers`` that have an update."""
        linear = (LoRALinear, LoRASwitchLinear)
        targeted = set()
        for path, module in layers.items():
            if self.target_modules == ALL_LINEAR and adapted_kind(module) not in linear:
                continue
            if (known := names.names_of(path)) is not None and self.targets_name(known[0]):
                targeted.add(path)
        return targeted


def _is_any(names: str | tuple[str, ...], name: str) -> bool:
    """Whether ``name`` fits a pattern, or is one of ``names`` or ends with it."""
    if isinstance(names, str):
        return matches(names, name)
    return any(is_named(name, one) for one in names)


def _first_match(patterns: Mapping[str, T] | None, name: str, otherwise: T) -> T:
    return next((value for key, value in (patterns or {}).items() if matches(rf"(.*\.)?({key})", name)), otherwise)


def read_rule(config: Mapping[str, Any], where: Path) -> PeftRule:
    """What a config says. Raises: AdapterError, naming the first setting that cannot be used."""
    if config["peft_type"] != "LORA":
        raise AdapterError(
            f"peft_type is {told(config['peft_type'])}; only LORA can be opened", where=where, remedy=MERGE_WITH_PEFT
        )
    for key, value in config.items():
        if value and key not in KEYS | OTHERS:
            raise AdapterError(
                f"the adapter uses PEFT's {key}, which is not available", where=where, remedy=MERGE_WITH_PEFT
            )
    if config.get("bias", "none") != "none":
        raise AdapterError(
            f"the adapter trains biases (bias: {told(config['bias'])}), which is not available",
            where=where,
            remedy=MERGE_WITH_PEFT,
        )
    start = config.get("init_lora_weights", True)
    if start not in STARTS:
        raise AdapterError(
            f"the adapter started with init_lora_weights {told(start)}, which changes the base model's weights",
            where=where,
            remedy=MERGE_WITH_PEFT,
        )
    targets: Any = config.get("target_modules")
    if not isinstance(targets, str) and targets != [] and not is_list_of(targets, str):
        raise AdapterError(f"target_modules is {told(targets)}; a list of names or a pattern is wanted", where=where)
    rank, alpha = integer(config, "r", where), number(config, "lora_alpha", where)
    ranks = _pattern(config, "rank_pattern", (int,), where)
    alphas = _pattern(config, "alpha_pattern", (int, float), where)
    for one in [rank, *ranks.values()]:
        checked_rank(one, alpha, where)
    for one in alphas.values():
        checked_rank(rank, one, where)
    layers = _layers(config, where)
    if isinstance(targets, str) and layers is not None:
        raise AdapterError("layers_to_transform goes with a list of target_modules, not with a pattern", where=where)
    return PeftRule(
        rank=rank,
        alpha=alpha,
        dropout=dropout_of(config, "lora_dropout", where),
        target_modules=tuple(targets) if isinstance(targets, list) else _all_linear(targets),
        use_rslora=flag(config, "use_rslora", where),
        use_dora=flag(config, "use_dora", where),
        rank_pattern=ranks,
        alpha_pattern=alphas,
        exclude_modules=_names(config, "exclude_modules", where, pattern=True),
        layers=layers,
        layers_pattern=_as_tuple(_names(config, "layers_pattern", where, pattern=True)),
        modules_to_save=_as_tuple(_names(config, "modules_to_save", where)),
        ties_head=flag(config, "ensure_weight_tying", where),
    )


def _all_linear(targets: str) -> str:
    return ALL_LINEAR if targets.lower() == ALL_LINEAR else targets


def _as_tuple(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def _pattern(config: Mapping[str, Any], key: str, kinds: tuple[type, ...], where: Path) -> dict[str, Any]:
    value = config.get(key) or {}
    if not isinstance(value, dict) or not all(type(one) in kinds for one in value.values()):
        raise AdapterError(f"{key} is {told(value)}, not numbers by layers' names", where=where)
    return value


def _names(config: Mapping[str, Any], key: str, where: Path, *, pattern: bool = False) -> str | tuple[str, ...]:
    value: Any = config.get(key) or []
    if isinstance(value, str) and pattern:
        return value
    if value and not is_list_of(value, str):
        raise AdapterError(f"{key} is {told(value)}, not a list of names", where=where)
    return tuple(value)


def _layers(config: Mapping[str, Any], where: Path) -> tuple[int, ...] | None:
    value: Any = config.get("layers_to_transform")
    if value is None or value == []:
        return None
    if type(value) is not int and not is_list_of(value, int):
        raise AdapterError(f"layers_to_transform is {told(value)}, not numbers of blocks", where=where)
    return (value,) if isinstance(value, int) else tuple(value)
