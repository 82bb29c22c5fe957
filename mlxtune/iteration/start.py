"""Where training starts from: the base with a new adapter, or with one that a run or another program made.

An adapter that is there already says what ``method`` would say: where the recipe leaves that out it is taken from the
adapter, and where the recipe says something else, the two are told side by side. Scores still compare with the base.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlxtune.adapters.attach import attach_lora, modules_to_save, target_layers
from mlxtune.adapters.format import base_hash, check_can_be_saved, is_full, located
from mlxtune.adapters.full import CONVERT, shape_of_weights, unfreeze_weights
from mlxtune.adapters.lora import lora_layers
from mlxtune.adapters.open import attach_adapter
from mlxtune.adapters.saved import saved_modules
from mlxtune.adapters.shape import LoraShape
from mlxtune.adapters.shape_of import shape_of_adapter
from mlxtune.errors import AdapterError
from mlxtune.iteration.opening import Opened, adapter_folder, full_shape, lora_shape
from mlxtune.models.source import hub_repository
from mlxtune.recipe.method import DoraSettings, FullSettings, LoraSettings, LowRankSettings, TopLayers


def attach_start(opened: Opened) -> Opened:
    """Put the adapter on the network that training starts from; the recipe's ``method`` is that adapter's afterwards.

    Raises: AdapterError, for an adapter that cannot be opened, was trained on another base, is of a kind that training
        does not go on from, or is not what the recipe's ``method`` says; for a method that does not fit the network, or
        leaves what no file format holds.
    """
    recipe, network = opened.recipe, opened.model.network
    if recipe.model.adapter is None:
        if isinstance(recipe.method, FullSettings):
            _refuse_quantized(opened)
            unfreeze_weights(network, full_shape(recipe.method))
        else:
            attach_lora(network, lora_shape(recipe.method), seed=recipe.seed)
        check_can_be_saved(network)
        return opened
    folder = adapter_folder(recipe.model.adapter)
    config = attach_adapter(network, folder, as_stored=True)
    if base_hash(config) not in (None, opened.folder.sha256):
        raise AdapterError(
            f"this adapter was trained on another base than {recipe.model.source}: the hashes differ",
            where=folder,
            remedy="name its base in model.source, stored as it was then (model.quantize)",
        )
    said = recipe.method.model_dump(
        include=recipe.method.model_fields_set if "method" in recipe.model_fields_set else set()
    )
    try:
        if is_full(config):
            _refuse_quantized(opened)
            method: LowRankSettings | FullSettings = _full_method(said, network, folder)
        else:
            method = _low_rank_method(said, shape_of_adapter(network), network, folder)
    except AdapterError as error:
        raise located(error, folder) from error
    if isinstance(method, LowRankSettings):
        for _, layer in lora_layers(network):
            layer.dropout = method.dropout
    check_can_be_saved(network)
    # Now, not when training ends: the adapter may be gone by then.
    base = config.get("base_model_name_or_path")
    start_base = base if isinstance(base, str) and base else None
    return replace(opened, recipe=recipe.model_copy(update={"method": method}), start_base=start_base)


def _refuse_quantized(opened: Opened) -> None:
    """Raises: AdapterError, for a base that is stored quantized, also where the device has dequantized it.

    What is trained would be the weights of one base and be put beside those of another.
    """
    if "quantization" in opened.model.config:
        raise AdapterError(
            f"{opened.recipe.model.source} is quantized, and method.type full changes float weights",
            where=opened.folder.path,
            remedy="leave out model.quantize" if opened.recipe.model.quantize is not None else CONVERT,
        )


def _refuse_type(said: Mapping[str, Any], found: str, folder: Path) -> None:
    """Raises: AdapterError, where the recipe says another type than the adapter is of."""
    if said.get("type", found) != found:
        raise AdapterError(
            f"method.type is {said['type']}, and the adapter in {folder} is of type {found}",
            remedy="leave out method.type; or fuse the adapter, and name the result in model.source",
        )


def _full_method(said: Mapping[str, Any], network: Any, folder: Path) -> FullSettings:
    """The recipe's method, completed from the weights in ``folder``. Raises: AdapterError, where the two differ."""
    _refuse_type(said, "full", folder)
    shape = shape_of_weights(network)
    layers = "all" if shape.layers == "all" else TopLayers(top=shape.layers)
    found = FullSettings(layers=layers, train_embeddings=shape.train_embeddings)
    asked = FullSettings.model_validate({**found.model_dump(), **said})
    if asked != found:
        key = "layers" if asked.layers != found.layers else "train_embeddings"
        raise AdapterError(
            f"method.{key} is {_told(getattr(asked, key))}, and the weights in {folder} are of "
            f"{_told(getattr(found, key))}",
            remedy=f"leave out method.{key}; or fuse these weights, and name the result in model.source",
        )
    return found


def _low_rank_method(said: Mapping[str, Any], shape: LoraShape, network: Any, folder: Path) -> LowRankSettings:
    """The recipe's method, completed from the adapter in ``folder``. Raises: AdapterError, where the two differ."""
    _refuse_type(said, "dora" if shape.use_dora else "lora", folder)
    found = {
        "rank": shape.rank,
        "alpha": float(shape.alpha),
        "use_rslora": shape.use_rslora,
        "dropout": float(shape.dropout),
        "target_modules": shape.target_modules,
        "layers": "all" if shape.layers == "all" else TopLayers(top=shape.layers),
        "rank_pattern": dict(shape.rank_pattern),
        "alpha_pattern": {pattern: float(alpha) for pattern, alpha in shape.alpha_pattern.items()},
        "modules_to_save": shape.modules_to_save,
    }
    for key in ("rank", "alpha", "use_rslora"):
        if key in said and said[key] != found[key]:
            raise AdapterError(
                f"method.{key} is {_told(said[key])}, and that of the adapter in {folder} is {_told(found[key])}",
                remedy=f"leave out method.{key}, or start without model.adapter",
            )
    kind = DoraSettings if shape.use_dora else LoraSettings
    method = kind.model_validate({**found, **{key: value for key, value in said.items() if key != "type"}})
    asked = lora_shape(method)
    saved = modules_to_save(network, asked.modules_to_save).keys()
    wanted = target_layers(network, asked.target_modules, asked.layers, saved=saved).keys() | saved
    present = dict(lora_layers(network))
    if wanted != (places := present.keys() | dict(saved_modules(network)).keys()):
        raise AdapterError(
            f"method.target_modules, method.layers and method.modules_to_save mean {len(wanted)} layers, and the "
            f"adapter in {folder} is on {len(places)}; of one alone are {', '.join(sorted(wanted ^ places)[:3])}",
            remedy="leave them out, or start without model.adapter",
        )
    for path, layer in present.items():
        if asked.rank_of(path) != layer.rank or not math.isclose(asked.scale_of(path), layer.scale, rel_tol=1e-6):
            raise AdapterError(
                f"method's patterns give {path} rank {asked.rank_of(path)} and scale {asked.scale_of(path):g}, and the "
                f"adapter in {folder} has rank {layer.rank} and scale {layer.scale:g} there",
                remedy="leave out method.rank_pattern and method.alpha_pattern, or start without model.adapter",
            )
    return method


def _told(value: Any) -> str:
    """A setting as a recipe writes it."""
    if isinstance(value, TopLayers):
        return f"{{top: {value.top}}}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def base_name(opened: Opened) -> str:
    """What PEFT is told of the base: as the adapter that training started from has it, or a repository, or a folder."""
    return opened.start_base or hub_repository(opened.recipe.model.source) or str(opened.folder.path)
