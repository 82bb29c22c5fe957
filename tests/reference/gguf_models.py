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

LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"factor": 32.0, "original_max_position_embeddings": 8192}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LISTED = {"rope_type": "longrope", "original_max_position_embeddings": 256}
LISTED |= {f"{one}_factor": [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 7.0] for one in ("long", "short")}
GEMMA = {"head_dim": 32, "rms_norm_eps": 1e-6}

FAMILIES = {  # model type, and what config.json has beside SHAPE
    "llama": ("llama", {}),
    "llama with a head of its own": ("llama", {"tie_word_embeddings": False}),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama with wide heads": ("llama", {"head_dim": 32}),
    "llama, linear": ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    "llama, yarn": ("llama", {"rope_scaling": YARN}),
    "llama 3": ("llama", {"rope_scaling": LLAMA3, "rope_theta": 500000.0, "head_dim": 64}),
    "llama with other factors": ("llama", {"rope_scaling": LISTED}),
    "mistral": ("llama", {"sliding_window": 200, "tie_word_embeddings": False}),
    "qwen2": ("qwen2", {"rope_theta": 1000000.0}),
    "qwen2, yarn": ("qwen2", {"rope_scaling": YARN, "tie_word_embeddings": False}),
    "qwen3": ("qwen3", {"head_dim": 32, "rope_theta": 1000000.0}),
    "qwen3, yarn": ("qwen3", {"head_dim": 16, "rope_scaling": YARN}),
    "gemma": ("gemma", GEMMA),
    "gemma2": (
        "gemma2",
        GEMMA
        | {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0, "sliding_window": 32}
        | {"query_pre_attn_scalar": 32},
    ),
    "gemma3": (
        "gemma3_text",
        GEMMA | {"num_hidden_layers": 7, "sliding_window": 4, "query_pre_attn_scalar": 32, "rope_theta": 1e6},
    ),
    "gemma3, linear": (
        "gemma3_text",
        GEMMA
        | {"num_hidden_layers": 6, "sliding_window": 8, "query_pre_attn_scalar": 32}
        | {"rope_scaling": {"rope_type": "linear", "factor": 8.0}},
    ),
    "phi3": ("phi3", {"tie_word_embeddings": False, "sliding_window": 200}),
    "phi3, long": (
        "phi3",
        {"partial_rotary_factor": 0.75, "original_max_position_embeddings": 64}
        | {
            "rope_scaling": {
                "type": "longrope",
                "long_factor": [1.0, 1.25, 2.0, 2.5, 4.0, 8.0],
                "short_factor": [1.0, 1.0, 1.0, 1.1, 1.2, 1.3],
            }
        },
    ),
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
