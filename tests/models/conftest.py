"""A tiny llama as a GGUF file, written by the gguf package, with each supported tensor type in it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from mlx.utils import tree_flatten
from tiny import CHATML, tiny_llama
from tokenizers import pre_tokenizers

Q4_1, Q8_0, F16, F32 = (gguf.GGMLQuantizationType[name] for name in ("Q4_1", "Q8_0", "F16", "F32"))
MODULES = {
    "self_attn.q_proj": ("attn_q", Q4_1),
    "self_attn.k_proj": ("attn_k", Q4_1),
    "self_attn.v_proj": ("attn_v", Q8_0),
    "self_attn.o_proj": ("attn_output", Q4_1),
    "mlp.gate_proj": ("ffn_gate", F16),
    "mlp.up_proj": ("ffn_up", F32),
    "mlp.down_proj": ("ffn_down", Q4_1),
    "input_layernorm": ("attn_norm", F32),
    "post_attention_layernorm": ("ffn_norm", F32),
}
TOP = {"model.embed_tokens": ("token_embd", Q8_0), "model.norm": ("output_norm", F32), "lm_head": ("output", Q8_0)}
HEADS, KV_HEADS = 4, 2
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["t h", "th e", "1 2"]
TOKENS = SPECIAL + sorted(pre_tokenizers.ByteLevel.alphabet()) + ["th", "the", "12"]

METADATA: dict[str, Any] = {
    "llama.block_count": 2,
    "llama.context_length": 128,
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 128,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KV_HEADS,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 10000.0,
    "llama.rope.dimension_count": 16,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.token_type": [3] * len(SPECIAL) + [1] * (len(TOKENS) - len(SPECIAL)),
    "tokenizer.ggml.merges": MERGES,
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.unknown_token_id": 0,
    "tokenizer.ggml.padding_token_id": 2,
    "tokenizer.ggml.add_bos_token": False,
    "tokenizer.chat_template": CHATML,
}


def gguf_name(name: str) -> tuple[str, gguf.GGMLQuantizationType]:
    """The GGUF name of an MLX weight, and the type in which the tiny file stores it."""
    module, part = name.rsplit(".", 1)
    if module in TOP:
        stem, kind = TOP[module]
        return f"{stem}.{part}", kind
    _, _, block, module = module.split(".", 3)
    stem, kind = MODULES[module]
    return f"blk.{block}.{stem}.{part}", kind


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's own order of the rows of q and k (convert_hf_to_gguf.py, LlamaModel.permute)."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def write_tiny_gguf(
    path: Path,
    *,
    tied: bool = True,
    architecture: str = "llama",
    types: dict[str, gguf.GGMLQuantizationType] | None = None,
    drop: str | None = None,
    extra: dict[str, np.ndarray] | None = None,
    **metadata: Any,
) -> dict[str, np.ndarray]:
    """Write the file; returns the float32 weights that went in, by their MLX names, q and k in MLX's order.

    Args:
        types: other tensor types, by GGUF name.
        drop: the GGUF name of a tensor to leave out.
        extra: more tensors, by GGUF name.
        metadata: other values, by key with `__` for `.`; None leaves the key out.
    """
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in (METADATA | {key.replace("__", "."): value for key, value in metadata.items()}).items():
        add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
        if isinstance(value, list):
            writer.add_array(key, value)
        elif value is not None:
            add[type(value)](key, value)
    network = tiny_llama(seed=3, tied=tied)
    weights = {name: np.array(weight) for name, weight in tree_flatten(network.parameters())}
    for name, weight in weights.items():
        stored, kind = gguf_name(name)
        kind = (types or {}).get(stored, kind)
        if stored == drop:
            continue
        if ".attn_q." in stored or ".attn_k." in stored:
            weight = permuted(weight, HEADS if ".attn_q." in stored else KV_HEADS)  # noqa: PLW2901 - what is stored
        writer.add_tensor(stored, gguf.quants.quantize(weight, kind), raw_dtype=kind)
    for name, array in (extra or {}).items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


@pytest.fixture(scope="session")
def write_gguf() -> Callable[..., dict[str, np.ndarray]]:
    return write_tiny_gguf


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One tiny GGUF file, not to be changed."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_tiny_gguf(path)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own."""
    monkeypatch.setenv("MLXTUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
