"""Adapter folders that three programs open as they are: mlxtune, mlx-lm and PEFT.

    adapter_config.json          PEFT's keys beside mlx-lm's; what only mlxtune knows is under "mlxtune"
    adapters.safetensors         mlx-lm's names: model.layers.0.self_attn.q_proj.lora_a [D_in, R], .lora_b [R, D_out]
    adapter_model.safetensors    PEFT's names and layout: base_model.model.{layer}.lora_A.weight [R, D_in],
                                 .lora_B.weight [D_out, R]

The factors are stored twice; an adapter is small beside its base. Reading takes what either program alone has
written, and refuses by name every setting that would make its factors mean something else: an adapter that is opened
is opened rightly. Knows networks only for the names of their layers.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn

from mlxtune.adapters.attach import LoraShape, adapter_parameters, block_linear_layers, block_paths, is_named
from mlxtune.adapters.lora import lora_layers
from mlxtune.errors import AdapterError, MlxtuneError, ModelError
from mlxtune.files import write_json
from mlxtune.models.safetensors import validate_safetensors, write_safetensors

CONFIG_FILE = "adapter_config.json"
MLX_LM_FILE = "adapters.safetensors"
PEFT_FILE = "adapter_model.safetensors"

# Settings of PEFT that are read below, and those that change nothing in what the factors mean.
PEFT_KEYS = frozenset({"peft_type", "r", "lora_alpha", "lora_dropout", "target_modules", "bias", "init_lora_weights"})
PEFT_KEYS |= {"layers_to_transform", "layers_pattern", "base_model_name_or_path", "task_type", "inference_mode"}
PEFT_KEYS |= {"peft_version", "auto_mapping", "revision", "runtime_config", "qalora_group_size", "megatron_core"}
PEFT_KEYS |= {"loftq_config", "eva_config", "corda_config", "lora_ga_config", "ensure_weight_tying"}
MLX_LM_KEYS = frozenset({"fine_tune_type", "num_layers", "lora_parameters"})
# Ways of starting that leave the base weights as they are; others (pissa, olora, loftq) train against another base.
PEFT_STARTS = (True, False, "gaussian", "eva", "orthogonal")


# The factors' names in both programs.
FACTORS = {"lora_a": "lora_A.weight", "lora_b": "lora_B.weight"}
PEFT_PREFIX = "base_model.model."


def peft_name(name: str) -> str:
    """PEFT's name of a factor, from mlx-lm's.

    The one place, with its inverse, that relates the two programs' layer names. They are the same for the families
    read so far; a family that Hugging Face names otherwise gets its rule here.
    """
    path, _, factor = name.rpartition(".")
    return f"{PEFT_PREFIX}{path}.{FACTORS[factor]}"


def mlx_lm_name(name: str) -> str | None:
    """mlx-lm's name of a factor, from PEFT's; None for a tensor that is no factor of a linear layer."""
    for factor, ending in FACTORS.items():
        if name.startswith(PEFT_PREFIX) and name.endswith(f".{ending}"):
            return f"{name.removeprefix(PEFT_PREFIX).removesuffix(ending)}{factor}"
    return None


def save_adapter(
    network: nn.Module, folder: Path, *, shape: LoraShape, base_model: str, extra: Mapping[str, Any] | None = None
) -> None:
    """Write the attached adapter of ``network`` into ``folder``, which is there: three files, for three programs.

    Args:
        base_model: where the base is to be found, for a reader of the config.
        extra: JSON values to keep under "mlxtune" in the config.

    Raises: AdapterError, if the network has no adapter.
    """
    parameters = adapter_parameters(network)
    if not parameters:
        raise AdapterError("the network has no adapter to save")
    config = adapter_config(network, shape=shape, base_model=base_model, extra=extra)
    write_safetensors(folder / MLX_LM_FILE, parameters, {"format": "mlx"})
    transposed = {peft_name(name): mx.contiguous(array.T) for name, array in parameters.items()}
    write_safetensors(folder / PEFT_FILE, transposed, {"format": "pt"})
    write_json(folder / CONFIG_FILE, config)


def adapter_config(
    network: Any, *, shape: LoraShape, base_model: str, extra: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What adapter_config.json says: PEFT's keys, mlx-lm's, and ``extra`` under "mlxtune"."""
    blocks = block_paths(network)
    top = len(blocks) if shape.layers == "all" else shape.layers
    paths = [path for path, _ in lora_layers(network)]
    leaves = {path.rpartition(".")[2] for path in paths}
    relative = {path.removeprefix(f"{block}.") for block in blocks for path in paths if path.startswith(f"{block}.")}
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": shape.rank,
        "lora_alpha": int(shape.alpha) if shape.alpha == int(shape.alpha) else shape.alpha,
        "lora_dropout": shape.dropout,
        "target_modules": _shortest_names(network, top, paths, leaves),
        "bias": "none",
        "inference_mode": True,
        "fine_tune_type": "lora",
        "num_layers": top,
        "lora_parameters": {
            "rank": shape.rank,
            "scale": shape.scale,
            "dropout": shape.dropout,
            # Relative to a block, as mlx-lm looks for them there; it looks for whole paths afterwards.
            "keys": _shortest_names(network, top, paths, relative),
        },
        "mlxtune": dict(extra or {}),
    }
    if top < len(blocks):
        config["layers_to_transform"] = list(range(len(blocks) - top, len(blocks)))
        config["layers_pattern"] = blocks[0].split(".")[-2]
    return config


