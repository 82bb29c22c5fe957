"""A base network plus an adapter folder: the network that the adapter was trained to be.

The tensors in the folder say which layers have an update, and the config has to agree with them. Each must find its
layer in the network and fit it. Whether the base is the one that the adapter was trained on cannot be seen in the
numbers; a run folder has its hash and is compared above.
"""

from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_unflatten

from mlxtune.adapters.attach import (
    Update,
    adaptable_layers,
    adapter_parameters,
    attach_updates,
    is_read_past,
    refuse_misfits,
    refuse_second,
    save_modules,
)
from mlxtune.adapters.format import is_full, located, read_adapter, read_config, read_weights
from mlxtune.adapters.full import attach_weights
from mlxtune.adapters.lora import LoRAEmbedding, LoRASwitchLinear, adapted_kind, base_weight
from mlxtune.adapters.names import Names, is_shifted_norm
from mlxtune.adapters.peft import PeftRule
from mlxtune.adapters.saved import (
    SavedModule,
    can_be_saved,
    separate_head,
    weight_shapes,
    with_weights,
)
from mlxtune.adapters.stored import MERGE_WITH_PEFT, Factors, Stored
from mlxtune.device.dequantize import is_quantized
from mlxtune.errors import AdapterError

HEAD = "lm_head"
COPIED_NEARLY = 0.01
"""How far a copy of the base's embedding may be from it, as a share of its largest weight: a float16 one is rounded."""


def attach_adapter(network: Any, folder: Path, *, as_stored: bool = False) -> dict[str, Any]:
    """Put the adapter in ``folder`` on ``network``, in place; its arrays alone are trainable afterwards.

    Args:
        folder: written by mlxtune, mlx-lm or PEFT.
        as_stored: for whoever merges or trains: weights of full fine-tuning keep the precision that the folder has.

    Returns: its config, as it is.
    Raises: AdapterError, if the folder cannot be read or does not fit the network, which is then not to be used.
    """
    config = read_config(folder)
    try:
        if is_full(config):
            attach_weights(network, read_weights(folder), as_stored=as_stored)
            return config
        stored = read_adapter(folder)
        refuse_second(network)
        _attach(network, stored)
    except AdapterError as error:
        raise located(error, folder) from error
    mx.eval(adapter_parameters(network))  # and not the base's, which whoever merges reads one by one
    return config


def _attach(network: Any, stored: Stored) -> None:
    by_peft = isinstance(stored.rule, PeftRule)
    names = Names(network)
    if by_peft and names.is_rewritten:
        raise AdapterError(
            f"mlx-lm rewrites the weights of {names.family}, so PEFT's factors do not fit them",
            remedy=MERGE_WITH_PEFT,
        )
    if ends := _ends(stored, names, adaptable_layers(network)):
        if names.is_reading_weights or (by_peft and not names.has_known_head):
            raise AdapterError(
                f"the adapter is on {ends[0]}, and what {names.family} does with it is not known",
                remedy=MERGE_WITH_PEFT if by_peft else "train one without that layer",
            )
        if by_peft and names.is_head_rewritten and HEAD in ends:
            raise AdapterError(
                f"mlx-lm rewrites the weights of {names.family}'s head, so what PEFT has for it does not fit them",
                remedy=MERGE_WITH_PEFT,
            )
        if names.tied_embedding is not None:
            stored = _with_tied_head(network, stored, names)
            names = Names(network)
    layers = adaptable_layers(network)
    updates, misfits = _updates(stored, names, layers)
    targets = stored.rule.targets(network, layers, names)
    misfits += [
        f"{path} has factors, and the config does not target it"
        for path in sorted(updates.keys() - targets)
        if names.names_of(path) is not None or not by_peft
    ]
    if not misfits:
        # A mixture's layers are others in PEFT, by the version of transformers: its file says which there are.
        absent = sorted(targets - updates.keys())
        misfits = [f"{path}.lora_a is missing" for path in absent if not (by_peft and _is_in_mixture(path, layers))]
    saved = _saved(network, stored, names, misfits)
    _check_copies(network, stored, names, misfits)
    refuse_misfits(misfits)
    attach_updates(network, updates, dropout=stored.rule.dropout)
    save_modules(network, saved)


