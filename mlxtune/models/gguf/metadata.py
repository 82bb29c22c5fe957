"""config.json as a GGUF file's metadata, the way back of config.py and rope.py by the same tables.

What counts is what mlx_lm's class computed in training, its own defaults included: a key of config.json that the class
does not read changes nothing here either. What GGUF, or the programs that read it, have no place for is refused by
name: the model would run, and be another one.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from mlxtune.errors import ModelError
from mlxtune.models.gguf.architectures import ARCHITECTURES, Architecture
from mlxtune.models.gguf.rope import (
    FREQS,
    LLAMA3_CONTEXT,
    LLAMA3_HIGH,
    LLAMA3_LOW,
    LONG,
    SHORT,
    llama3_factors,
    longrope_scale,
)

OTHER_NAMES = {"mistral": "llama"}
"""Model types of config.json that GGUF, and mlx_lm, have no class of their own for."""

NO_PLACE = "serve the MLX folder that fuse writes instead"
YARN_CONTEXT = 4096  # mlx_lm's default
CLASS_ALONE = ("rope_scaling", "head_dim")
"""Keys that a family's class may not read: config.json alone says nothing of them."""

Factors = dict[str, np.ndarray]
"""By tensor name, [rotated / 2], float32."""


def architecture_for(config: Mapping[str, Any], where: Path) -> tuple[str, Architecture]:
    """The GGUF architecture of a model and its row. Raises: ModelError, if there is none."""
    model_type = str(config.get("model_type"))
    model_type = OTHER_NAMES.get(model_type, model_type)
    for name, architecture in ARCHITECTURES.items():
        if architecture.model_type == model_type:
            return name, architecture
    what = f"models of the type {model_type} cannot be written as GGUF; {', '.join(ARCHITECTURES)} can"
    raise ModelError(what, where=where, remedy=NO_PLACE)


def filled_config(config: Mapping[str, Any], network: Any, *, rows: int, has_head: bool) -> dict[str, Any]:
    """config.json with every default that mlx_lm's class filled in, and the sizes that the weights have.

    Args:
        network: of mlx_lm.
        rows: of its vocabulary matrix.
        has_head: whether it has a head of its own.
    """
    plain = {key: value for key, value in config.items() if key not in CLASS_ALONE}
    filled = plain | {key: value for key, value in vars(network.args).items() if value is not None}
    filled["head_dim"] = filled.get("head_dim") or filled["hidden_size"] // filled["num_attention_heads"]
    filled["vocab_size"] = rows
    filled["tie_word_embeddings"] = not has_head
    return filled


def make_metadata(config: Mapping[str, Any], where: Path) -> tuple[dict[str, Any], Factors]:
    """What the metadata say of the network, and the tensors that only scale its rotations.

    Args:
        config: as `filled_config` gives it.

    Raises: ModelError, for what GGUF has no place for.
    """
    name, architecture = architecture_for(config, where)
    context = config.get("max_position_embeddings")
    if type(context) is not int:
        raise ModelError("config.json has no max_position_embeddings", where=where, remedy="add it")
    _refuse_others(config, architecture, where)
    rotated = int(config["head_dim"] * config.get("partial_rotary_factor", 1.0))
    values: dict[str, Any] = {
        "vocab_size": config["vocab_size"],
        "context_length": context,
        "embedding_length": config["hidden_size"],
        "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": config["head_dim"],
        "attention.value_length": config["head_dim"],
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "rope.freq_base": float(config["rope_theta"]),
        "rope.dimension_count": rotated,
    }
    for setting in architecture.settings:
        if value := config.get(setting.name):
            values[setting.key] = int(value) if setting.is_count else float(value)
    scaling, factors = _rope(config, name, architecture, rotated, where)
    metadata = {"general.architecture": name} | {f"{name}.{key}": value for key, value in (values | scaling).items()}
    return metadata, factors


def _refuse(what: str, where: Path) -> NoReturn:
    raise ModelError(f"{what}, which GGUF has no place for", where=where, remedy=NO_PLACE)


