"""Putting an adapter on a network: which of its layers get an update, and what is trainable afterwards.

A layer is named by its path in mlx-lm's network (``model.layers.0.self_attn.q_proj``). Adapted are linear layers inside
the blocks, those of a mixture's experts too, and by name what is outside them, the embedding and the head. The few
classes of linear layer that no update fits are refused rather than skipped: a user who asked for all would not hear of
it. Knows nothing of files.
"""

import difflib
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten, tree_unflatten

from mlxtune.adapters.lora import (
    LoRASwitchLinear,
    LowRank,
    adapted_kind,
    initial_factors,
    initial_magnitude,
    lora_layers,
)
from mlxtune.adapters.names import Names
from mlxtune.adapters.saved import SavedModule, can_be_saved, own_weights, saved_modules, under_adapter, with_weights
from mlxtune.adapters.shape import LoraShape, is_meant, is_named
from mlxtune.errors import AdapterError

MISFITS_SHOWN = 5
READ_PAST_THE_LAYER = {
    "gemma3n": (".prediction_coefs", ".correction_coefs"),
    "kimi_k3": tuple(
        f".{of}_res_{part}" for of in ("self_attention", "mlp", "output_attn") for part in ("proj", "norm")
    ),
    "muse_spark": (".gate",),
}
"""Layers whose weight a family's own code multiplies with, so that nothing put in the layer's place would be met."""


def attach_lora(network: Any, shape: LoraShape, *, seed: int) -> None:
    """Put an update on the layers that ``shape`` names, in place, and freeze everything else.

    The network answers as before: B starts at zero. Nothing is changed if an error is raised.

    Args:
        network: an mlx-lm network, whose ``layers`` are its blocks.
        seed: decides A, together with a layer's path; see `initial_factors`.

    Raises: AdapterError, if a name or a pattern matches nothing or an unsuited layer, if there are fewer blocks than
        asked for, or if the network has an adapter already.
    """
    refuse_second(network)
    saved = modules_to_save(network, shape.modules_to_save)
    updates = {}
    for path, module in target_layers(network, shape.target_modules, shape.layers, saved=saved).items():
        if shape.use_dora and adapted_kind(module) is LoRASwitchLinear:
            raise AdapterError(
                f"{path} is a mixture's experts, for which DoRA is not available",
                remedy="name other layers in method.target_modules, or set method.type to lora",
            )
        factors = initial_factors(module, shape.rank_of(path), seed=seed, path=path)
        m = initial_magnitude(module) if shape.use_dora else None
        updates[path] = Update(*factors, scale=shape.scale_of(path), m=m, use_rslora=shape.use_rslora)
    for key, patterns in (("rank_pattern", shape.rank_pattern), ("alpha_pattern", shape.alpha_pattern)):
        for pattern in patterns:
            if not any(is_meant(path, pattern) for path in updates):
                raise AdapterError(
                    f"method.{key} has {pattern!r}, which matches no layer that has an update",
                    remedy="write the end of a layer's name, such as v_proj, or leave it out",
                )
    attach_updates(network, updates, dropout=shape.dropout)
    save_modules(network, {path: with_weights(module, own_weights(module)) for path, module in saved.items()})


@dataclass(frozen=True)
class Update:
    """What one layer gets; arrays and settings as of `lora.LowRank`."""

    lora_a: mx.array
    lora_b: mx.array
    scale: float
    m: mx.array | None = None
    norm_axis: int = 1
    use_rslora: bool = False


def attach_updates(network: Any, updates: Mapping[str, Update], *, dropout: float = 0.0) -> None:
    """Put updates on layers, by path, in place, and freeze everything else; each of them fits its layer."""
    network.freeze()
    modules = dict(network.named_modules())
    adapted = []
    for path, update in updates.items():
        kind = adapted_kind(modules[path])
        assert kind is not None
        adapted.append((path, kind(modules[path], dropout=dropout, **vars(update))))
    network.update_modules(tree_unflatten(adapted))


def save_modules(network: Any, saved: Mapping[str, SavedModule]) -> None:
    """Put saved modules in their places, by path, in place; what they stand for stays frozen."""
    network.update_modules(tree_unflatten(list(saved.items())))
    for module in saved.values():
        module.original.freeze()