def _ends(stored: Stored, names: Names, layers: dict[str, nn.Module]) -> list[str]:
    """The layers of an adapter that are an embedding or the head."""
    every = {name: names.place_of(name) for name in [*stored.factors, *stored.saved]}
    return [
        name
        for name, place in every.items()
        if name == HEAD or (place is not None and adapted_kind(layers.get(place[0])) is LoRAEmbedding)
    ]


def _with_tied_head(network: Any, stored: Stored, names: Names) -> Stored:
    """What ``stored`` means for a network whose head is its embedding: one layer still, or two that go apart.

    Raises: AdapterError, for a head that is said to be tied, and has an update of its own.
    """
    path = names.tied_embedding
    assert path is not None
    twins = {name for name in stored.factors.keys() | stored.saved.keys() if names.place_of(name) == (path, None)}
    if not stored.rule.ties_head:
        network.update_modules(tree_unflatten([(path, separate_head(dict(network.named_modules())[path]))]))
        return stored
    factors, saved = dict(stored.factors), dict(stored.saved)
    head, whole_head = factors.pop(HEAD, None), saved.pop(HEAD, None)
    own = next((factors[name] for name in twins if name in factors), None)
    whole = next((saved[name] for name in twins if name in saved), None)
    if (head is not None and not _are_transposed(head, own)) or (
        whole_head is not None and not _are_equal(whole_head, whole)
    ):
        raise AdapterError("the adapter's head is not its embedding's, though its config says ensure_weight_tying")
    return Stored(stored.config, stored.rule, factors, saved, stored.copies)


def _are_transposed(head: Factors, embedding: Factors | None) -> bool:
    if embedding is None or head.m is not None or embedding.m is not None:
        return False
    return _are_equal({"a": head.lora_a, "b": head.lora_b}, {"a": embedding.lora_b.T, "b": embedding.lora_a.T})


def _are_equal(ours: dict[str, mx.array], theirs: dict[str, mx.array] | None) -> bool:
    return (
        theirs is not None
        and ours.keys() == theirs.keys()
        and all(bool(mx.array_equal(array, theirs[name])) for name, array in ours.items())
    )


def _updates(stored: Stored, names: Names, layers: dict[str, nn.Module]) -> tuple[dict[str, Update], list[str]]:
    """Each layer's update by its path, those of stacked experts as one; and what does not fit the network."""
    found: dict[str, dict[int | None, str]] = {}
    misfits: list[str] = []
    for name in stored.factors:
        if (place := names.place_of(name)) is None:
            misfits.append(f"{name} has no place in the network")
        elif adapted_kind(layers.get(place[0])) is None:
            misfits.append(f"{name} is no layer that can have an update")
        else:
            found.setdefault(place[0], {})[place[1]] = name
    updates = {}
    for path, own in found.items():
        update = _update(stored, own, is_embedding=adapted_kind(layers[path]) is LoRAEmbedding)
        problems = ["experts of different ranks or strengths"] if update is None else _faults(update, layers[path])
        misfits += [f"{path} has {problem}" for problem in problems]
        if update is not None:
            updates[path] = update
    return updates, misfits


def _update(stored: Stored, own: dict[int | None, str], *, is_embedding: bool) -> Update | None:
    """What one layer gets, from one layer of the file or from one an expert; None where those cannot be stacked."""
    factors = [stored.factors[own[expert]] for expert in sorted(own, key=lambda expert: expert or 0)]
    scales = {stored.rule.scale_of(name) for name in own.values()}
    if len(scales) > 1 or len({(one.lora_a.shape, one.lora_b.shape) for one in factors}) > 1:
        return None
    lora_a, lora_b = factors[0].lora_a, factors[0].lora_b
    if None not in own:
        lora_a, lora_b = mx.stack([one.lora_a.T for one in factors]), mx.stack([one.lora_b.T for one in factors])
    norm_axis = stored.rule.embedding_norm_axis if is_embedding else 1
    return Update(lora_a, lora_b, scales.pop(), factors[0].m, norm_axis, stored.rule.use_rslora)


