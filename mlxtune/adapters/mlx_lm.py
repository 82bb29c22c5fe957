"""mlx-lm's half of an adapter folder: its config, and adapters.safetensors.

    {layer}.lora_a [D_in, R], {layer}.lora_b [R, D_out], {layer}.m [D_out] in DoRA
    {layer of E experts}.lora_a [E, R, D_in], .lora_b [E, D_out, R]
    {embedding}.lora_a [V, R], .lora_b [R, D], .m [V]

One rank and one scale hold for all layers. What is put on an embedding is put on a head tied to it, too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn

from mlxtune.adapters.attach import adaptable_layers, adapter_parameters, block_paths
from mlxtune.adapters.full import shape_of_weights, trained_weights
from mlxtune.adapters.lora import LoRAEmbedding, lora_layers
from mlxtune.adapters.names import Names
from mlxtune.adapters.saved import SeparateHead, saved_modules
from mlxtune.adapters.stored import (
    Factors,
    Stored,
    WordsMissing,
    checked_matrix,
    checked_rank,
    dropout_of,
    flag,
    integer,
    is_list_of,
    number,
    told,
)
from mlxtune.device.dequantize import is_quantized
from mlxtune.errors import AdapterError

FILE = "adapters.safetensors"
PARTS = ("lora_a", "lora_b", "m")


@dataclass(frozen=True)
class MlxLmRule:
    """Which layers have an update: by whole paths, or by paths inside the top blocks."""

    rank: int
    scale: float
    num_layers: int
    """At the top; all where there are fewer, or where it is below 1."""
    keys: frozenset[str] | None = None
    """None is every layer of those blocks."""
    dropout: float = 0.0
    use_dora: bool = False
    ties_head: bool = True
    embedding_norm_axis: int = 1
    use_rslora: bool = False
    """As PEFT's half of the config has it: what ``scale`` was made by."""

    def scale_of(self, name: str) -> float:  # noqa: ARG002 - the same for all
        """What the product of a layer is multiplied with."""
        return self.scale

    def targets(self, network: Any, layers: Mapping[str, nn.Module], names: Names) -> set[str]:  # noqa: ARG002 - as PEFT's
        """The paths of those of a network's ``layers`` that have an update."""
        blocks = tuple(f"{block}." for block in block_paths(network)[-max(self.num_layers, 0) :])
        inside = {path: path.removeprefix(block) for block in blocks for path in layers if path.startswith(block)}
        if self.keys is None:
            return set(inside)
        return {path for path in layers if path in self.keys or inside.get(path) in self.keys}


def read_rule(config: Mapping[str, Any], where: Path) -> MlxLmRule:
    """What a config says. Raises: AdapterError, naming the first setting that cannot be used."""
    kind = config.get("fine_tune_type", "lora")
    if kind == "full":
        raise AdapterError(
            "fine_tune_type is 'full': these are the network's own weights, and no low-rank adapter",
            where=where,
            remedy="fuse them into a model: mlxtune fuse",
        )
    if kind not in ("lora", "dora"):
        raise AdapterError(f"fine_tune_type is {told(kind)}; lora and dora can be opened", where=where)
    settings = config["lora_parameters"]
    if not isinstance(settings, dict):
        raise AdapterError("lora_parameters is no mapping", where=where)
    keys: Any = settings.get("keys")
    if keys is not None and not is_list_of(keys, str):
        raise AdapterError("lora_parameters.keys is no list of names", where=where)
    rank, scale = integer(settings, "rank", where), number(settings, "scale", where)
    checked_rank(rank, scale, where)
    return MlxLmRule(
        rank=rank,
        scale=scale,
        num_layers=integer(config, "num_layers", where),
        keys=None if keys is None else frozenset(keys),
        dropout=dropout_of(settings, "dropout", where),
        use_dora=kind == "dora",
        use_rslora=flag(config, "use_rslora", where),
    )


