"""The architectures that are read from GGUF: each tensor's name in mlx_lm and its shape, and what config.json says.

A table and nothing else; a family that fits its columns is a row. What a family keeps to itself (attention that looks
back a window, capped scores) is a column too; whatever a row has no place for is refused by name by those who read it.

Source: gguf-py/gguf/constants.py and src/llama-model.cpp of https://github.com/ggml-org/llama.cpp, mlx_lm/models/*.py
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

HEAD_DIM = "head_dim"
HIDDEN = "hidden"
INNER = "inner"
KEYS = "keys"
QUERIES = "queries"


@dataclass(frozen=True)
class Part:
    """One tensor: its module in mlx_lm, and its shape in widths that a model's metadata give numbers to."""

    module: str
    shape: tuple[str, ...]


@dataclass(frozen=True)
class Setting:
    """A key of config.json that one family has, and the metadata key it comes from, without the architecture."""

    name: str
    key: str
    default: float | None = None
    """Where the metadata has no such key; None leaves it out, or is refused if it is required."""
    is_count: bool = False
    is_required: bool = False


@dataclass(frozen=True)
class Architecture:
    """What is needed to read one architecture."""

    model_type: str
    class_name: str
    block: Mapping[str, Part]
    """The tensors of a block, by the name between ``blk.N.`` and ``.weight``."""
    hidden_act: str = "silu"
    has_output: bool = True
    """Whether mlx_lm's class can have a head of its own; without one the embedding is used again."""
    permuted: tuple[str, ...] = ()
    """Projections whose rows GGUF stores with the two halves of each rotation interleaved."""
    norm_offset: float = 0.0
    """What GGUF's norms have more than mlx_lm's."""
    biased: tuple[str, ...] = ()
    """Tensors that have a bias always."""
    optional_biases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Tensors that have a bias if config.json's key says so; the first one tells."""
    has_head_dim: bool = True
    """Whether heads may be of another width than ``hidden / heads``."""
    has_partial_rotation: bool = False
    ropes: tuple[str, ...] = ()
    """The scalings of rotations that mlx_lm's class knows."""
    settings: tuple[Setting, ...] = ()
    wide_queries: int | None = None
    """The number of blocks of the one size whose queries are scaled by hidden / heads and not by the heads' width."""


TOP = {
    "token_embd": Part("model.embed_tokens", ("vocab", HIDDEN)),
    "output_norm": Part("model.norm", (HIDDEN,)),
    "output": Part("lm_head", ("vocab", HIDDEN)),
}
"""The tensors outside the blocks, the same for all."""

NORMS = {
    "attn_norm": Part("input_layernorm", (HIDDEN,)),
    "ffn_norm": Part("post_attention_layernorm", (HIDDEN,)),
}
FOUR_NORMS = {
    "attn_norm": Part("input_layernorm", (HIDDEN,)),
    "post_attention_norm": Part("post_attention_layernorm", (HIDDEN,)),
    "ffn_norm": Part("pre_feedforward_layernorm", (HIDDEN,)),
    "post_ffw_norm": Part("post_feedforward_layernorm", (HIDDEN,)),
}
HEAD_NORMS = {
    "attn_q_norm": Part("self_attn.q_norm", (HEAD_DIM,)),
    "attn_k_norm": Part("self_attn.k_norm", (HEAD_DIM,)),
}
ATTENTION = {
    "attn_q": Part("self_attn.q_proj", (QUERIES, HIDDEN)),
    "attn_k": Part("self_attn.k_proj", (KEYS, HIDDEN)),
    "attn_v": Part("self_attn.v_proj", (KEYS, HIDDEN)),
    "attn_output": Part("self_attn.o_proj", (HIDDEN, QUERIES)),
}
FUSED_ATTENTION = {
    "attn_qkv": Part("self_attn.qkv_proj", ("queries_keys_values", HIDDEN)),
    "attn_output": Part("self_attn.o_proj", (HIDDEN, QUERIES)),
}
FEED_FORWARD = {
    "ffn_gate": Part("mlp.gate_proj", (INNER, HIDDEN)),
    "ffn_up": Part("mlp.up_proj", (INNER, HIDDEN)),
    "ffn_down": Part("mlp.down_proj", (HIDDEN, INNER)),
}
FUSED_FEED_FORWARD = {  # the gate's rows first, as mlx_lm has them
    "ffn_up": Part("mlp.gate_up_proj", ("gate_and_inner", HIDDEN)),
    "ffn_down": Part("mlp.down_proj", (HIDDEN, INNER)),
}

