"""Where training starts from: the base with a new adapter, or with one that a run or another program made.

An adapter that is there already says what ``method`` would say: where the recipe leaves that out it is taken from the
adapter, and where the recipe says something else, the two are told side by side. Scores still compare with the base.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from mlxtune.adapters.attach import LoraShape, attach_lora, shape_in_training, target_layers
from mlxtune.adapters.format import base_hash, located
from mlxtune.adapters.lora import lora_layers
from mlxtune.adapters.open import attach_adapter
from mlxtune.errors import AdapterError
from mlxtune.iteration.opening import Opened, adapter_folder, lora_shape
from mlxtune.models.source import hub_repository
from mlxtune.recipe.schema import LoraSettings, Recipe, TopLayers


def attach_start(opened: Opened) -> Opened:
    """Put the adapter on the network that training starts from; the recipe's ``method`` is that adapter's afterwards.

    Raises: AdapterError, for an adapter that cannot be opened, was trained on another base, is of a kind that training
        does not go on from, or is not what the recipe's ``method`` says.
    """
    recipe, network = opened.recipe, opened.model.network
    if recipe.model.adapter is None:
        attach_lora(network, lora_shape(recipe), seed=recipe.seed)
        return opened
    folder = adapter_folder(recipe.model.adapter)
    config = attach_adapter(network, folder)
    if base_hash(config) not in (None, opened.folder.sha256):
        raise AdapterError(
            f"this adapter was trained on another base than {recipe.model.source}: the hashes differ",
            where=folder,
            remedy="name its base in model.source, stored as it was then (model.quantize)",
        )
    try:
        shape = shape_in_training(network)
    except AdapterError as error:
        raise located(error, folder) from error
    method = _method(recipe, shape, network, folder)
    for _, layer in lora_layers(network):
        layer.dropout = method.dropout
    # Now, not when training ends: the adapter may be gone by then.
    base = config.get("base_model_name_or_path")
    start_base = base if isinstance(base, str) and base else None
    return replace(opened, recipe=recipe.model_copy(update={"method": method}), start_base=start_base)


def _method(recipe: Recipe, shape: LoraShape, network: Any, folder: Path) -> LoraSettings:
    """The recipe's method, completed from the adapter in ``folder``. Raises: AdapterError, where the two differ."""
    said = recipe.method.model_dump(
        include=recipe.method.model_fields_set if "method" in recipe.model_fields_set else set()
    )
    found = {
        "rank": shape.rank,
        "alpha": float(shape.alpha),
        "dropout": float(shape.dropout),
        "target_modules": shape.target_modules,
        "layers": "all" if shape.layers == "all" else TopLayers(top=shape.layers),
    }
    for key in ("rank", "alpha"):
        if key in said and said[key] != found[key]:
            raise AdapterError(
                f"method.{key} is {said[key]}, and that of the adapter in {folder} is {found[key]}",
                remedy=f"leave out method.{key}, or start without model.adapter",
            )
    method = recipe.method.model_copy(update={key: value for key, value in found.items() if key not in said})
    asked = lora_shape(recipe.model_copy(update={"method": method}))
    wanted, present = (
        set(target_layers(network, asked.target_modules, asked.layers)),
        {path for path, _ in lora_layers(network)},
    )
    if wanted != present:
        raise AdapterError(
            f"method.target_modules and method.layers mean {len(wanted)} layers, and the adapter in {folder} is on "
            f"{len(present)}; of one alone are {', '.join(sorted(wanted ^ present)[:3])}",
            remedy="leave both out, or start without model.adapter",
        )
    return method


def base_name(opened: Opened) -> str:
    """What PEFT is told of the base: as the adapter that training started from has it, or a repository, or a folder."""
    return opened.start_base or hub_repository(opened.recipe.model.source) or str(opened.folder.path)