def modules_to_save(network: Any, names: Sequence[str]) -> dict[str, nn.Module]:
    """The modules that ``method.modules_to_save`` means, by path, as they are without an adapter.

    Raises: AdapterError, for a name that matches nothing, or a module that cannot be trained as a whole.
    """
    found: dict[str, nn.Module] = {}
    modules: dict[str, Any] = {
        path: module.original if isinstance(module, SavedModule) else module
        for path, module in network.named_modules()
        if path
    }
    for name in names:
        matches = {path: module for path, module in modules.items() if is_named(path, name)}
        if not matches:
            raise _no_match(name, modules, "module", "modules_to_save", network)
        for path, module in matches.items():
            if not can_be_saved(module) or is_read_past(network, path) or not own_weights(module):
                raise AdapterError(
                    f"{path} is a {type(module).__name__}, which cannot be trained as a whole",
                    remedy="name embed_tokens, lm_head, a norm or a linear layer in method.modules_to_save",
                )
            found[path] = module
    _check_ends(network, found)
    return found


def block_paths(network: Any) -> list[str]:
    """The paths of the network's blocks, lowest first: ``model.layers.0``, ``model.layers.1``, ..."""
    paths = {id(module): path for path, module in network.named_modules()}
    return [paths[id(block)] for block in network.layers]


def target_layers(
    network: Any,
    target_modules: tuple[str, ...] | Literal["all-linear"],
    layers: int | Literal["all"] = "all",
    *,
    saved: Container[str] = (),
) -> dict[str, nn.Module]:
    """The layers that a LoRA adapter of this kind sits on, by path, lowest block first.

    An adapter that is attached already does not change the answer.

    Args:
        saved: paths of modules that are trained in full, and have no update; a name may not mean only such.

    Raises: AdapterError, as `attach_lora` does.
    """
    found = block_layers(network, layers)
    if target_modules == "all-linear":
        chosen = set(found)
    else:
        blocks = tuple(f"{block}." for block in block_paths(network))
        found |= {path: layer for path, layer in adaptable_layers(network).items() if not path.startswith(blocks)}
        chosen = set()
        for name in target_modules:
            matches = {path for path in found if is_named(path, name)}
            if not matches:
                raise _no_match(name, found, "linear layer of the blocks", "target_modules", network)
            if all(path in saved for path in matches):
                raise AdapterError(
                    f"{name} is in method.target_modules and in method.modules_to_save", remedy="leave it out of one"
                )
            chosen |= matches
    chosen = {path for path in chosen if path not in saved}
    for path in sorted(chosen):
        if adapted_kind(found[path]) is None:
            leaves = sorted({path.rsplit(".", 1)[-1] for path in found if adapted_kind(found[path]) is not None})
            raise AdapterError(
                f"{path} is a {type(found[path]).__name__}, a layer that LoRA is not available for",
                remedy=f"name others in method.target_modules: {', '.join(leaves)}",
            )
    _check_ends(network, chosen)
    return {path: module for path, module in found.items() if path in chosen}


def _check_ends(network: Any, paths: Iterable[str]) -> None:
    """Raises: AdapterError, for an embedding or head whose weight the family's code reads past the layer."""
    blocks = tuple(f"{block}." for block in block_paths(network))
    modules = dict(network.named_modules())
    for path in paths:
        layer = under_adapter(modules[path])
        outside = not path.startswith(blocks) and isinstance(
            layer, nn.Linear | nn.QuantizedLinear | nn.Embedding | nn.QuantizedEmbedding
        )
        if outside and (names := Names(network)).is_reading_weights:
            raise AdapterError(
                f"what {names.family} does with its {path} is not known, so it cannot be trained",
                remedy="leave it out of method.target_modules and method.modules_to_save",
            )


def block_layers(network: Any, layers: int | Literal["all"] = "all") -> dict[str, nn.Module]:
    """The linear layers of the top blocks, by path, those of experts and those that no update fits included.

    A layer under an attached adapter counts as the layer it was.
    Raises: AdapterError, if there are fewer blocks than asked for.
    """
    blocks = block_paths(network)
    if layers != "all":
        if layers > len(blocks):
            raise AdapterError(
                f"the adapter asks for the top {layers} blocks; the network has {len(blocks)}",
                remedy=f"set method.layers to all, or to {{top: N}} with N up to {len(blocks)}",
            )
        blocks = blocks[-layers:]
    every = adaptable_layers(network)
    return {
        path: module
        for block in blocks
        for path, module in every.items()
        if path.startswith(f"{block}.") and not isinstance(module, nn.Embedding | nn.QuantizedEmbedding)
    }


