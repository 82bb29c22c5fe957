"""A network of mlx_lm as a GGUF file, as the format's own documentation and the gguf package's tables have it.

Written against llama.cpp's converter: names come from the gguf package, values from the rules that its model classes
follow (llama's rows of q and k interleaved, Gemma's norms stored plus one, Llama 3's scaling as a tensor of factors).
"""

import math
from pathlib import Path

import gguf
import numpy as np
from mlx import nn
from mlx.utils import tree_flatten

ARCHITECTURES = {"gemma3_text": "gemma3"}  # where GGUF has another name than Hugging Face


def write_network(
    path: Path,
    network: nn.Module,
    config: dict,
    tokenizer: dict,
    blocks: dict[str, tuple[np.ndarray, gguf.GGMLQuantizationType]] | None = None,
) -> None:
    """Write ``network`` in float32.

    Args:
        config: config.json, as Hugging Face has it.
        tokenizer: metadata to be added as it is, by key.
        blocks: by GGUF name, what is written in place of some weights.
    """
    name = ARCHITECTURES.get(config["model_type"], config["model_type"])
    kinds = {text: kind for kind, text in gguf.MODEL_ARCH_NAMES.items()}
    writer = gguf.GGUFWriter(path, name)
    _add_metadata(writer, config)
    _add_tokenizer(writer, tokenizer)
    names = gguf.get_tensor_name_map(kinds[name], config["num_hidden_layers"])
    for weight_name, array in tree_flatten(network.parameters()):
        module, part = weight_name.rsplit(".", 1)
        value = np.array(array)
        if name == "llama" and module.endswith(("q_proj", "k_proj")):
            heads = config["num_attention_heads" if module.endswith("q_proj") else "num_key_value_heads"]
            value = interleaved(value, heads)
        if name.startswith("gemma") and module.endswith("norm"):
            value = value + np.float32(1)
        stored, kind = f"{names.get_name(module)}.{part}", None
        if blocks and stored in blocks:
            value, kind = blocks[stored]
        writer.add_tensor(stored, np.ascontiguousarray(value), raw_dtype=kind)
    for tensor, factors in _factor_tensors(config).items():
        writer.add_tensor(tensor, np.array(factors, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def interleaved(rows: np.ndarray, heads: int) -> np.ndarray:
    """[heads * head_dim, ...]: in each head row i of the first half, then row i of the second, for i = 0, 1, ..."""
    result = []
    for head in np.split(rows, heads):
        half = len(head) // 2
        for i in range(half):
            result += [head[i], head[half + i]]
    return np.array(result)


def llama3_factors(base: float, dims: int, scaling: dict) -> list[float]:
    """The factors by which Llama 3.1 divides its frequencies, one by one, as its model card's code does."""
    factors = []
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    context = scaling["original_max_position_embeddings"]
    for i in range(0, dims, 2):
        wavelength = 2 * math.pi * base ** (i / dims)
        if wavelength < context / high:
            factors.append(1.0)
        elif wavelength > context / low:
            factors.append(float(scaling["factor"]))
        else:
            smooth = (context / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / scaling["factor"] + smooth))
    return factors


def _head_dim(config: dict) -> int:
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def _add_metadata(writer: gguf.GGUFWriter, config: dict) -> None:
    head_dim = _head_dim(config)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(round(head_dim * config.get("partial_rotary_factor", 1)))
    if "sliding_window" in config:
        writer.add_sliding_window(config["sliding_window"])
    if config["model_type"] == "gemma2":
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    scaling = config.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind in {"linear", "yarn"}:
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(scaling["factor"])
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])
    if kind == "longrope" and config["model_type"] == "phi3":
        original = config["original_max_position_embeddings"]
        ratio = config["max_position_embeddings"] / original
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(ratio) / math.log(original)))


def _factor_tensors(config: dict) -> dict[str, list[float]]:
    scaling = config.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind == "llama3":
        return {"rope_freqs.weight": llama3_factors(config["rope_theta"], _head_dim(config), scaling)}
    if kind == "longrope" and config["model_type"] != "phi3":
        return {"rope_freqs.weight": scaling["long_factor"]}
    if kind == "longrope":
        return {f"rope_factors_{one}.weight": scaling[f"{one}_factor"] for one in ("long", "short")}
    return {}


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: dict) -> None:
    add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    for key, value in tokenizer.items():
        if isinstance(value, list):
            writer.add_array(key, value)
        elif value is not None:
            add[type(value)](key, value)
