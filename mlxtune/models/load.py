"""A model folder opened for work: checked, loaded by mlx_lm, brought to a device's number formats, frozen.

Knows folders with config.json and safetensors; where a folder comes from is source.py's business. Nothing in the folder
is run: no pickles, no Python files, no network.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten

from mlxtune.device.limits import import_mlx_lm
from mlxtune.device.precision import GPU_BFLOAT16, GPU_FLOAT16, Precision, apply_precision
from mlxtune.errors import ModelError
from mlxtune.models.chat_template import ChatTemplate
from mlxtune.models.safetensors import validate_weights
from mlxtune.models.tokenizer import open_tokenizer

if TYPE_CHECKING:
    from mlx_lm.tokenizer_utils import TokenizerWrapper

LAYER_COUNTS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")
OTHER_SENSES = ("vision_config", "audio_config")


@dataclass(frozen=True)
class Model:
    """What training, evaluation and generation start from."""

    network: nn.Module
    """Frozen and in evaluation mode."""
    tokenizer: "TokenizerWrapper"
    config: dict[str, Any]
    folder: Path


def open_model(folder: Path, precision: Precision, chat_template: ChatTemplate | None = None) -> Model:
    """Open a local folder in Hugging Face's or MLX's form.

    Args:
        chat_template: in place of the tokenizer's own.

    Raises: ModelError, if the folder is not whole, mlx_lm has no class for its architecture, or the template is none
        for this tokenizer.
    """
    network, config = load_network(folder)
    tokenizer = open_tokenizer(folder, chat_template)
    _check_vocabulary(tokenizer, config, folder)
    apply_precision(network, precision)
    network.freeze()
    network.eval()
    return Model(network, tokenizer, config, folder)


def open_unread(folder: Path, precision: Precision, chat_template: ChatTemplate | None = None) -> Model:  # noqa: ARG001 - open_model's shape
    """As `open_model`, but for the weights: they are as stored and not read, so that a model that is too large for this
    machine can be counted on it.

    Raises: ModelError.
    """
    network, config = load_network(folder)
    tokenizer = open_tokenizer(folder, chat_template)
    _check_vocabulary(tokenizer, config, folder)
    network.freeze()
    network.eval()
    return Model(network, tokenizer, config, folder)


def _check_vocabulary(tokenizer: "TokenizerWrapper", config: dict[str, Any], folder: Path) -> None:
    """Raises: ModelError, for a tokenizer of another model: one with ids beyond the network's rows, which would be read
    from anywhere, or with less than half as many tokens, which would lose most of a text.

    A padding token beyond the rows is common where one was added later, and is never read.
    """
    rows = (config.get("text_config") or config).get("vocab_size", config.get("vocab_size"))
    ids = set(tokenizer.get_vocab().values())
    highest = max(ids - {tokenizer.pad_token_id}, default=-1)
    if not isinstance(rows, int) or (highest < rows and 2 * len(ids) >= rows):
        return
    raise ModelError(
        f"the tokenizer has {len(ids):,} tokens, with ids up to {highest:,}; the network has rows for {rows:,}",
        where=folder,
        remedy="get tokenizer and weights again, both from one version of the model",
    )


def precision_to_ask(folder: Path, precision: Precision) -> Precision:
    """The number formats in which a model that is not trained further is asked: as ``precision``, or on a GPU float16
    where the weights are stored so.

    Raises: ModelError, if there is no config.
    """
    config = read_config(folder)
    is_float16 = "float16" in (config.get("torch_dtype"), config.get("dtype")) and "quantization" not in config
    return GPU_FLOAT16 if is_float16 and precision == GPU_BFLOAT16 else precision


def bytes_to_open(folder: Path, precision: Precision) -> int:
    """The memory that `open_model` needs for the network's arrays, worked out from their sizes. Raises: ModelError."""
    from mlx_lm.utils import get_total_parameters

    network, _ = load_network(folder)
    if precision.dequantize:
        return get_total_parameters(network) * precision.dtype.size
    arrays: Any = tree_flatten(network.parameters(), destination={})
    return sum(
        array.size * precision.dtype.size if mx.issubdtype(array.dtype, mx.floating) else array.nbytes
        for array in arrays.values()
    )


