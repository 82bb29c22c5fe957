"""config.json from a GGUF file's metadata, as mlx_lm's classes and transformers read it.

Knows metadata and which tensors there are, not their values, but for the factors of rotations. What the metadata asks
for and the family's class in mlx_lm does not do is refused by name: the network would be another one.
"""

import math
from typing import Any

from mlxtune.errors import ModelError
from mlxtune.models import DAMAGED
from mlxtune.models.gguf.architectures import ARCHITECTURES, SCALES, Architecture
from mlxtune.models.gguf.header import GgufHeader
from mlxtune.models.gguf.rope import rope_settings
from mlxtune.models.gguf.values import SUPPORTED, count, number, short

ENDS_OF_TURN = ("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>")
"""The tokens that llama.cpp, too, takes for the end of a turn where the metadata names none."""


def architecture_of(header: GgufHeader) -> tuple[str, Architecture]:
    """The architecture's name and its row. Raises: ModelError, if there is none."""
    name = header.metadata.get("general.architecture")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise ModelError(f"the architecture {short(name)} is not supported", where=header.path, remedy=SUPPORTED)
    return name, ARCHITECTURES[name]


def make_config(header: GgufHeader) -> dict[str, Any]:
    """Everything config.json says but for what is quantized how; ``head_dim`` is always among it.

    Raises: ModelError, if a key is missing or impossible, or asks for what mlx_lm's class does not do.
    """
    name, architecture = architecture_of(header)
    _refuse_others(header, name, architecture)
    heads = _heads(header, name, architecture)
    if "token_embd.weight" not in header.tensors:
        raise ModelError("the tensor token_embd.weight is missing", where=header.path, remedy=DAMAGED)
    config: dict[str, Any] = {
        "architectures": [architecture.class_name],
        "model_type": architecture.model_type,
        "hidden_act": architecture.hidden_act,
        "intermediate_size": count(header, f"{name}.feed_forward_length"),
        "num_hidden_layers": count(header, f"{name}.block_count"),
        "rms_norm_eps": number(header, f"{name}.attention.layer_norm_rms_epsilon"),
        "rope_theta": number(header, f"{name}.rope.freq_base", 10000.0),
        "max_position_embeddings": count(header, f"{name}.context_length"),
        "vocab_size": header.tensors["token_embd.weight"].shape[0],
        "tie_word_embeddings": not (architecture.has_output and "output.weight" in header.tensors),
        **heads,
    }
    rotated = count(header, f"{name}.rope.dimension_count", config["head_dim"])
    if architecture.has_partial_rotation and rotated != config["head_dim"]:
        config["partial_rotary_factor"] = _share(rotated, config["head_dim"])
    config |= rope_settings(header, name, architecture, rotated=rotated)
    for key, stems in architecture.optional_biases.items():
        config[key] = f"blk.0.{stems[0]}.bias" in header.tensors
    for setting in architecture.settings:
        is_given = header.metadata.get(f"{name}.{setting.key}", 0) != 0  # phi 4 says 0 for no window
        if is_given or setting.is_required or setting.default is not None:
            read = count if setting.is_count else number
            config[setting.name] = read(header, f"{name}.{setting.key}", setting.default)  # pyright: ignore[reportArgumentType] - counts have whole defaults
    if architecture.wide_queries is not None:
        is_wide = config["num_hidden_layers"] == architecture.wide_queries
        scalar = config["hidden_size"] // config["num_attention_heads"] if is_wide else config["head_dim"]
        config["query_pre_attn_scalar"] = scalar
    return config | _token_ids(header, config["vocab_size"])


def _refuse_others(header: GgufHeader, name: str, architecture: Architecture) -> None:
    """Raises: ModelError, for what is no whole model, and for scales that the family's class does not have."""
    if (kind := header.metadata.get("general.type", "model")) != "model":
        what = f"the file holds no model but is of the type {short(kind)}"
        raise ModelError(what, where=header.path, remedy="give the model's own file")
    if header.metadata.get("split.count", 1) != 1:
        raise ModelError(
            "the model is split over several files, which is not supported", where=header.path, remedy=SUPPORTED
        )
    own = {setting.key for setting in architecture.settings}
    for key in SCALES:
        value = header.metadata.get(f"{name}.{key}", 0)
        if value != 0 and key not in own:
            what = "this is a mixture of experts" if key == "expert_count" else f"{name}.{key} is {short(value)}"
            raise ModelError(f"{what}, which is not supported", where=header.path, remedy=SUPPORTED)


def _heads(header: GgufHeader, name: str, architecture: Architecture) -> dict[str, int]:
    hidden_size = count(header, f"{name}.embedding_length")
    heads = count(header, f"{name}.attention.head_count")
    kv_heads = count(header, f"{name}.attention.head_count_kv", heads)
    head_dim = count(header, f"{name}.attention.key_length", max(1, hidden_size // heads))
    rotated = count(header, f"{name}.rope.dimension_count", head_dim)
    is_whole = rotated == head_dim or (architecture.has_partial_rotation and rotated < head_dim)
    if heads % kv_heads or head_dim % 2 or rotated % 2 or not is_whole:
        what = f"{heads} heads, {kv_heads} key heads and {rotated} of {head_dim} rotated dimensions"
        raise ModelError(f"{what} do not go together", where=header.path, remedy=SUPPORTED)
    if not architecture.has_head_dim and head_dim * heads != hidden_size:
        what = f"{heads} heads of {head_dim} are not as wide as the model, {hidden_size}, as mlx_lm's {name} has them"
        raise ModelError(what, where=header.path, remedy=SUPPORTED)
    if count(header, f"{name}.attention.value_length", head_dim) != head_dim:
        raise ModelError("keys and values of different widths are not supported", where=header.path, remedy=SUPPORTED)
    sizes = {"hidden_size": hidden_size, "num_attention_heads": heads, "num_key_value_heads": kv_heads}
    return sizes | {"head_dim": head_dim}


def _share(part: int, whole: int) -> float:
    """A number whose product with ``whole``, rounded down as mlx_lm does it, is ``part``: 30 / 44 alone gives 29."""
    share = part / whole
    return share if int(whole * share) == part else math.nextafter(share, 1)


def _token_ids(header: GgufHeader, vocab_size: int) -> dict[str, Any]:
    """bos and eos for config.json; a chat model's end of turn is an eos too, which older files do not name."""
    ids: dict[str, int] = {}
    for name in ("bos", "eos", "eot"):
        key = f"tokenizer.ggml.{name}_token_id"
        if key in header.metadata:
            ids[name] = count(header, key, least=0, most=vocab_size - 1)
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    if "eot" not in ids and isinstance(tokens, list):
        ids |= next(({"eot": tokens.index(text)} for text in ENDS_OF_TURN if text in tokens[:vocab_size]), {})
    eos = list(dict.fromkeys(ids[name] for name in ("eos", "eot") if name in ids))
    result: dict[str, Any] = {"bos_token_id": ids["bos"]} if "bos" in ids else {}
    if eos:
        result["eos_token_id"] = eos if len(eos) > 1 else eos[0]
    return result
