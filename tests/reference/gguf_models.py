"""Tiny networks of mlx_lm, all weights random, and a tokenizer's metadata: what GGUF files are written from."""

import importlib

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten
from tiny import CHATML
from tokenizers import pre_tokenizers

ROWS = 264
TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "th"]
TOKENIZER = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "qwen2",
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.token_type": [3] * 3 + [1] * 257,
    "tokenizer.ggml.merges": ["t h"],
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.chat_template": CHATML,
}

SHAPE = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": ROWS,
    "max_position_embeddings": 256,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
}


def random_network(config: dict, seed: int = 0) -> nn.Module:
    """mlx_lm's class for the config, every weight random: a norm that is all ones would hide an offset."""
    classes = importlib.import_module(f"mlx_lm.models.{config['model_type']}")
    network = classes.Model(classes.ModelArgs.from_dict(config))
    if config["model_type"] == "gemma3_text" and config["tie_word_embeddings"]:
        network.sanitize({})
    weights = tree_flatten(network.parameters())
    keys = mx.random.split(mx.random.key(seed), len(weights))
    network.load_weights(
        [(name, 0.2 * mx.random.normal(w.shape, key=key)) for (name, w), key in zip(weights, keys, strict=True)]
    )
    network.eval()
    return network
