"""Putting LoRA on a network: which of its layers get an update, and what is trainable afterwards.

A layer is named by its path in mlx-lm's network (``model.layers.0.self_attn.q_proj``). Only plain linear layers inside
the blocks are adapted, never the embedding or the head. Layers of experts, and the few classes of linear layer with
outputs of their own shape, are refused rather than skipped: a user who asked for all would not hear of it.
Knows nothing of files.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_unflatten

from mlxtune.adapters.lora import LoRALinear, initial_factors, lora_layers
from mlxtune.errors import AdapterError

MISFITS_SHOWN = 5


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
            raise AdapterError(f"a LoRA rank is at least 1, not {self.rank}")
        if not 0.0 < self.alpha < float("inf"):
            raise AdapterError(f"a LoRA alpha is a number above 0, not {self.alpha}")
        if not 0.0 <= self.dropout < 1.0:
            raise AdapterError(f"a LoRA dropout is at least 0 and below 1, not {self.dropout}")
        if self.layers != "all" and self.layers < 1:
            raise AdapterError(f"a LoRA adapter has at least 1 block, not {self.layers}")
        if not self.target_modules:
            raise AdapterError("a LoRA adapter has at least one target module")

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
    if lora_layers(network):
        raise AdapterError("the network has an adapter already", remedy="fuse it, then start from the result")
    targets = target_layers(network, shape.target_modules, shape.layers)
    network.freeze()
    adapted = []
    for path, linear in targets.items():
        input_dims, output_dims = linear_dims(linear)
        lora_a, lora_b = initial_factors(input_dims, output_dims, shape.rank, seed=seed, path=path)
        adapted.append((path, LoRALinear(linear, lora_a, lora_b, scale=shape.scale, dropout=shape.dropout)))
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
    plain, unsuited = block_linear_layers(network, layers)
    if target_modules == "all-linear":
        chosen = set(plain) | unsuited
    else:
        chosen = set()
        for name in target_modules:
            matches = {path for path in [*plain, *unsuited] if is_named(path, name)}
            if not matches:
                raise _no_match(name, plain)
            chosen |= matches
    if refused := sorted(chosen & unsuited):
        leaves = sorted({path.rsplit(".", 1)[-1] for path in plain})
        raise AdapterError(
            f"{refused[0]} is no plain linear layer (experts of a mixture share one layer); "
            "LoRA on such layers is not available",
            remedy=f"name the plain ones in method.target_modules: {', '.join(leaves)}",
        )
    return {path: module for path, module in plain.items() if path in chosen}


def is_named(path: str, name: str) -> bool:
    """Whether the target ``name`` means the layer at ``path``, by PEFT's rule: the whole path, or its end."""
    return path == name or path.endswith(f".{name}")


def block_linear_layers(network: Any, layers: int | Literal["all"]) -> tuple[dict[str, nn.Module], set[str]]:
    """The linear layers of the top blocks: the plain ones by path, and the paths of those that need another LoRA.

    A layer under an attached adapter counts as the plain layer it was.
    Raises: AdapterError, if there are fewer blocks than asked for.
    """
    # Here, not above: mlx_lm takes 0.6 s to import, and whoever has a network has imported it.
    from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear

    blocks = block_paths(network)
    if layers != "all":
        if layers > len(blocks):
            raise AdapterError(
                f"the adapter asks for the top {layers} blocks; the network has {len(blocks)}",
                remedy=f"set method.layers to all, or to {{top: N}} with N up to {len(blocks)}",
            )
        blocks = blocks[-layers:]
    modules = dict(network.named_modules())
    plain: dict[str, nn.Module] = {}
    unsuited: set[str] = set()
    for block in blocks:
        for path in reversed([path for path in modules if path.startswith(f"{block}.")]):  # as the network lists them
            module = modules[path]
            if isinstance(module, LoRALinear):
                plain[path] = module.linear
            elif isinstance(modules.get(path.rpartition(".")[0]), LoRALinear):
                continue
            elif type(module) in (nn.Linear, nn.QuantizedLinear):
                plain[path] = module
            elif hasattr(module, "to_lora") or isinstance(
                module, nn.Linear | nn.QuantizedLinear | SwitchLinear | QuantizedSwitchLinear
            ):
                unsuited.add(path)
    return plain, unsuited


def linear_dims(linear: Any) -> tuple[int, int]:
    """D_in and D_out of a plain or quantized linear layer."""
    output_dims, width = linear.weight.shape
    return (width * 32 // linear.bits if isinstance(linear, nn.QuantizedLinear) else width), output_dims


def adapter_parameters(network: nn.Module) -> dict[str, mx.array]:
    """The factors of an attached adapter by mlx-lm's names, ``{layer}.lora_a`` and ``{layer}.lora_b``, float32."""
    parameters: dict[str, mx.array] = {}
    for path, layer in lora_layers(network):
        parameters[f"{path}.lora_a"] = layer.lora_a
        parameters[f"{path}.lora_b"] = layer.lora_b
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
    if misfits:
        shown = "; ".join(misfits[:MISFITS_SHOWN])
        more = f"; and {len(misfits) - MISFITS_SHOWN} more" if len(misfits) > MISFITS_SHOWN else ""
        raise AdapterError(
            f"the adapter does not fit the network: {shown}{more}", remedy="use the base model it was trained on"
        )
    for path, layer in lora_layers(network):
        layer.lora_a = parameters[f"{path}.lora_a"].astype(mx.float32)
        layer.lora_b = parameters[f"{path}.lora_b"].astype(mx.float32)


def _no_match(name: str, plain: Mapping[str, nn.Module]) -> AdapterError:
    leaves = sorted({path.rsplit(".", 1)[-1] for path in plain})
    nearest = difflib.get_close_matches(name, leaves, n=1)
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    return AdapterError(
        f"target module {name!r} matches no linear layer of the blocks",
        remedy=f"{hint}the network's blocks have {', '.join(leaves)}",
    )
