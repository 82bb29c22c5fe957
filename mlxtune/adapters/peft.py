"""PEFT's half of an adapter folder: adapter_model.safetensors, and what its config has to say of it.

    base_model.model.{layer}.lora_A.weight [R, D_in], .lora_B.weight [D_out, R], .lora_magnitude_vector [D_out]
    base_model.model.{embedding}.lora_embedding_A [R, V], .lora_embedding_B [D, R], .lora_magnitude_vector [D]
    base_model.model.{module}.weight, of modules_to_save

The tensors say which layers there are, and the config has to agree; each expert of a mixture is a layer of its own.
"""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import mlx.core as mx
from mlx.utils import tree_flatten

from mlxtune.adapters.attach import adaptable_layers, block_paths
from mlxtune.adapters.full import trained_weights
from mlxtune.adapters.lora import LoRAEmbedding, LoRASwitchLinear, lora_layers
from mlxtune.adapters.names import Names, is_shifted_norm
from mlxtune.adapters.peft_rule import PeftRule, read_rule
from mlxtune.adapters.saved import saved_modules, weight_shapes
from mlxtune.adapters.stored import MERGE_WITH_PEFT, Factors, Stored, WordsMissing, checked_matrix
from mlxtune.errors import AdapterError

__all__ = ["FILE", "PeftRule", "config_of", "read_rule", "read_tensors", "tensors_of"]

T = TypeVar("T")

FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."
ENDINGS = {".lora_A.weight": "lora_a", ".lora_B.weight": "lora_b", ".lora_magnitude_vector": "m"}
ENDINGS |= {".lora_embedding_A": "lora_a", ".lora_embedding_B": "lora_b", ".lora_magnitude_vector.weight": "m"}


def read_tensors(config: dict[str, Any], rule: PeftRule, tensors: Mapping[str, mx.array], file: Path) -> Stored:
    """The tensors of adapter_model.safetensors, by layer. Raises: AdapterError, for those that the config denies."""
    parts: dict[str, dict[str, mx.array]] = {}
    saved, copies = {}, {}
    for full, array in sorted(tensors.items()):
        if not full.startswith(PREFIX):
            raise AdapterError(f"{full} is no tensor of a PEFT adapter", where=file)
        name = full.removeprefix(PREFIX)
        ending = next((ending for ending in ENDINGS if name.endswith(ending)), None)
        if ending is not None:
            layer, part = name.removesuffix(ending), ENDINGS[ending]
            matrix = checked_matrix(full, array, (1,) if part == "m" else (2,), file)
            parts.setdefault(layer, {})[part] = matrix if part == "m" else mx.contiguous(matrix.T)
            continue
        layer, _, leaf = name.rpartition(".")
        matrix = checked_matrix(full, array, (1, 2), file)
        is_tied = rule.ties_head and layer == "lm_head" and rule.modules_to_save
        if is_tied or any(_is_inside(layer, one) for one in rule.modules_to_save):
            saved.setdefault(layer, {})[leaf] = matrix
        elif leaf == "weight":
            copies[layer.removesuffix(".base_layer")] = matrix
        else:
            raise AdapterError(
                f"{full} is no part of a LoRA adapter; such adapters cannot be opened",
                where=file,
                remedy=MERGE_WITH_PEFT,
            )
    factors = {layer: _factors(layer, part, rule, file) for layer, part in parts.items()}
    if not factors and not saved:
        raise AdapterError("the adapter has no factors", where=file)
    return Stored(config, rule, factors, saved, copies)


def _is_inside(layer: str, module: str) -> bool:
    """Whether ``layer`` is a module to save or part of one; PEFT takes every name that ends with ``module``."""
    return layer.endswith(module) or f"{module}." in layer


def _factors(layer: str, part: Mapping[str, mx.array], rule: PeftRule, file: Path) -> Factors:
    if not {"lora_a", "lora_b"} <= part.keys():
        raise AdapterError(f"{layer} has only one of its two factors", where=file)
    lora_a, lora_b, m = part["lora_a"], part["lora_b"], part.get("m")
    if not rule.targets_name(layer) and not (rule.ties_head and layer == "lm_head"):
        raise AdapterError(f"there are factors for {layer}, which the config does not target", where=file)
    if lora_a.shape[1] != (rank := rule.rank_of(layer)) or lora_b.shape[0] != rank:
        raise AdapterError(
            f"the factors of {layer} have ranks {lora_a.shape[1]} and {lora_b.shape[0]}; the config says {rank}",
            where=file,
        )
    if (m is not None) != rule.use_dora:
        raise AdapterError(
            f"{layer} has {'a' if m is not None else 'no'} magnitude, and use_dora is {str(rule.use_dora).lower()}",
            where=file,
        )
    return Factors(lora_a, lora_b, m)