def read_tensors(config: dict[str, Any], rule: MlxLmRule, tensors: Mapping[str, mx.array], file: Path) -> Stored:
    """The tensors of adapters.safetensors, by layer. Raises: AdapterError, for those that the config denies."""
    parts: dict[str, dict[str, mx.array]] = {}
    for name, array in sorted(tensors.items()):
        layer, _, part = name.rpartition(".")
        if part not in PARTS:
            raise AdapterError(f"{name} is no part of a LoRA adapter; such adapters cannot be opened", where=file)
        parts.setdefault(layer, {})[part] = checked_matrix(name, array, (1,) if part == "m" else (2, 3), file)
    if not parts:
        raise AdapterError("the adapter has no factors", where=file)
    for layer, part in parts.items():
        if not {"lora_a", "lora_b"} <= part.keys() or part["lora_a"].ndim != part["lora_b"].ndim:
            raise AdapterError(f"{layer} has only one of its two factors", where=file)
        a_rank = part["lora_a"].shape[1]
        b_rank = part["lora_b"].shape[0 if part["lora_b"].ndim == 2 else -1]  # noqa: PLR2004 - of a matrix, of experts
        if a_rank != rule.rank or b_rank != rule.rank:
            raise AdapterError(
                f"the factors of {layer} have ranks {a_rank} and {b_rank}; the config says {rule.rank}", where=file
            )
        if ("m" in part) != rule.use_dora:
            said = "dora" if rule.use_dora else "lora"
            raise AdapterError(
                f"{layer} has {'a' if 'm' in part else 'no'} magnitude, and fine_tune_type is {said}", where=file
            )
    return Stored(config, rule, {layer: Factors(**part) for layer, part in parts.items()})


def tensors_of(network: Any) -> dict[str, mx.array]:
    """What mlx-lm's file holds of the adapter on ``network``. Raises: WordsMissing, for what it has no words for."""
    if weights := trained_weights(network):
        return weights
    layers = [layer for _, layer in lora_layers(network)]
    if saved_modules(network):
        raise WordsMissing("it knows no modules_to_save")
    if any(isinstance(module, SeparateHead) for module in network.modules()):
        raise WordsMissing("it ties the head to the embedding, which this adapter changes without the other")
    if len({layer.rank for layer in layers}) > 1:
        raise WordsMissing("ranks differ by layer")
    if len({layer.scale for layer in layers}) > 1:
        raise WordsMissing("alpha differs by layer")
    embeddings = [layer for layer in layers if isinstance(layer, LoRAEmbedding) and "m" in layer]
    if any(layer.norm_axis == 0 or is_quantized(layer.base) for layer in embeddings):
        raise WordsMissing("its DoRA of embeddings is another one")
    return adapter_parameters(network)


def config_of(network: Any) -> dict[str, Any]:
    """mlx-lm's keys of adapter_config.json, for an adapter that `tensors_of` found no fault with."""
    layers, blocks = dict(lora_layers(network)), block_paths(network)
    if not layers:
        shape = shape_of_weights(network)
        return {"fine_tune_type": "full", "num_layers": len(blocks) if shape.layers == "all" else shape.layers}
    lowest = next((i for i, block in enumerate(blocks) if any(path.startswith(f"{block}.") for path in layers)), 0)
    top = len(blocks) - lowest
    inside = {path.removeprefix(f"{block}.") for block in blocks for path in layers if path.startswith(f"{block}.")}
    keys = sorted(inside) + [path for path in layers if not path.startswith(tuple(f"{block}." for block in blocks))]
    one = next(iter(layers.values()))
    rule = MlxLmRule(one.rank, one.scale, top, frozenset(keys))
    if rule.targets(network, adaptable_layers(network), Names(network)) != set(layers):
        keys = list(layers)  # whole paths: mlx-lm looks for those after looking inside the blocks
    settings = {"rank": one.rank, "scale": one.scale, "dropout": one.dropout, "keys": keys}
    return {
        "fine_tune_type": "dora" if "m" in one else "lora",
        "num_layers": top,
        "lora_parameters": settings,
        **({"use_rslora": True} if one.use_rslora else {}),
    }
