"""Adapter folders that three programs open as they are: mlxtune, mlx-lm and PEFT.

    adapter_config.json          PEFT's keys beside mlx-lm's; what only mlxtune knows is under "mlxtune"
    adapters.safetensors         mlx-lm's names and layout: mlx_lm.py has them
    adapter_model.safetensors    PEFT's: peft.py

Of full fine-tuning there are mlx-lm's two alone: ``fine_tune_type: full``, and the trained weights by their names.

The factors are stored twice; an adapter is small beside its base. A program that has no words for an adapter (mlx-lm
for ranks that differ by layer, PEFT for some families' experts) gets neither keys nor file, so that it refuses the
folder rather than open it wrongly. Reading takes what either program alone has written, and refuses by name every
setting that would make its factors mean something else.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn

from mlxtune.adapters import mlx_lm, peft
from mlxtune.adapters.attach import adapter_parameters
from mlxtune.adapters.stored import Stored, WordsMissing
from mlxtune.device.reductions import all_finite
from mlxtune.errors import AdapterError, MlxtuneError, ModelError
from mlxtune.files import sha256_of, write_json
from mlxtune.models.safetensors import validate_safetensors, write_safetensors

CONFIG_FILE = "adapter_config.json"
REMEDY = "use an adapter of this base model, as its program wrote it"
"""Where no better way out is known."""
NOT_FOR = "not_for"
"""Under "mlxtune" in the config: the programs that cannot open the folder, each with the reason."""


def save_adapter(network: nn.Module, folder: Path, *, base_model: str, extra: Mapping[str, Any] | None = None) -> None:
    """Write the adapter on ``network`` into ``folder``, which is there: for every program that has words for it.

    Args:
        base_model: where PEFT finds the base: a repository on the hub, or a folder.
        extra: JSON values to keep under "mlxtune" in the config.

    Raises: AdapterError, if the network has no adapter.
    """
    if not adapter_parameters(network):
        raise AdapterError("the network has no adapter to save", remedy="put one on it first")
    not_for = check_can_be_saved(network)
    written: dict[str, Any] = {}
    if "PEFT" not in not_for:
        written |= peft.config_of(network, base_model=base_model)
        write_safetensors(folder / peft.FILE, peft.tensors_of(network), {"format": "pt"})
    if "mlx-lm" not in not_for:
        written |= mlx_lm.config_of(network)
        write_safetensors(folder / mlx_lm.FILE, mlx_lm.tensors_of(network), {"format": "mlx"})
    own = {**(extra or {}), **({NOT_FOR: not_for} if not_for else {})}
    write_json(folder / CONFIG_FILE, {**written, "mlxtune": own})


def check_can_be_saved(network: nn.Module) -> dict[str, str]:
    """The programs that have no words for the adapter on ``network``, each with the reason; writes nothing.

    Raises: AdapterError, if none has: better before hours of training than after them.
    """
    not_for = {}
    for program, half in (("PEFT", peft), ("mlx-lm", mlx_lm)):
        try:
            half.tensors_of(network)
        except WordsMissing as error:
            not_for[program] = str(error)
    if len(not_for) > 1:
        raise AdapterError(
            f"no file format holds this adapter: {in_words(not_for)}",
            remedy="name other layers in method.target_modules or method.modules_to_save",
        )
    return not_for


def who_can_open(folder: Path) -> dict[str, str | None]:
    """Of mlx-lm and PEFT: None for a program that opens the folder as it is, else the reason why it cannot.

    Raises: AdapterError, if it is no adapter's folder.
    """
    config = read_config(folder)
    told = _own(config).get(NOT_FOR)
    reasons = told if isinstance(told, dict) else {}
    mlx_lm_s = "fine_tune_type" if is_full(config) else "lora_parameters"
    programs = {"PEFT": ("peft_type", peft.FILE), "mlx-lm": (mlx_lm_s, mlx_lm.FILE)}
    return {
        program: None
        if key in config and (folder / file).is_file()
        else str(reasons.get(program) or f"there is no {file}")
        for program, (key, file) in programs.items()
    }


def in_words(reasons: Mapping[str, str | None]) -> str:
    """``mlx-lm cannot open it: ranks differ by layer``; empty, if all can."""
    return "; ".join(f"{program} cannot open it: {reason}" for program, reason in reasons.items() if reason)


def read_adapter(folder: Path) -> Stored:
    """Read an adapter folder that mlxtune, mlx-lm or PEFT wrote.

    The config says whose folder it is, so that a file another program left behind is not taken for the adapter.
    Raises: AdapterError, naming the setting, file or tensor that cannot be used.
    """
    config, where = read_config(folder), folder / CONFIG_FILE
    file = _weights_file(folder, config)
    half: Any = mlx_lm if file.name == mlx_lm.FILE else peft
    try:
        rule = half.read_rule(config, where)
        _check_is_there(file)
        validate_safetensors(file)
        return half.read_tensors(config, rule, mx.load(str(file)), file)
    except (AdapterError, ModelError) as error:
        raise located(error, file if isinstance(error, ModelError) else where) from error


def read_weights(folder: Path) -> dict[str, mx.array]:
    """The weights of a folder that `is_full` of, by their names in the network; not yet read from the disk.

    Raises: AdapterError, if they cannot be read.
    """
    file = folder / mlx_lm.FILE
    _check_is_there(file)
    try:
        validate_safetensors(file)
    except ModelError as error:
        raise located(error, file) from error
    looked_at: Any = mx.load(str(file))
    for name in list(looked_at):
        array = looked_at.pop(name)  # which is read for this, and let go of
        if not mx.issubdtype(array.dtype, mx.floating) or not all_finite(array):
            raise AdapterError(f"{name} is not of finite floats", where=file, remedy="go back to a sound checkpoint")
    tensors: Any = mx.load(str(file))
    return tensors


def is_full(config: Mapping[str, Any]) -> bool:
    """Whether a config is of whole weights, as full fine-tuning leaves them, and of no low-rank adapter."""
    return config.get("fine_tune_type") == "full" and "peft_type" not in config


def base_hash(config: Mapping[str, Any]) -> str | None:
    """The SHA-256 of the base that an adapter was trained on, by its config; None if that does not say."""
    told = _own(config).get("model_sha256")
    return told if isinstance(told, str) else None


def _own(config: Mapping[str, Any]) -> dict[str, Any]:
    """What mlxtune has in an adapter's config."""
    own = config.get("mlxtune")
    return own if isinstance(own, dict) else {}