def tensors_of(network: Any) -> dict[str, mx.array]:
    """What PEFT's file holds of the adapter on ``network``. Raises: WordsMissing, for what PEFT has no words for."""
    if trained_weights(network):
        raise WordsMissing("these are the network's own weights, and no adapter")
    names = Names(network)
    tensors: dict[str, mx.array] = {}
    for path, layer in lora_layers(network):
        if (known := names.names_of(path)) is None:
            raise WordsMissing(f"it has no name for {path}")
        is_tied = path == names.tied_embedding
        if isinstance(layer, LoRAEmbedding) and "m" in layer and (is_tied or layer.norm_axis == 1):
            raise WordsMissing(f"its DoRA of {path} is another one")
        tensors |= _layer_tensors(known, layer)
        if is_tied:
            tensors |= {"lm_head.lora_A.weight": layer.lora_b, "lm_head.lora_B.weight": layer.lora_a}
    for path, module in saved_modules(network):
        if (known := names.names_of(path)) is None:
            raise WordsMissing(f"it has no name for {path}")
        if is_shifted_norm(names.family, weight_shapes(module.original)):
            raise WordsMissing(f"it stores {path} otherwise than mlx-lm")
        arrays: Any = tree_flatten(module.saved.parameters())
        copies = ["lm_head", *known] if path == names.tied_embedding else known
        tensors |= {f"{name}.{leaf}": array for name in copies for leaf, array in arrays}
    return {f"{PREFIX}{name}": array for name, array in tensors.items()}


def _layer_tensors(known: list[str], layer: Any) -> dict[str, mx.array]:
    """One layer's factors by PEFT's names and in its layout; ``known`` has a name for each of stacked experts."""
    if isinstance(layer, LoRASwitchLinear):
        return {
            f"{name}.{ending}": array
            for name, lora_a, lora_b in zip(known, layer.lora_a, layer.lora_b, strict=True)
            for ending, array in (("lora_A.weight", lora_a), ("lora_B.weight", lora_b))
        }
    is_embedding = isinstance(layer, LoRAEmbedding)
    endings = ("lora_embedding_A", "lora_embedding_B") if is_embedding else ("lora_A.weight", "lora_B.weight")
    factors = (mx.contiguous(layer.lora_a.T), mx.contiguous(layer.lora_b.T))
    magnitude = {f"{known[0]}.lora_magnitude_vector": layer.m} if "m" in layer else {}
    return {f"{known[0]}.{ending}": array for ending, array in zip(endings, factors, strict=True)} | magnitude


def config_of(network: Any, *, base_model: str) -> dict[str, Any]:
    """PEFT's keys of adapter_config.json, for an adapter that `tensors_of` found no fault with."""
    names, layers = Names(network), dict(lora_layers(network))
    known = {path: names.names_of(path) or [] for path in layers}
    saved = {path: (names.names_of(path) or [path])[0] for path, _ in saved_modules(network)}
    rank, rank_pattern = _with_exceptions({name: layers[path].rank for path in layers for name in known[path]})
    alpha, alpha_pattern = _with_exceptions({name: layers[path].alpha for path in layers for name in known[path]})
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": rank or 1,
        "lora_alpha": alpha or 1,
        "lora_dropout": next((layer.dropout for layer in layers.values()), 0.0),
        **_targets(network, names, known, tuple(saved.values())),
        "bias": "none",
        "inference_mode": True,
    }
    optional = {
        "rank_pattern": rank_pattern,
        "alpha_pattern": alpha_pattern,
        "use_dora": any("m" in layer for layer in layers.values()),
        "use_rslora": any(layer.use_rslora for layer in layers.values()),
        "modules_to_save": list(saved.values()),
        "ensure_weight_tying": names.tied_embedding in {*layers, *saved},
    }
    return config | {key: value for key, value in optional.items() if value}


def _with_exceptions(values: Mapping[str, T]) -> tuple[T | None, dict[str, T]]:
    """What most layers have, and by pattern what the others have: by the end of a name where that is enough."""
    if not values:
        return None, {}
    usual = Counter(values.values()).most_common(1)[0][0]
    by_leaf: dict[str, set[T]] = {}
    for name, value in values.items():
        by_leaf.setdefault(name.rpartition(".")[2], set()).add(value)
    pattern = {}
    for name, value in values.items():
        leaf = name.rpartition(".")[2]
        if value != usual:
            pattern[leaf if len(by_leaf[leaf]) == 1 else re.escape(name)] = value
    return usual, pattern


def _targets(network: Any, names: Names, known: Mapping[str, list[str]], saved: tuple[str, ...]) -> dict[str, Any]:
    """The fewest words that pick out exactly the adapted layers, ``known`` with their names."""
    blocks = block_paths(network)
    inside = {path for path in known if path.startswith(tuple(f"{block}." for block in blocks))}
    whole = [name for path in known for name in known[path]]
    ends = {name.rpartition(".")[2] for path in inside for name in known[path]}
    short = sorted(ends) + [name for path in known if path not in inside for name in known[path]]
    numbers = [i for i, block in enumerate(blocks) if any(path.startswith(f"{block}.") for path in inside)]
    word = blocks[0].split(".")[-2]
    every = adaptable_layers(network)
    for only in (None, tuple(numbers)):
        rule = PeftRule(1, 1.0, tuple(short), layers=only, layers_pattern=(word,), modules_to_save=saved)
        if short and rule.targets(network, every, names) == set(known):
            listed = {} if only is None else {"layers_to_transform": list(only), "layers_pattern": word}
            return {"target_modules": short, **listed}
    return {"target_modules": whole}