def _refuse_others(config: Mapping[str, Any], architecture: Architecture, where: Path) -> None:
    if config.get("rope_traditional"):
        _refuse("rotations pair neighbours (rope_traditional)", where)
    if architecture.model_type == "llama" and "sliding_attention" in config.get("layer_types", ()):
        _refuse("some layers look back a window (layer_types)", where)
    if architecture.wide_queries is not None:
        is_wide = config["num_hidden_layers"] == architecture.wide_queries
        expected = config["hidden_size"] // config["num_attention_heads"] if is_wide else config["head_dim"]
        if (scalar := config["query_pre_attn_scalar"]) != expected:
            _refuse(f"queries are scaled by {scalar} (query_pre_attn_scalar) and not by {expected}", where)


def _rope(
    config: Mapping[str, Any], name: str, architecture: Architecture, rotated: int, where: Path
) -> tuple[dict[str, Any], Factors]:
    """The keys and tensors that scale rotations; none where nothing is scaled."""
    scaling: Mapping[str, Any] = config.get("rope_scaling") or {}
    kind = scaling.get("type") or scaling.get("rope_type", "default")
    if kind in {"default", "mrope"}:
        return {}, {}
    kind = "longrope" if kind == "su" else kind
    is_listed = kind == "longrope" and "longrope" not in architecture.ropes
    makers: dict[str, tuple[str, Callable[[], tuple[dict[str, Any], Factors]]]] = {
        "linear": ("linear", lambda: ({"scaling.type": "linear", "scaling.factor": float(scaling["factor"])}, {})),
        "yarn": ("yarn", lambda: (_yarn(scaling, where), {})),
        "llama3": ("factors", lambda: ({}, {FREQS: _llama3(scaling, config["rope_theta"], rotated)})),
        "longrope": ("longrope", lambda: _longrope(config, scaling, rotated)),
        "listed": ("factors", lambda: ({}, {FREQS: _listed(config, scaling, rotated, where)})),
    }
    needs, make = makers.get("listed" if is_listed else kind, ("", None))
    if make is None or needs not in architecture.ropes:
        _refuse(f"rotations of {name} are scaled by the rule {kind}", where)
    values, factors = make()
    return {f"rope.{key}": value for key, value in values.items()}, factors


def _yarn(scaling: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """Raises: ModelError, if the lengths of rotated vectors are scaled otherwise than YaRN's paper has it."""
    if scaling.get("mscale", 1) != 1 or scaling.get("mscale_all_dim", 0) != 0:
        _refuse("YaRN has an mscale of its own", where)
    values = {
        "scaling.type": "yarn",
        "scaling.factor": float(scaling["factor"]),
        "scaling.original_context_length": int(scaling.get("original_max_position_embeddings", YARN_CONTEXT)),
    }
    return values | {f"scaling.yarn_{k}": float(scaling[k]) for k in ("beta_fast", "beta_slow") if k in scaling}


def _llama3(scaling: Mapping[str, Any], base: float, rotated: int) -> np.ndarray:
    factors = llama3_factors(
        base,
        rotated,
        scaling["factor"],
        low=scaling.get("low_freq_factor", LLAMA3_LOW),
        high=scaling.get("high_freq_factor", LLAMA3_HIGH),
        context=scaling.get("original_max_position_embeddings", LLAMA3_CONTEXT),
    )
    return factors.astype(np.float32)


def _listed(config: Mapping[str, Any], scaling: Mapping[str, Any], rotated: int, where: Path) -> np.ndarray:
    """Factors that scale frequencies and nothing else, which GGUF keeps as it keeps Llama 3's."""
    scale = longrope_scale(config["max_position_embeddings"], scaling["original_max_position_embeddings"])
    if not math.isclose(scale, 1.0):
        _refuse("rotations are scaled by a list of factors and by their context", where)
    return _broadcast(scaling["long_factor"], rotated)


def _longrope(config: Mapping[str, Any], scaling: Mapping[str, Any], rotated: int) -> tuple[dict[str, Any], Factors]:
    """mlx_lm takes the long factors at every length, so they are what was trained with; other programs would change
    to the short ones for short contexts, so they get the long ones there too.
    """
    original = config["original_max_position_embeddings"]
    scale = longrope_scale(config["max_position_embeddings"], original)
    long = _broadcast(scaling["long_factor"], rotated)
    values = {"scaling.original_context_length": original, "scaling.attn_factor": scale}
    return values, {LONG: long, SHORT: long}


def _broadcast(factors: Any, rotated: int) -> np.ndarray:
    return np.broadcast_to(np.array(factors, np.float32), (rotated // 2,)).copy()
