"""A GGUF file of a llama model as an MLX folder, its stored blocks passed through to the last bit.

Knows llama's names and shapes, and the two block formats that are MLX's own in another order: Q4_1 is affine 4-bit and
Q8_0 affine 8-bit, both in groups of 32. Quantizing dequantized values again would give another grid, so the codes are
only rearranged. Everything else is refused by name; the price is that a file has to be of these few types.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from gguf.constants import GGMLQuantizationType

from mlxtune.errors import ModelError
from mlxtune.models import DAMAGED
from mlxtune.models.gguf_header import GgufHeader, read_header
from mlxtune.models.gguf_tokenizer import write_gguf_tokenizer
from mlxtune.models.write import quantization_config, write_config, write_weights
from mlxtune.progress import Progress, silent

GROUP = 32  # values in a block of either quantized type
FLOATS = {GGMLQuantizationType.F32: np.dtype("<f4"), GGMLQuantizationType.F16: np.dtype("<f2")}
BITS = {GGMLQuantizationType.Q4_1: 4, GGMLQuantizationType.Q8_0: 8}
TYPES = ", ".join(kind.name for kind in (*FLOATS, *BITS))
SUPPORTED = f"use a llama model in {TYPES}, or the model's safetensors version"

TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
BLOCK = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


@dataclass(frozen=True)
class GgufModel:
    """A GGUF file that is known to hold a llama model we can read whole."""

    header: GgufHeader
    config: dict[str, Any]
    """config.json, as Hugging Face and mlx_lm write it for llama."""

    @property
    def metadata(self) -> dict[str, Any]:
        return self.header.metadata


def read_gguf(path: Path) -> GgufModel:
    """Read and check everything but the weights' values.

    Raises: ModelError, if the file is damaged, of another architecture, has a tensor of another type or shape, one too
        many or one too few.
    """
    header = read_header(path)
    architecture = header.metadata.get("general.architecture")
    if architecture != "llama":
        raise ModelError(f"the architecture {architecture} is not supported", where=path, remedy=SUPPORTED)
    config = _config(header)
    _check_tensors(header, _shapes(config), config["num_hidden_layers"])
    layers = {
        _module(name): {"group_size": GROUP, "bits": BITS[tensor.type], "mode": "affine"}
        for name, tensor in header.tensors.items()
        if tensor.type in BITS
    }
    if quantization := quantization_config(layers):
        config["quantization"] = quantization
    return GgufModel(header, config)


def read_weights(model: GgufModel) -> Iterator[tuple[str, np.ndarray]]:
    """Every array of the MLX model and its name: floats as stored, codes as uint32, scales and biases as float16.

    Raises: ModelError, if a scale is not finite, in float16, as the file or as MLX needs it.
    """
    content = np.memmap(model.header.path, mode="r")
    heads = {"attn_q": model.config["num_attention_heads"], "attn_k": model.config["num_key_value_heads"]}
    for name, tensor in model.header.tensors.items():
        raw = content[tensor.begin : tensor.begin + tensor.byte_count].reshape(tensor.shape[0], -1)
        if permuted := heads.get(name.split(".")[-2]):
            raw = raw[unpermuted_rows(len(raw), permuted)]
        module, part = _module(name), name.rsplit(".", 1)[-1]
        if tensor.type in FLOATS:
            array = np.frombuffer(raw.tobytes(), FLOATS[tensor.type]).reshape(tensor.shape)
            yield f"{module}.{part}", array
            continue
        unpack = q4_1_to_affine if tensor.type is GGMLQuantizationType.Q4_1 else q8_0_to_affine
        weight, scales, biases = unpack(np.ascontiguousarray(raw))
        if not (np.isfinite(scales).all() and np.isfinite(biases).all()):
            raise ModelError(f"tensor {name} has scales beyond float16", where=model.header.path, remedy=DAMAGED)
        yield from zip(
            (f"{module}.weight", f"{module}.scales", f"{module}.biases"), (weight, scales, biases), strict=True
        )


def write_gguf_folder(path: Path, folder: Path, *, progress: Progress = silent) -> dict[str, Any]:
    """Write the model in the GGUF file ``path`` to ``folder`` as an MLX folder that mlx_lm.load opens.

    Returns: its config.
    Raises: ModelError, if the file cannot be read whole.
    """
    model = read_gguf(path)
    write_gguf_tokenizer(model.metadata, folder, where=path, rows=model.config["vocab_size"])
    tensors = model.header.tensors.values()
    count = sum(3 if tensor.type in BITS else 1 for tensor in tensors)
    arrays = ((name, mx.array(array)) for name, array in read_weights(model))
    write_weights(folder, arrays, count=count, progress=progress)
    write_config(folder, model.config)
    return model.config


def q4_1_to_affine(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Q4_1 blocks in MLX's order: value = scale * code + bias.

    A block is two float16, scale and bias, and 16 bytes, in which byte j has code j below and code j + 16 above; MLX
    wants code 2 j below and code 2 j + 1 above.

    Args:
        raw: [rows, blocks * 20], uint8, contiguous.

    Returns: codes [rows, blocks * 4] uint32, scales and biases [rows, blocks] float16.
    """
    blocks = raw.reshape(len(raw), -1, 20)
    packed = blocks[..., 4:]
    codes = np.concatenate([packed & 0x0F, packed >> 4], axis=-1)
    weight = codes[..., 0::2] | (codes[..., 1::2] << 4)
    return _words(weight), _halves(blocks[..., 0:2]), _halves(blocks[..., 2:4])