def _shortest_names(network: Any, top: int, paths: list[str], names: set[str]) -> list[str]:
    """``names``, if they pick out exactly the adapted layers of the top blocks; else the whole paths."""
    plain, unsuited = block_linear_layers(network, top)
    picked = {path for path in [*plain, *unsuited] if any(is_named(path, name) for name in names)}
    return sorted(names) if picked == set(paths) else paths


def read_adapter(folder: Path) -> tuple[LoraShape, dict[str, mx.array], dict[str, Any]]:
    """Read an adapter folder that mlxtune, mlx-lm or PEFT wrote.

    The config says whose folder it is, so that a file another program left behind is not taken for the adapter.

    Returns: its shape; its factors by mlx-lm's names, float32 ([D_in, R] and [R, D_out]); the config as it is.
    Raises: AdapterError, naming the setting, file or tensor that cannot be used.
    """
    config = _read_config(folder)
    where = folder / CONFIG_FILE
    try:
        shape = _peft_shape(config, where) if "peft_type" in config else _mlx_lm_shape(config, where)
    except AdapterError as error:
        raise located(error, where) from error
    if "lora_parameters" in config and (folder / MLX_LM_FILE).is_file():
        file, by_mlx_lm = folder / MLX_LM_FILE, True
    elif "peft_type" in config and (folder / PEFT_FILE).is_file():
        file, by_mlx_lm = folder / PEFT_FILE, False
    else:
        expected = PEFT_FILE if "lora_parameters" not in config else MLX_LM_FILE
        pickled = (folder / "adapter_model.bin").exists()
        raise AdapterError(
            f"the adapter folder has no {expected}",
            where=folder,
            remedy="save it from PEFT with safe_serialization=True" if pickled else "copy the whole folder",
        )
    try:
        validate_safetensors(file)
    except ModelError as error:
        raise located(error, file) from error
    tensors: dict[str, mx.array] = mx.load(str(file))  # pyright: ignore[reportAssignmentType]
    parameters = dict(_factor(name, array, file, by_mlx_lm=by_mlx_lm) for name, array in sorted(tensors.items()))
    _check_pairs(parameters, shape.rank, file)
    return shape, parameters, config


def located(error: MlxtuneError, where: Path) -> AdapterError:
    """The same error as an adapter's, with a place, if it had none."""
    return AdapterError(error.message, where=error.where or where, remedy=error.remedy)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise AdapterError(
            f"no adapter here: there is no {CONFIG_FILE}", where=folder, remedy="name the folder that holds it"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"the adapter's config is not JSON: {error}", where=path) from error
    if not isinstance(config, dict) or not ("peft_type" in config or "lora_parameters" in config):
        raise AdapterError(
            "the adapter's config is neither PEFT's (peft_type) nor mlx-lm's (lora_parameters)", where=path
        )
    return config


def _peft_shape(config: dict[str, Any], where: Path) -> LoraShape:
    if config["peft_type"] != "LORA":
        raise AdapterError(f"peft_type is {config['peft_type']!r}; only LORA can be opened", where=where)
    for key, value in config.items():
        if value and key not in PEFT_KEYS and key not in MLX_LM_KEYS and key != "mlxtune":
            raise AdapterError(f"the adapter uses PEFT's {key}, which is not available", where=where)
    if config.get("bias", "none") != "none":
        raise AdapterError(f"the adapter trains biases (bias: {config['bias']}), which is not available", where=where)
    if config.get("init_lora_weights", True) not in PEFT_STARTS:
        start = config["init_lora_weights"]
        raise AdapterError(
            f"the adapter started with init_lora_weights {start!r}, which changes the base model's weights", where=where
        )
    targets: Any = config.get("target_modules")
    if targets != "all-linear" and not _is_list_of(targets, str):
        raise AdapterError(
            f"target_modules is {targets!r}; a list of names or all-linear can be opened, a pattern cannot",
            where=where,
            remedy="write the names of the modules out",
        )
    return LoraShape(
        rank=_integer(config, "r", where),
        alpha=_number(config, "lora_alpha", where),
        dropout=_number(config, "lora_dropout", where, default=0.0),
        target_modules=tuple(targets) if isinstance(targets, list) else "all-linear",
        layers=_peft_layers(config, where),
    )