def hash_of_adapter(folder: Path) -> str:
    """The SHA-256 of the file with the factors. Raises: AdapterError, if there is none."""
    file = _weights_file(folder, read_config(folder))
    _check_is_there(file)
    return sha256_of(file)


def _weights_file(folder: Path, config: Mapping[str, Any]) -> Path:
    """The file that holds an adapter's factors, by its config, if it is there."""
    has_mlx_lm = "lora_parameters" in config or is_full(config)
    by_mlx_lm = has_mlx_lm and ((folder / mlx_lm.FILE).is_file() or "peft_type" not in config)
    return folder / (mlx_lm.FILE if by_mlx_lm else peft.FILE)


def _check_is_there(file: Path) -> None:
    if not file.is_file():
        pickled = file.with_name("adapter_model.bin").exists()
        raise AdapterError(
            f"the adapter folder has no {file.name}",
            where=file.parent,
            remedy="save it from PEFT with safe_serialization=True" if pickled else "copy the whole folder",
        )


def located(error: MlxtuneError, where: Path) -> AdapterError:
    """The same error as an adapter's, with a place and a remedy, if it had none."""
    return AdapterError(error.message, where=error.where or where, remedy=error.remedy or REMEDY)


def read_config(folder: Path) -> dict[str, Any]:
    """What adapter_config.json holds. Raises: AdapterError, if it is no adapter's."""
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise AdapterError(
            f"no adapter here: there is no {CONFIG_FILE}", where=folder, remedy="name the folder that holds it"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise AdapterError(
            f"the adapter's config is not JSON: {error}", where=path, remedy="copy the adapter again"
        ) from error
    if not isinstance(config, dict) or not ("peft_type" in config or "lora_parameters" in config or is_full(config)):
        raise AdapterError(
            "the adapter's config is neither PEFT's (peft_type) nor mlx-lm's (lora_parameters)",
            where=path,
            remedy="name a folder that one of the two wrote, or mlxtune",
        )
    return config