WINDOW = Setting("sliding_window", "attention.sliding_window", is_count=True)
ROPES = ("linear", "yarn", "factors")

ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture(  # mistral too: GGUF has no other name for it
        model_type="llama",
        class_name="LlamaForCausalLM",
        block=ATTENTION | FEED_FORWARD | NORMS,
        permuted=("attn_q", "attn_k"),
        optional_biases={"attention_bias": tuple(ATTENTION), "mlp_bias": tuple(FEED_FORWARD)},
        ropes=ROPES,
        settings=(WINDOW,),
    ),
    "qwen2": Architecture(
        model_type="qwen2",
        class_name="Qwen2ForCausalLM",
        block=ATTENTION | FEED_FORWARD | NORMS,
        biased=("attn_q", "attn_k", "attn_v"),
        has_head_dim=False,
        ropes=ROPES,
    ),
    "qwen3": Architecture(
        model_type="qwen3",
        class_name="Qwen3ForCausalLM",
        block=ATTENTION | HEAD_NORMS | FEED_FORWARD | NORMS,
        ropes=ROPES,
    ),
    "gemma": Architecture(
        model_type="gemma",
        class_name="GemmaForCausalLM",
        block=ATTENTION | FEED_FORWARD | NORMS,
        hidden_act="gelu_pytorch_tanh",
        has_output=False,
        norm_offset=1.0,
    ),
    "gemma2": Architecture(
        model_type="gemma2",
        class_name="Gemma2ForCausalLM",
        block=ATTENTION | FEED_FORWARD | FOUR_NORMS,
        hidden_act="gelu_pytorch_tanh",
        has_output=False,
        norm_offset=1.0,
        settings=(
            WINDOW,
            Setting("attn_logit_softcapping", "attn_logit_softcapping", 50.0),
            Setting("final_logit_softcapping", "final_logit_softcapping", 30.0),
        ),
        wide_queries=46,
    ),
    "gemma3": Architecture(
        model_type="gemma3_text",
        class_name="Gemma3ForCausalLM",
        block=ATTENTION | HEAD_NORMS | FEED_FORWARD | FOUR_NORMS,
        hidden_act="gelu_pytorch_tanh",
        norm_offset=1.0,
        ropes=("linear",),
        settings=(
            Setting("sliding_window", "attention.sliding_window", is_count=True, is_required=True),
            Setting("sliding_window_pattern", "attention.sliding_window_pattern", 6, is_count=True),
            Setting("rope_local_base_freq", "rope.freq_base_swa", 10000.0),
        ),
        wide_queries=62,
    ),
    "phi3": Architecture(
        model_type="phi3",
        class_name="Phi3ForCausalLM",
        block=FUSED_ATTENTION | FUSED_FEED_FORWARD | NORMS,
        has_head_dim=False,
        has_partial_rotation=True,
        ropes=("longrope",),
        settings=(WINDOW,),
    ),
}

SCALES = (
    *("attn_logit_softcapping", "final_logit_softcapping", "logit_scale", "embedding_scale", "residual_scale"),
    *("attention.scale", "attention.clamp_kqv", "attention.max_alibi_bias", "expert_count"),
)
"""Metadata keys that change what a network computes, where they are there and not 0; only ``settings`` have some."""


def tensor_parts(architecture: Architecture, config: Mapping[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Every tensor that the file has to hold: its GGUF name to its mlx_lm name and its shape.

    Args:
        config: config.json, as config.py makes it.
    """
    hidden, head_dim = config["hidden_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head_dim, config["num_key_value_heads"] * head_dim
    widths = {"vocab": config["vocab_size"], HIDDEN: hidden, INNER: config["intermediate_size"], HEAD_DIM: head_dim}
    widths |= {QUERIES: queries, KEYS: keys, "queries_keys_values": queries + 2 * keys}
    widths["gate_and_inner"] = 2 * config["intermediate_size"]
    biased = set(architecture.biased)
    for key, stems in architecture.optional_biases.items():
        biased |= set(stems) if config[key] else set()
    parts: dict[str, tuple[str, tuple[int, ...]]] = {}

    def add(stem: str, name: str, module: str, symbols: tuple[str, ...]) -> None:
        shape = tuple(widths[symbol] for symbol in symbols)
        parts[f"{name}.weight"] = (f"{module}.weight", shape)
        if stem in biased:
            parts[f"{name}.bias"] = (f"{module}.bias", shape[:1])

    for stem, part in TOP.items():
        if stem != "output" or not config["tie_word_embeddings"]:
            add(stem, stem, part.module, part.shape)
    for i in range(config["num_hidden_layers"]):
        for stem, part in architecture.block.items():
            add(stem, f"blk.{i}.{stem}", f"model.layers.{i}.{part.module}", part.shape)
    return parts
