"""Putting an adapter on a network: which of its layers get an update, and what is trainable afterwards.

A layer is named by its path in mlx-lm's network (``model.layers.0.self_attn.q_proj``). A training run adapts linear
layers inside the blocks, those of a mixture's experts too; an adapter that comes in may also be on the embedding and
the head. The few classes of linear layer that no update fits are refused rather than skipped: a user who asked for all
would not hear of it. Knows nothing of files.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten, tree_unflatten

from mlxtune.adapters.lora import LowRank, adapted_kind, initial_factors, lora_layers
from mlxtune.adapters.saved import saved_modules
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


@dataclass(frozen=True)
class LoraShape:
    """What a LoRA adapter looks like, whatever its numbers are. Raises AdapterError for values that mean nothing."""

    rank: int
    alpha: float
    dropout: float = 0.0
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Names a layer's path ends with, as in PEFT: ``q_proj`` or ``self_attn.q_proj``."""
    layers: int | Literal["all"] = "all"
    """``all``, or how many blocks at the top, those nearest the head."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise AdapterError(f"a LoRA rank is at least 1, not {self.rank}", remedy="raise method.rank")
        if not 0.0 < self.alpha < float("inf"):
            raise AdapterError(f"a LoRA alpha is a number above 0, not {self.alpha}", remedy="raise method.alpha")
        if not 0.0 <= self.dropout < 1.0:
            raise AdapterError(
                f"a LoRA dropout is at least 0 and below 1, not {self.dropout}", remedy="choose another method.dropout"
            )
        if self.layers != "all" and self.layers < 1:
            raise AdapterError(
                f"a LoRA adapter has at least 1 block, not {self.layers}",
                remedy="raise method.layers, or set it to all",
            )
        if not self.target_modules:
            raise AdapterError(
                "a LoRA adapter has at least one target module", remedy="name some in method.target_modules"
            )

    @property
    def scale(self) -> float:
        """What a layer's B A is multiplied with: alpha / rank, as in PEFT."""
        return self.alpha / self.rank


def attach_lora(network: Any, shape: LoraShape, *, seed: int) -> None:
    """Put an update on the layers that ``shape`` names, in place, and freeze everything else.

    The network answers as before: B starts at zero. Nothing is changed if an error is raised.

    Args:
        network: an mlx-lm network, whose ``layers`` are its blocks.
        seed: decides A, together with a layer's path; see `initial_factors`.

    Raises: AdapterError, if a target matches nothing or an unsuited layer, if there are fewer blocks than asked for, or
        if the network has an adapter already.
    """
    refuse_second(network)
    updates = {}
    for path, module in target_layers(network, shape.target_modules, shape.layers).items():
        updates[path] = Update(*initial_factors(module, shape.rank, seed=seed, path=path), scale=shape.scale)
    attach_updates(network, updates, dropout=shape.dropout)


@dataclass(frozen=True)
class Update:
    """What one layer gets; arrays and settings as of `lora.LowRank`."""

    lora_a: mx.array
    lora_b: mx.array
    scale: float
    m: mx.array | None = None
    norm_axis: int = 1


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


def block_paths(network: Any) -> list[str]:
    """The paths of the network's blocks, lowest first: ``model.layers.0``, ``model.layers.1``, ..."""
    paths = {id(module): path for path, module in network.named_modules()}
    return [paths[id(block)] for block in network.layers]


def target_layers(
    network: Any, target_modules: tuple[str, ...] | Literal["all-linear"], layers: int | Literal["all"] = "all"
) -> dict[str, nn.Module]:
    """The linear layers that a LoRA adapter of this kind sits on, by path, lowest block first.

    An adapter that is attached already does not change the answer.
    Raises: AdapterError, as `attach_lora` does.
    """
    found = block_layers(network, layers)
    if target_modules == "all-linear":
        chosen = set(found)
    else:
        chosen = set()
        for name in target_modules:
            matches = {path for path in found if is_named(path, name)}
            if not matches:
                raise _no_match(name, found)
            chosen |= matches
    for path in sorted(chosen):
        if adapted_kind(found[path]) is None:
            leaves = sorted({path.rsplit(".", 1)[-1] for path in found if adapted_kind(found[path]) is not None})
            raise AdapterError(
                f"{path} is a {type(found[path]).__name__}, a layer that LoRA is not available for",
                remedy=f"name others in method.target_modules: {', '.join(leaves)}",
            )
    return {path: module for path, module in found.items() if path in chosen}