def load_network(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The network with its weights as they are stored, not yet read from the disk, and its config.

    Raises: ModelError.
    """
    config = read_config(folder)
    check_config(config, folder)
    _check_layers(config, len(validate_weights(folder)), folder)
    from mlx_lm.utils import load_model

    try:
        return load_model(folder, lazy=True)
    # What mlx_lm's classes raise for a config or weights that they cannot use, a name that is missing included.
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, ArithmeticError, RuntimeError) as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise ModelError(
            f"config.json and the weights do not give a network: {said[:300]}",
            where=folder,
            remedy="get the model's files again, all from one version",
        ) from error


def _check_layers(config: dict[str, Any], tensor_count: int, folder: Path) -> None:
    """Raises: ModelError, for more layers than tensors: mlx_lm would build them all before it misses their weights."""
    for key in LAYER_COUNTS:
        if isinstance(count := config.get(key), int) and count > tensor_count:
            raise ModelError(
                f"{key} is {count:,}, and the weights are {tensor_count:,} tensors",
                where=folder / "config.json",
                remedy="get the model's files again, all from one version",
            )


def read_config(folder: Path) -> dict[str, Any]:
    """The content of config.json. Raises: ModelError, if it is missing or not one JSON object."""
    path = folder / "config.json"
    if not path.is_file():
        remedy = "give the folder that holds config.json and the weights"
        if (folder / "adapter_config.json").is_file():
            remedy = "this is an adapter: give its base model here"
        raise ModelError("there is no config.json", where=folder, remedy=remedy)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise ModelError(f"config.json is not JSON: {error}", where=path, remedy="get the file again") from error
    if not isinstance(config, dict):
        raise ModelError("config.json is not a JSON object", where=path, remedy="get the file again")
    return config


def check_config(config: dict[str, Any], folder: Path) -> None:
    """Raises: ModelError, for a model that mlx_lm has no class for, or that would need code of its own to run."""
    where = folder / "config.json"
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not re.fullmatch(r"[\w-]+", model_type):
        raise ModelError("config.json names no model_type", where=where, remedy="give a text model's folder")
    if "model_file" in config:
        raise ModelError(
            f"the model wants to run its own code ({config['model_file']}), which is never done",
            where=where,
            remedy="use a model that mlx_lm has a class for",
        )
    if senses := [key for key in OTHER_SENSES if key in config]:
        raise ModelError(
            f"this is no pure text model ({', '.join(senses)}); vision and audio models are not supported",
            where=where,
            remedy="use a text model, or a text-only conversion of this one",
        )
    import_mlx_lm()
    from mlx_lm.utils import _get_classes

    try:
        _get_classes(config)
    except (ValueError, AttributeError, SystemExit) as error:  # olmo's module ends the process without its package
        own_code = " and its own code (auto_map) is never run" if "auto_map" in config else ""
        raise ModelError(
            f"mlx_lm has no class for the model type {model_type}{own_code}",
            where=where,
            remedy="use another model, or a newer mlx-lm that knows it",
        ) from error
    _check_quantization(config, where)


def _check_quantization(config: dict[str, Any], where: Path) -> None:
    """Raises: ModelError, for weights that another program quantized, or where it is not said how MLX did."""
    ours, theirs = config.get("quantization"), config.get("quantization_config")
    for key, value in (("quantization", ours), ("quantization_config", theirs)):
        if value is not None and not isinstance(value, dict):
            raise ModelError(f"{key} is not a JSON object", where=where, remedy="get the file again")
    if ours is not None:
        numbers, mode = [ours.get("bits"), ours.get("group_size")], ours.get("mode", "affine")
        if any(type(number) is not int for number in numbers) or not isinstance(mode, str):
            raise ModelError(
                "quantization does not name bits and group_size as numbers, and mode, if any, as text",
                where=where,
                remedy="get the file again",
            )
    method = (theirs or {}).get("quant_method")
    if method is not None and ours is None:
        raise ModelError(
            f"the weights are quantized by {method}, which is not supported",
            where=where,
            remedy="use the unquantized version, or one quantized by MLX",
        )