def _faults(update: Update, layer: Any) -> list[str]:
    """What of an update does not fit its layer."""
    kind = adapted_kind(layer)
    assert kind is not None
    if update.m is not None and kind is LoRASwitchLinear:
        return ["a magnitude, and DoRA is not available for experts"]
    shape_a, shape_b = kind.factor_shapes(layer, update.lora_a.shape[1])
    wanted = {"lora_a": shape_a, "lora_b": shape_b}
    if update.m is not None:
        wanted["m"] = (shape_a[0] if kind is LoRAEmbedding and update.norm_axis == 1 else shape_b[-1],)
    found = {part: getattr(update, part).shape for part in wanted}
    return [
        f"{part} of {list(found[part])}, and takes {list(wanted[part])}"
        for part in wanted
        if found[part] != wanted[part]
    ]


def _is_in_mixture(path: str, layers: dict[str, nn.Module]) -> bool:
    """Whether a layer is part of a mixture of experts: a router, an expert, a shared one."""
    kinds = {other: adapted_kind(module) for other, module in layers.items()}
    mixtures = {other.rsplit(".", 2)[0] for other, kind in kinds.items() if kind is LoRASwitchLinear}
    return any(path.startswith(f"{mixture}.") for mixture in mixtures)


def _saved(network: Any, stored: Stored, names: Names, misfits: list[str]) -> dict[str, SavedModule]:
    """The saved modules by path; what does not fit goes to ``misfits``."""
    modules: dict[str, Any] = dict(network.named_modules())
    saved = {}
    for name, arrays in stored.saved.items():
        place = names.place_of(name)
        if place is None or place[1] is not None:
            misfits.append(f"{name} has no place in the network")
            continue
        module = modules[place[0]]
        shapes = {leaf: array.shape for leaf, array in arrays.items()}
        if shapes != (wanted := weight_shapes(module)) or "weight" not in shapes:
            misfits.append(f"{name} is {_told(shapes)}, and the network's is {_told(wanted)}")
        elif not can_be_saved(module) or is_read_past(network, place[0]):
            misfits.append(f"{name} is a {type(module).__name__} in {names.family}, which is not available as a whole")
        elif is_shifted_norm(names.family, shapes):
            misfits.append(f"{name} is a norm, which mlx-lm stores otherwise in {names.family}")
        else:
            saved[place[0]] = with_weights(module, arrays)
    return saved


def _told(shapes: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{leaf} of {list(shape)}" for leaf, shape in sorted(shapes.items())) or "without weights"


def _check_copies(network: Any, stored: Stored, names: Names, misfits: list[str]) -> None:
    """PEFT writes the base's embedding beside an update on it: has it to be the network's own."""
    modules: dict[str, Any] = dict(network.named_modules())
    for name, array in stored.copies.items():
        place = names.place_of(name) or ((names.tied_embedding, None) if name == HEAD else None)
        if place is None or place[0] is None:
            misfits.append(f"{name} has no place in the network")
            continue
        module = modules[place[0]]
        if (wanted := weight_shapes(module)).get("weight") != array.shape:
            misfits.append(f"{name}.weight is {list(array.shape)}, the network's is {_told(wanted)}")
        elif not is_quantized(module):
            weight = base_weight(module)
            apart = mx.max(mx.abs(weight - array)) > COPIED_NEARLY * mx.max(mx.abs(weight))
            if apart.item():
                misfits.append(f"{name}.weight, which came with the adapter, is not the network's")