def is_named(path: str, name: str) -> bool:
    """Whether the target ``name`` means the layer at ``path``, by PEFT's rule: the whole path, or its end."""
    return path == name or path.endswith(f".{name}")


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
        if isinstance(module, LowRank):
            found[path] = module.base
        elif not isinstance(modules.get(path.rpartition(".")[0]), LowRank) and _is_adaptable(module):
            found[path] = module
    return found


def is_read_past(network: Any, path: str) -> bool:
    """Whether the layer at ``path`` is one of READ_PAST_THE_LAYER."""
    return path.endswith(READ_PAST_THE_LAYER.get(type(network).__module__.rpartition(".")[2], ()))


def _is_adaptable(module: nn.Module) -> bool:
    """Whether mlx_lm puts an update on such a layer; `adapted_kind` says whether we do."""
    kinds = nn.Linear | nn.QuantizedLinear | nn.Embedding | nn.QuantizedEmbedding
    return adapted_kind(module) is not None or isinstance(module, kinds) or hasattr(module, "to_lora")


def shape_in_training(network: Any) -> LoraShape:
    """The shape with which `attach_lora` would have put the network's adapter there.

    Raises: AdapterError, for an adapter of another kind, which training does not go on from.
    """
    layers = dict(lora_layers(network))
    kinds = {
        "whole modules": bool(saved_modules(network)),
        "DoRA": any("m" in layer for layer in layers.values()),
        "ranks that differ by layer": len({layer.rank for layer in layers.values()}) > 1,
        "alphas that differ by layer": len({layer.scale for layer in layers.values()}) > 1,
        "an update of the embedding or the head": not layers.keys() <= block_layers(network).keys(),
    }
    if odd := [kind for kind, is_there in kinds.items() if is_there]:
        raise AdapterError(
            f"the adapter has {', '.join(odd)}; training cannot go on from that",
            remedy="fuse it, and train a new adapter on the result",
        )
    blocks = block_paths(network)
    top = next(
        len(blocks) - i for i, block in enumerate(blocks) if any(path.startswith(f"{block}.") for path in layers)
    )
    names = tuple(sorted({path.rpartition(".")[2] for path in layers}))
    if target_layers(network, names, top).keys() != layers.keys():
        names = tuple(layers)
    one = next(iter(layers.values()))
    return LoraShape(one.rank, one.alpha, one.dropout, names, "all" if top == len(blocks) else top)


def adapter_parameters(network: nn.Module) -> dict[str, mx.array]:
    """The arrays of an attached adapter by their names in the network, which are mlx-lm's; factors are float32.

    ``{layer}.lora_a`` and ``{layer}.lora_b``, with DoRA ``{layer}.m``; of saved modules ``{module}.saved.weight``.
    """
    parameters: dict[str, mx.array] = {}
    for path, layer in lora_layers(network):
        parameters |= {f"{path}.{name}": layer[name] for name in layer.factors}
    for path, module in saved_modules(network):
        arrays: Any = tree_flatten(module.saved.parameters())
        parameters |= {f"{path}.saved.{name}": array for name, array in arrays}
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


def _no_match(name: str, found: Mapping[str, nn.Module]) -> AdapterError:
    leaves = sorted({path.rsplit(".", 1)[-1] for path in found})
    nearest = difflib.get_close_matches(name, leaves, n=1)
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    return AdapterError(
        f"target module {name!r} matches no linear layer of the blocks",
        remedy=f"{hint}the network's blocks have {', '.join(leaves)}",
    )