def _peft_layers(config: dict[str, Any], where: Path) -> Any:
    """All blocks, or how many at the top; which those are shows when the factors' names meet a network's."""
    chosen: Any = config.get("layers_to_transform")
    if chosen is None or chosen == []:
        return "all"
    indices = [chosen] if type(chosen) is int else chosen
    if not _is_list_of(indices, int) or sorted(indices) != list(range(min(indices), max(indices) + 1)):
        raise AdapterError(
            f"layers_to_transform is {chosen!r}; only top blocks without a gap can be opened", where=where
        )
    return len(indices)


def _mlx_lm_shape(config: dict[str, Any], where: Path) -> LoraShape:
    kind = config.get("fine_tune_type", "lora")
    if kind != "lora":
        raise AdapterError(f"fine_tune_type is {kind!r}; only lora can be opened", where=where)
    settings = config["lora_parameters"]
    if not isinstance(settings, dict):
        raise AdapterError("lora_parameters is no mapping", where=where)
    keys = settings.get("keys")
    if keys is not None and not _is_list_of(keys, str):
        raise AdapterError("lora_parameters.keys is no list of names", where=where)
    rank = _integer(settings, "rank", where)
    layers = _integer(config, "num_layers", where)
    return LoraShape(
        rank=rank,
        alpha=_number(settings, "scale", where) * rank,
        dropout=_number(settings, "dropout", where, default=0.0),
        target_modules="all-linear" if keys is None else tuple(keys),
        layers="all" if layers < 1 else layers,  # as mlx-lm reads -1
    )


def _factor(name: str, array: mx.array, file: Path, *, by_mlx_lm: bool) -> tuple[str, mx.array]:
    """One tensor of a file as a factor: mlx-lm's name and layout, float32. Raises: AdapterError, if it is none."""
    known = (name if name.endswith((".lora_a", ".lora_b")) else None) if by_mlx_lm else mlx_lm_name(name)
    if known is None:
        raise AdapterError(f"{name} is no LoRA factor of a linear layer; such adapters cannot be opened", where=file)
    if array.ndim != 2 or not mx.issubdtype(array.dtype, mx.floating):  # noqa: PLR2004 - rows and columns
        raise AdapterError(f"{name} is {array.dtype} of {list(array.shape)}, not a matrix of floats", where=file)
    factor = (array if by_mlx_lm else mx.contiguous(array.T)).astype(mx.float32)
    if not mx.all(mx.isfinite(factor)).item():
        raise AdapterError(f"{name} has values that are not finite", where=file, remedy="go back to a sound checkpoint")
    return known, factor


def _check_pairs(parameters: Mapping[str, mx.array], rank: int, file: Path) -> None:
    if not parameters:
        raise AdapterError("the adapter has no factors", where=file)
    for path in sorted({name.rpartition(".")[0] for name in parameters}):
        lora_a, lora_b = (parameters.get(f"{path}.{factor}") for factor in ("lora_a", "lora_b"))
        if lora_a is None or lora_b is None:
            raise AdapterError(f"{path} has only one of its two factors", where=file)
        if lora_a.shape[1] != rank or lora_b.shape[0] != rank:
            raise AdapterError(
                f"the factors of {path} have ranks {lora_a.shape[1]} and {lora_b.shape[0]}; the config says {rank}",
                where=file,
            )


def _is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is kind for item in value)


def _integer(values: Mapping[str, Any], key: str, where: Path) -> int:
    if type(value := values.get(key)) is not int:
        raise AdapterError(f"{key} is {value!r}, not a whole number", where=where)
    return value


def _number(values: Mapping[str, Any], key: str, where: Path, default: float | None = None) -> float:
    value = values.get(key, default)
    if type(value) not in (int, float):
        raise AdapterError(f"{key} is {value!r}, not a number", where=where)
    return value
