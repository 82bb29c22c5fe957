"""The shape of an adapter that is on a network: what `attach_lora` would have been asked for.

So a run can go on from an adapter that it did not begin, in its own recipe's words. Layers that differ from most are
named one by one. Knows networks; nothing of files.
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, TypeVar

from mlxtune.adapters.attach import block_paths, target_layers
from mlxtune.adapters.lora import LoRAEmbedding, lora_layers
from mlxtune.adapters.saved import SeparateHead, saved_modules
from mlxtune.adapters.shape import LoraShape
from mlxtune.errors import AdapterError

T = TypeVar("T")


def shape_of_adapter(network: Any) -> LoraShape:
    """The shape with which `attach_lora` would have put the network's adapter there.

    Raises: AdapterError, for an adapter of another kind, which training does not go on from.
    """
    layers, saved = dict(lora_layers(network)), tuple(path for path, _ in saved_modules(network))
    embeddings = [layer for layer in layers.values() if isinstance(layer, LoRAEmbedding)]
    kinds = {
        "whole modules alone": not layers,
        "a head parted from its embedding": any(isinstance(module, SeparateHead) for module in network.modules()),
        "PEFT's DoRA of an embedding": any("m" in layer and layer.norm_axis == 0 for layer in embeddings),
    }
    if odd := [kind for kind, is_there in kinds.items() if is_there]:
        raise AdapterError(
            f"the adapter has {', '.join(odd)}; training cannot go on from that",
            remedy="fuse it, and train a new adapter on the result",
        )
    rank, rank_pattern = _with_exceptions({path: layer.rank for path, layer in layers.items()})
    alpha, alpha_pattern = _with_exceptions({path: layer.alpha for path, layer in layers.items()})
    one = next(iter(layers.values()))
    names, top = _targets(network, layers, saved)
    return LoraShape(
        rank=rank,
        alpha=alpha,
        dropout=one.dropout,
        target_modules=names,
        layers=top,
        use_rslora=one.use_rslora,
        use_dora="m" in one,
        rank_pattern=rank_pattern,
        alpha_pattern=alpha_pattern,
        modules_to_save=saved,
    )


def _with_exceptions(values: Mapping[str, T]) -> tuple[T, dict[str, T]]:
    """What most layers have, and what the others have, each by its whole path."""
    usual = Counter(values.values()).most_common(1)[0][0]
    return usual, {re.escape(path): value for path, value in values.items() if value != usual}


def _targets(network: Any, layers: Mapping[str, Any], saved: tuple[str, ...]) -> tuple[tuple[str, ...], Any]:
    """Names that mean exactly the adapted layers, and the blocks: last names where these are enough, else paths."""
    blocks = block_paths(network)
    inside = {path for path in layers if path.startswith(tuple(f"{block}." for block in blocks))}
    lowest = (i for i, block in enumerate(blocks) if any(path.startswith(f"{block}.") for path in inside))
    top = len(blocks) - next(lowest, 0)
    names = tuple(sorted({path.rpartition(".")[2] for path in inside} | (layers.keys() - inside)))
    found = target_layers(network, names, top, saved=saved)
    return names if found.keys() == layers.keys() else tuple(layers), "all" if top == len(blocks) else top