def q8_0_to_affine(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Q8_0 blocks in MLX's order: a block's signed codes become unsigned by adding 128, and the bias is -128 * scale.

    Args:
        raw: [rows, blocks * 34], uint8, contiguous; a block is one float16 and 32 int8.

    Returns: codes [rows, blocks * 8] uint32, scales and biases [rows, blocks] float16.
    """
    blocks = raw.reshape(len(raw), -1, 34)
    scales = _halves(blocks[..., 0:2])
    with np.errstate(over="ignore"):  # exact, or infinite, which the caller refuses
        biases = scales * np.float16(-128)
    return _words(blocks[..., 2:] ^ 0x80), scales, biases


def unpermuted_rows(row_count: int, heads: int) -> np.ndarray:
    """Which stored row is row i of a q or k projection: GGUF's llama interleaves the two halves of each rotation.

    Returns: [row_count]; only rows move, so that quantized ones move whole.
    """
    return np.arange(row_count).reshape(heads, row_count // heads // 2, 2).swapaxes(1, 2).reshape(-1)


def _words(codes: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(codes).view("<u4").reshape(len(codes), -1)


def _halves(pairs: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pairs).view("<f2")[..., 0]


def _config(header: GgufHeader) -> dict[str, Any]:
    """Raises: ModelError, if a key is missing or impossible, or asks for what mlx_lm's llama does not do."""
    metadata, path = header.metadata, header.path
    if metadata.get("split.count", 1) != 1 or metadata.get("llama.expert_count", 0) != 0:
        what = "the model is split over several files" if "split.count" in metadata else "this is a mixture of experts"
        raise ModelError(f"{what}, which is not supported", where=path, remedy=SUPPORTED)
    hidden_size = _count(header, "llama.embedding_length")
    heads = _count(header, "llama.attention.head_count")
    kv_heads = _count(header, "llama.attention.head_count_kv", heads)
    head_dim = _count(header, "llama.attention.key_length", hidden_size // heads)
    rotated = _count(header, "llama.rope.dimension_count", head_dim)
    if heads % kv_heads or head_dim % 2 or rotated != head_dim:
        raise ModelError(
            f"{heads} heads, {kv_heads} key heads and {rotated} of {head_dim} rotated dimensions do not go together",
            where=path,
            remedy=SUPPORTED,
        )
    if _count(header, "llama.attention.value_length", head_dim) != head_dim:
        raise ModelError("keys and values of different widths are not supported", where=path, remedy=SUPPORTED)
    if "token_embd.weight" not in header.tensors:
        raise ModelError("the tensor token_embd.weight is missing", where=path, remedy=DAMAGED)
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": hidden_size,
        "intermediate_size": _count(header, "llama.feed_forward_length"),
        "num_hidden_layers": _count(header, "llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "rms_norm_eps": _float(header, "llama.attention.layer_norm_rms_epsilon"),
        "rope_theta": _float(header, "llama.rope.freq_base", 10000.0),
        "max_position_embeddings": _count(header, "llama.context_length"),
        "vocab_size": header.tensors["token_embd.weight"].shape[0],
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "attention_bias": "blk.0.attn_q.bias" in header.tensors,
        "mlp_bias": "blk.0.ffn_gate.bias" in header.tensors,
        "torch_dtype": "float16",
    }
    return config | _rope_scaling(header) | _token_ids(header, config["vocab_size"])


def _rope_scaling(header: GgufHeader) -> dict[str, Any]:
    if any(name.startswith("rope_") for name in header.tensors):
        raise ModelError(
            "tensors of rotation factors (rope_freqs) are not supported", where=header.path, remedy=SUPPORTED
        )
    kind = header.metadata.get("llama.rope.scaling.type", "none")
    if kind == "none":
        return {}
    if kind != "linear":
        raise ModelError(f"rotary scaling of the type {kind} is not supported", where=header.path, remedy=SUPPORTED)
    return {"rope_scaling": {"rope_type": "linear", "factor": _float(header, "llama.rope.scaling.factor")}}


def _token_ids(header: GgufHeader, vocab_size: int) -> dict[str, Any]:
    """bos and eos for config.json; a chat model's end of turn is an eos too."""
    ids: dict[str, int] = {}
    for name in ("bos", "eos", "eot"):
        key = f"tokenizer.ggml.{name}_token_id"
        if key in header.metadata:
            ids[name] = _count(header, key, least=0, most=vocab_size - 1)
    eos = list(dict.fromkeys(ids[name] for name in ("eos", "eot") if name in ids))
    result: dict[str, Any] = {"bos_token_id": ids["bos"]} if "bos" in ids else {}
    if eos:
        result["eos_token_id"] = eos if len(eos) > 1 else eos[0]
    return result


def _count(header: GgufHeader, key: str, default: int | None = None, *, least: int = 1, most: int = 2**31 - 1) -> int:
    value = header.metadata.get(key, default)
    if type(value) is not int or not least <= value <= most:
        what = "is missing" if value is None else f"is {value!r}, not a number from {least} to {most}"
        raise ModelError(f"{key} {what}", where=header.path, remedy=DAMAGED)
    return value


def _float(header: GgufHeader, key: str, default: float | None = None) -> float:
    """The shortest number that is the stored float32: 1e-05, not 9.999999747378752e-06."""
    value = header.metadata.get(key, default)
    if not isinstance(value, float) or not isfinite(value) or value <= 0:
        raise ModelError(f"{key} is {value!r}, not a positive number", where=header.path, remedy=DAMAGED)
    return float(str(np.float32(value)))


def _shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of one block, and of those outside the blocks, by name without ``blk.N``."""
    hidden, inner, head_dim = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head_dim, config["num_key_value_heads"] * head_dim
    attention = {"attn_q": (queries, hidden), "attn_k": (keys, hidden), "attn_v": (keys, hidden)}
    attention |= {"attn_output": (hidden, queries)}
    feed_forward = {"ffn_gate": (inner, hidden), "ffn_up": (inner, hidden), "ffn_down": (hidden, inner)}
    tops = ("token_embd",) if config["tie_word_embeddings"] else ("token_embd", "output")
    matrices = attention | feed_forward | dict.fromkeys(tops, (config["vocab_size"], hidden))
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": shape for name, shape in matrices.items()}
    shapes |= {f"{name}.weight": (hidden,) for name in ("output_norm", "attn_norm", "ffn_norm")}
    biased = (attention if config["attention_bias"] else {}) | (feed_forward if config["mlp_bias"] else {})
    return shapes | {f"{name}.bias": (shape[0],) for name, shape in biased.items()}


def _check_tensors(header: GgufHeader, shapes: dict[str, tuple[int, ...]], layers: int) -> None:
    """Raises: ModelError, if the tensors are not exactly those that ``shapes`` and the number of layers ask for."""

    def refuse(what: str, remedy: str = DAMAGED) -> None:
        raise ModelError(what, where=header.path, remedy=remedy)

    if layers > len(header.tensors):
        refuse(f"there are {layers:,} blocks but only {len(header.tensors):,} tensors")
    expected = {
        f"blk.{i}.{name}" if name.split(".")[0] in BLOCK else name: shape
        for name, shape in shapes.items()
        for i in (range(layers) if name.split(".")[0] in BLOCK else range(1))
    }
    if missing := sorted(expected.keys() - header.tensors.keys()):
        refuse(f"{len(missing)} tensors are missing, such as {missing[0]}")
    if extra := sorted(header.tensors.keys() - expected.keys()):
        refuse(f"a plain llama has no tensor {extra[0]}", SUPPORTED)
    for name, tensor in header.tensors.items():
        if tensor.type not in FLOATS and (tensor.type not in BITS or len(tensor.shape) == 1):
            refuse(f"tensor {name} is stored as {tensor.type.name}; {TYPES} are supported", SUPPORTED)
        if tensor.shape != expected[name]:
            refuse(f"tensor {name} has the shape {tensor.shape}, not {expected[name]}")


def _module(name: str) -> str:
    """The path of the MLX module that a GGUF tensor belongs to."""
    stem = name.rsplit(".", 1)[0]
    if block := re.fullmatch(r"blk\.(\d+)\.(\w+)", stem):
        return f"model.layers.{block[1]}.{BLOCK[block[2]]}"
    return TOP[stem]
