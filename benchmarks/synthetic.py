"""Models of any size with random weights, and rows of any length: for figures that depend on shapes alone.

Llama in SmolLM2's proportions: for every 192 of width three heads of 64, one of keys and values, and 512 inside the
feed-forward part; the output is tied to the embedding. The tokenizer makes a token of every byte, so that a text's
length is its number of tokens, less the EOS at its end.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlxtune  # noqa: F401 - opens the BLAS, before any other import of mlx

# isort: split
import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

WIDTH = 192
"""Widths are multiples of this."""
HEAD_DIM = 64
END = "<|end|>"


@dataclass(frozen=True)
class Shape:
    """A network's dimensions."""

    hidden_size: int
    layers: int
    vocab_size: int

    @property
    def heads(self) -> int:
        return self.hidden_size // HEAD_DIM

    @property
    def kv_heads(self) -> int:
        return self.heads // 3

    @property
    def intermediate_size(self) -> int:
        return self.hidden_size // 3 * 8

    def linear_dims(self) -> dict[str, tuple[int, int]]:
        """D_in and D_out of every linear layer of a block."""
        width, inner, shared = self.hidden_size, self.intermediate_size, self.kv_heads * HEAD_DIM
        return {
            "q_proj": (width, width),
            "k_proj": (width, shared),
            "v_proj": (width, shared),
            "o_proj": (width, width),
            "gate_proj": (width, inner),
            "up_proj": (width, inner),
            "down_proj": (inner, width),
        }


def write_model(folder: Path, shape: Shape, dtype: mx.Dtype) -> Path:
    """Write a model folder in Hugging Face's form: config, random weights, tokenizer; returns ``folder``."""
    from mlx_lm.models import llama

    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.layers,
        "intermediate_size": shape.intermediate_size,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": 1e-5,
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": 1 << 16,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "eos_token_id": 0,
    }
    network = llama.Model(llama.ModelArgs.from_dict(config))
    network.set_dtype(dtype)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    weights = dict(tree_flatten(network.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    write_byte_tokenizer(folder, shape.vocab_size)
    return folder


def write_byte_tokenizer(folder: Path, size: int) -> None:
    """A tokenizer of ``size`` tokens without merges: END, the bytes, and tokens that no text comes to."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [END, *alphabet]
    tokens += [f"<unused {i}>" for i in range(len(tokens), size)]
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(END, special=True)])
    backend.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "clean_up_tokenization_spaces": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def text_rows(count: int, length: int) -> Iterator[dict[str, Any]]:
    """Rows of random letters, which by the byte tokenizer have ``length`` tokens with their EOS; no two begin alike."""
    letters = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz", np.uint8)
    generator = np.random.default_rng(0)
    for _ in range(count):
        yield {"text": generator.choice(letters, length - 1).tobytes().decode()}