def adaptable_layers(network: Any) -> dict[str, nn.Module]:
    """Every linear layer and embedding of a network by path, as they are without an adapter."""
    modules = dict(network.named_modules())
    found: dict[str, nn.Module] = {}
    for path in reversed(modules):  # as the network lists them
        module = modules[path]
        if is_read_past(network, path):
            continue
        if isinstance(module, SavedModule):
            module = module.original
        if isinstance(module, LowRank):
            found[path] = module.base
        elif not isinstance(modules.get(path.rpartition(".")[0]), LowRank | SavedModule) and _is_adaptable(module):
            found[path] = module
    return found


def is_read_past(network: Any, path: str) -> bool:
    """Whether the layer at ``path`` is one of READ_PAST_THE_LAYER."""
    return path.endswith(READ_PAST_THE_LAYER.get(type(network).__module__.rpartition(".")[2], ()))


def _is_adaptable(module: nn.Module) -> bool:
    """Whether mlx_lm puts an update on such a layer; `adapted_kind` says whether we do."""
    kinds = nn.Linear | nn.QuantizedLinear | nn.Embedding | nn.QuantizedEmbedding
    return adapted_kind(module) is not None or isinstance(module, kinds) or hasattr(module, "to_lora")


def adapter_parameters(network: nn.Module) -> dict[str, mx.array]:
    """The arrays of an attached adapter by their names in the network, which are mlx-lm's; factors are float32.

    ``{layer}.lora_a`` and ``{layer}.lora_b``, with DoRA ``{layer}.m``; of saved modules ``{module}.saved.weight``;
    without either, the weights of the network's own that train (`full.trained_weights`).
    """
    parameters: dict[str, mx.array] = {}
    for path, layer in lora_layers(network):
        parameters |= {f"{path}.{name}": layer[name] for name in layer.factors}
    for path, module in saved_modules(network):
        arrays: Any = tree_flatten(module.saved.parameters())
        parameters |= {f"{path}.saved.{name}": array for name, array in arrays}
    if not parameters:
        parameters = tree_flatten(network.trainable_parameters(), destination={})  # pyright: ignore[reportAssignmentType]
    return parameters


def load_adapter_parameters(network: nn.Module, parameters: Mapping[str, mx.array]) -> None:
    """Give the attached adapter these factors, in float32; all of them, or none if one does not fit.

    Raises: AdapterError, naming what is missing, not in the network, or of another shape.
    """
    present = adapter_parameters(network)
    misfits = [f"{name} is missing" for name in present if name not in parameters]
    for name, array in parameters.items():
        if name not in present:
            misfits.append(f"{name} has no place in the network")
        elif array.shape != present[name].shape:
            misfits.append(f"{name} is {list(array.shape)}, the network's layer takes {list(present[name].shape)}")
    refuse_misfits(misfits)
    network.update(tree_unflatten([(name, array.astype(present[name].dtype)) for name, array in parameters.items()]))


def refuse_second(network: Any) -> None:
    """Raises: AdapterError, if the network has an adapter."""
    if lora_layers(network) or saved_modules(network):
        raise AdapterError("the network has an adapter already", remedy="fuse it, then start from the result")


def refuse_misfits(misfits: Sequence[str]) -> None:
    """Raises: AdapterError, if there are any; it names the first."""
    if misfits:
        shown = "; ".join(misfits[:MISFITS_SHOWN])
        more = f"; and {len(misfits) - MISFITS_SHOWN} more" if len(misfits) > MISFITS_SHOWN else ""
        raise AdapterError(
            f"the adapter does not fit the network: {shown}{more}", remedy="use the base model it was trained on"
        )


def _no_match(name: str, found: Mapping[str, nn.Module], what: str, key: str, network: Any) -> AdapterError:
    tied = Names(network).tied_embedding
    if name == "lm_head" and tied is not None:
        embedding = tied.rpartition(".")[2]
        return AdapterError(
            f"the network's head is its embedding, so there is no lm_head for method.{key}",
            remedy=f"name {embedding}, which trains both",
        )
    leaves = sorted({path.rsplit(".", 1)[-1] for path in found if not path.rsplit(".", 1)[-1].isdigit()})
    nearest = difflib.get_close_matches(name, leaves, n=1)
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    kind = "target module" if key == "target_modules" else f"method.{key}:"
    return AdapterError(
        f"{kind} {name!r} matches no {what}",
        remedy=f"{hint}the network's blocks have {', '.join(leaves)}"
        if key == "target_modules"
        else f"{hint}the network has {', '.join(leaves)}",
    )
