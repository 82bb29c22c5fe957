"""The network's own weights as what is trained: all blocks or those at the top, and what is outside them if asked.

What has been trained is what is trainable, here as with low-rank adapters: the arrays have the network's own names, and
an adapter folder holds them as mlx-lm's ``fine_tune_type: full`` does. They stand in the place of the base's, which
must be opened again where the two are to be compared; that is the price of not keeping every weight twice. A quantized
layer has no weight that a small step could change, and is refused.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten, tree_unflatten

from mlxtune.adapters.attach import block_paths, refuse_misfits, refuse_second
from mlxtune.adapters.lora import LowRank
from mlxtune.adapters.saved import SavedModule
from mlxtune.device.dequantize import is_quantized
from mlxtune.errors import AdapterError

CONVERT = "train a model that mlxtune convert SOURCE OUT --dtype float16 has written, or LoRA"
"""The way out for a quantized base."""


@dataclass(frozen=True)
class FullShape:
    """Which of a network's weights train."""

    layers: int | Literal["all"] = "all"
    """``all``, or how many blocks at the top, those nearest the head."""
    train_embeddings: bool = False
    """Whether what is outside the blocks trains too."""


def unfreeze_weights(network: Any, shape: FullShape) -> None:
    """Make the weights that ``shape`` names trainable, and everything else not, in place.

    Raises: AdapterError, for fewer blocks than asked for, a quantized layer among them, or a network with an adapter.
    """
    refuse_second(network)
    chosen = _modules_of(network, shape)
    for path, module in chosen.items():
        refuse_quantized(path, module)
    network.freeze()
    for module in chosen.values():
        module.unfreeze(recurse=False, keys=_floats(module))


def refuse_quantized(path: str, module: Any) -> None:
    """Raises: AdapterError, if the layer at ``path`` is quantized."""
    if is_quantized(module):
        raise AdapterError(f"{path} is quantized, and full fine-tuning changes float weights", remedy=CONVERT)


def _modules_of(network: Any, shape: FullShape) -> dict[str, Any]:
    """The modules, with arrays of their own, whose weights train, by path."""
    blocks = block_paths(network)
    if shape.layers != "all" and shape.layers > len(blocks):
        raise AdapterError(
            f"the top {shape.layers} blocks are to be trained; the network has {len(blocks)}",
            remedy=f"set method.layers to all, or to {{top: N}} with N up to {len(blocks)}",
        )
    every = tuple(f"{block}." for block in blocks)
    top = every if shape.layers == "all" else every[-shape.layers :]
    modules: dict[str, Any] = dict(network.named_modules())
    return {
        path: module
        for path, module in modules.items()
        if path
        and _floats(module)
        and (f"{path}.".startswith(top) or (shape.train_embeddings and not f"{path}.".startswith(every)))
    }


def _floats(module: nn.Module) -> list[str]:
    """The names of a module's own weights that have a gradient."""
    return [
        name
        for name, array in module.items()
        if isinstance(array, mx.array) and mx.issubdtype(array.dtype, mx.floating) and not name.startswith("_")
    ]


def trained_weights(network: nn.Module) -> dict[str, mx.array]:
    """The network's own weights that train or were trained, by their names; none where the adapter is a low-rank one.

    Of a network that is frozen but for what it was given to train.
    """
    modules: dict[str, Any] = dict(network.named_modules())
    if any(isinstance(module, LowRank | SavedModule) for module in modules.values()):
        return {}
    arrays: Any = tree_flatten(network.trainable_parameters())
    return dict(arrays)


def shape_of_weights(network: Any) -> FullShape:
    """The shape with which `unfreeze_weights` would have chosen the network's trained weights.

    Raises: AdapterError, where there is none.
    """
    trained, blocks = trained_weights(network).keys(), block_paths(network)
    every = tuple(f"{block}." for block in blocks)
    top = next((len(blocks) - i for i, block in enumerate(every) if any(name.startswith(block) for name in trained)), 0)
    shape = FullShape(top, train_embeddings=any(not name.startswith(every) for name in trained))
    wanted = {f"{path}.{name}" for path, module in _modules_of(network, shape).items() for name in _floats(module)}
    if top == 0 or wanted != trained:
        odd = sorted(wanted ^ trained)
        raise AdapterError(
            f"these are not all weights of the top {top} blocks (see {odd[0]}); training cannot go on from that"
            if odd
            else "these are no weights of the blocks; training cannot go on from that",
            remedy="fuse it, and start from the model that comes out",
        )
    return FullShape("all", shape.train_embeddings) if top == len(blocks) else shape


def attach_weights(network: Any, tensors: Mapping[str, mx.array], *, as_stored: bool = False) -> None:
    """Put trained weights in the place of the network's, in place; they alone are trainable afterwards.

    The modules that hold them are replaced by copies, so that whoever has the base's own can put them back.

    Args:
        as_stored: keep their type, for whoever merges; else they get that of the weights which they replace, so that
            nothing widens what is worked out with them.

    Raises: AdapterError, for a name or shape that the network does not have, or a quantized layer.
    """
    refuse_second(network)
    modules: dict[str, Any] = dict(network.named_modules())
    misfits, by_module = [], {}
    for name, array in tensors.items():
        path, _, leaf = name.rpartition(".")
        module = modules.get(path)
        if not path or module is None or not isinstance(module.get(leaf), mx.array):
            misfits.append(f"{name} has no place in the network")
            continue
        refuse_quantized(path, module)
        if array.shape != module[leaf].shape:
            misfits.append(f"{name} is {list(array.shape)}, and the network's {list(module[leaf].shape)}")
        by_module.setdefault(path, {})[leaf] = array if as_stored else array.astype(module[leaf].dtype)
    refuse_misfits(misfits)
    network.freeze()
    outermost = {path for path in by_module if not any(path.startswith(f"{other}.") for other in by_module)}
    copies = {path: _copied(modules[path]) for path in outermost}
    network.update_modules(tree_unflatten(list(copies.items())))
    modules = dict(network.named_modules())
    for path, arrays in by_module.items():
        for leaf, array in arrays.items():
            modules[path][leaf] = array
        modules[path].unfreeze(recurse=False, keys=list(arrays))


def _copied(part: Any) -> Any:
    """A module, and what is in it, as modules of their own that share their arrays."""
    if isinstance(part, list | tuple):
        return type(part)(_copied(one) for one in part)
    if not isinstance(part, nn.Module):
        return {name: _copied(one) for name, one in part.items()} if isinstance(part, dict) else part
    twin = copy.copy(part)
    twin._no_grad = set(part._no_grad)  # the copy has a share in the module's own  # noqa: SLF001
    for name, one in part.items():
        if isinstance(one, dict | list | tuple):
            twin[name] = _copied(one)
    return twin
