"""Model families at their smallest: a config of each that mlx_lm builds, 4 bits can store and a CPU trains in no time.

Widths are multiples of 32, so that every matrix can be quantized. Settings that leave a trace in the logits (scales,
soft-caps, windows) are set to values that a mistake would show at.
"""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten, tree_map
from mlx_lm.utils import _get_classes
from tiny import VOCABULARY_SIZE, write_tokenizer

SHAPE = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "rms_norm_eps": 1e-5,
    "vocab_size": VOCABULARY_SIZE,
    "max_position_embeddings": 512,
    "rope_theta": 1e4,
    "tie_word_embeddings": False,
    "eos_token_id": 2,
}
SLIDING = ["sliding_attention", "full_attention"]
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "norm_topk_prob": True}
SHARED_EXPERT = {"shared_expert_intermediate_size": 32, "decoder_sparse_step": 1, "mlp_only_layers": []}
GRANITE = {
    "logits_scaling": 8.0,
    "attention_multiplier": 0.3,
    "embedding_multiplier": 12.0,
    "residual_multiplier": 0.2,
    "attention_bias": False,
    "mlp_bias": False,
}
LATENT = {
    "kv_lora_rank": 32,
    "q_lora_rank": 32,
    "qk_rope_head_dim": 32,
    "qk_nope_head_dim": 32,
    "v_head_dim": 32,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "n_group": 2,
    "topk_group": 1,
    "routed_scaling_factor": 1.5,
    "norm_topk_prob": True,
    "attention_bias": False,
    "num_key_value_heads": 4,
}
YARN = {
    "type": "yarn",
    "factor": 4,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "beta_fast": 32,
    "beta_slow": 1,
    "original_max_position_embeddings": 128,
}
DELTA = {
    "linear_num_value_heads": 2,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "linear_conv_kernel_dim": 3,
    "full_attention_interval": 2,
    "partial_rotary_factor": 0.5,
}
ROPE4 = {
    "full_attention": {"partial_rotary_factor": 0.5, "rope_theta": 1e6},
    "sliding_attention": {"rope_theta": 1e4},
}

GEMMA4 = {
    "global_head_dim": 32,
    "num_global_key_value_heads": 2,
    "vocab_size_per_layer_input": VOCABULARY_SIZE,
    "hidden_size_per_layer_input": 32,
    "num_hidden_layers": 4,
    "num_kv_shared_layers": 2,
    "sliding_window": 8,
    "sliding_window_pattern": 2,
    "layer_types": SLIDING * 2,
    "final_logit_softcapping": 3.0,
    "rope_parameters": ROPE4,
}

MINISTRAL3 = {
    "layer_types": SLIDING,
    "sliding_window": 8,
    "rope_parameters": {
        "rope_theta": 1e4,
        "llama_4_scaling_beta": 0.1,
        "original_max_position_embeddings": 16,
        "type": "default",
    },
}

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"layer_types": SLIDING, "sliding_window": 8},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {},
    "smollm3": {"tie_word_embeddings": True},
    "phi3": {},
    "gemma": {},
    "gemma2": {"final_logit_softcapping": 3.0, "attn_logit_softcapping": 5.0, "query_pre_attn_scalar": 32},
    "gemma3_text": {"sliding_window": 8, "sliding_window_pattern": 2, "query_pre_attn_scalar": 32},
    "gemma4_text": GEMMA4,
    "gemma4": {"text_config": GEMMA4 | {"model_type": "gemma4_text"}},
    "ministral3": MINISTRAL3,
    "mistral3": {"text_config": MINISTRAL3 | {"model_type": "ministral3"}},
    "granite": GRANITE,
    "phi": {"partial_rotary_factor": 0.5, "layer_norm_eps": 1e-5},
    "cohere": {"layer_norm_eps": 1e-5, "logit_scale": 0.25, "use_qk_norm": True},
    "cohere2": {
        "head_dim": 16,
        "layer_norm_eps": 1e-5,
        "logit_scale": 0.25,
        "sliding_window": 8,
        "sliding_window_pattern": 2,
    },
    "olmo2": {},
    "olmo3": {"sliding_window": 8, "layer_types": SLIDING},
    "glm4": {"attention_bias": True, "partial_rotary_factor": 0.5},
    "exaone4": {"sliding_window": 8, "sliding_window_pattern": "LG", "layer_types": SLIDING, "rope_scaling": None},
    "starcoder2": {"norm_epsilon": 1e-5, "tie_word_embeddings": True},
    "stablelm": {"partial_rotary_factor": 0.5, "layer_norm_eps": 1e-5, "use_qkv_bias": True},
    "minicpm": {"dim_model_base": 16, "scale_depth": 1.4, "scale_emb": 12.0},
    "nemotron": {"hidden_act": "relu2", "norm_eps": 1e-5, "partial_rotary_factor": 0.5},
    "seed_oss": {"attention_bias": True},
    "ernie4_5": {"use_bias": False},
    "internlm3": {"bias": False, "qkv_bias": False},
    "hunyuan_v1_dense": {"attention_bias": False, "use_qk_norm": True, "rope_scaling": None},
    "apertus": {"mlp_bias": False, "attention_bias": False, "post_norm": True, "qk_norm": True},
    "gpt2": {"n_ctx": 512, "n_embd": 64, "n_head": 2, "n_layer": 2, "n_positions": 512, "layer_norm_epsilon": 1e-5},
    "gpt_neox": {"layer_norm_eps": 1e-5, "rotary_emb_base": 10000, "rotary_pct": 0.5},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2_moe": EXPERTS | SHARED_EXPERT,
    "qwen3_moe": EXPERTS | SHARED_EXPERT,
    "olmoe": EXPERTS,
    "granitemoe": GRANITE | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "ernie4_5_moe": {"use_bias": False, "moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 32},
    "bailing_moe": EXPERTS | {"num_shared_experts": 1, "first_k_dense_replace": 1},
    "glm4_moe": LATENT | {"rope_scaling": None, "use_qk_norm": True, "partial_rotary_factor": 0.5},
    "dots1": LATENT | {"rope_scaling": None},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8, "layer_types": SLIDING},
    "deepseek_v2": LATENT | {"rope_scaling": YARN},
    "deepseek_v3": LATENT,
    "qwen3_next": EXPERTS | SHARED_EXPERT | DELTA,
    "qwen3_5": DELTA,
    "qwen3_5_moe": EXPERTS | SHARED_EXPERT | DELTA,
    "lfm2": {
        "norm_eps": 1e-5,
        "full_attn_idxs": [1],
        "block_dim": 64,
        "block_ffn_dim_multiplier": 1.0,
        "block_auto_adjust_ff_dim": False,
        "block_ff_dim": 64,
        "block_multiple_of": 32,
        "conv_bias": False,
        "conv_L_cache": 3,
    },
    "mamba": {
        "state_size": 16,
        "conv_kernel": 4,
        "time_step_rank": 32,
        "use_bias": False,
        "use_conv_bias": True,
        "intermediate_size": 128,
    },
    "mamba2": {
        "num_heads": 4,
        "head_dim": 32,
        "intermediate_size": 128,
        "state_size": 32,
        "layer_norm_epsilon": 1e-5,
        "conv_kernel": 3,
        "n_groups": 2,
        "use_bias": False,
        "use_conv_bias": True,
        "time_step_limit": [0.01, 10.0],
        "time_step_rank": "auto",
    },
    "jamba": {
        "attn_layer_offset": 1,
        "attn_layer_period": 2,
        "expert_layer_offset": 1,
        "expert_layer_period": 2,
        "mamba_d_conv": 4,
        "mamba_d_state": 16,
        "mamba_expand": 2,
        "num_experts": 4,
        "num_experts_per_tok": 2,
    },
    "rwkv7": {
        "norm_eps": 1e-5,
        "a_low_rank_dim": 32,
        "v_low_rank_dim": 32,
        "gate_low_rank_dim": 32,
        "decay_low_rank_dim": 32,
    },
    "granitemoehybrid": GRANITE
    | {
        "shared_intermediate_size": 64,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "mamba_n_heads": 4,
        "mamba_d_head": 32,
        "mamba_proj_bias": False,
        "mamba_d_state": 32,
        "mamba_d_conv": 4,
        "mamba_n_groups": 1,
        "mamba_conv_bias": True,
        "layer_types": ["mamba", "attention"],
    },
    "nemotron_h": {
        "num_hidden_layers": 3,
        "attention_bias": False,
        "mamba_num_heads": 4,
        "mamba_head_dim": 32,
        "mamba_proj_bias": False,
        "ssm_state_size": 32,
        "conv_kernel": 3,
        "n_groups": 2,
        "time_step_limit": [0.01, 10.0],
        "mlp_bias": False,
        "layer_norm_epsilon": 1e-5,
        "use_bias": False,
        "use_conv_bias": True,
        "residual_in_fp32": False,
        "hybrid_override_pattern": ["M", "*", "-"],
    },
    "gemma3n": {
        "text_config": {
            "model_type": "gemma3n",
            "num_hidden_layers": 4,
            "num_kv_shared_layers": 2,
            "vocab_size_per_layer_input": VOCABULARY_SIZE,
            "sliding_window": 8,
            "rope_local_base_freq": 1e4,
            "final_logit_softcapping": 3.0,
            "layer_types": SLIDING * 2,
            "activation_sparsity_pattern": [0.5] * 4,
            "hidden_size_per_layer_input": 32,
            "altup_num_inputs": 4,
            "altup_coef_clip": 1.0,
            "altup_correct_scale": True,
            "altup_active_idx": 0,
            "laurel_rank": 32,
        },
    },
    "deepseek_v32": LATENT | {"index_head_dim": 64, "index_n_heads": 2, "index_topk": 4, "rope_scaling": None},
}
"""What each family has beside or in place of `SHAPE`, by model_type."""


def config_of(family: str, **settings: Any) -> dict[str, Any]:
    """The content of config.json."""
    own = FAMILIES[family] | settings
    config = {"model_type": family} | SHAPE | own
    if "text_config" in own:
        config["text_config"] = SHAPE | own["text_config"]
    return config


def tiny_network(family: str, *, seed: int = 0, **settings: Any) -> nn.Module:
    """A network with random weights, in evaluation mode."""
    config = config_of(family, **settings)
    network_class, args_class = _get_classes(config)
    network = network_class(args_class.from_dict(config))
    keys = iter(mx.random.split(mx.random.key(seed), 10_000))

    def drawn(array: mx.array) -> mx.array:
        if not mx.issubdtype(array.dtype, mx.floating):
            return array
        noise = mx.random.normal(array.shape, key=next(keys))
        return 1 + 0.1 * noise if array.ndim == 1 else 0.1 * noise

    network.update(tree_map(drawn, network.parameters()))
    if config["tie_word_embeddings"] and family == "gemma3_text":
        network.sanitize({})  # this family ties when it finds no head among its weights
    mx.eval(network.parameters())
    network.eval()
    return network


def family_folder(folder: Path, family: str, **settings: Any) -> Path:
    """A complete model folder, as `tiny.tiny_model_folder` writes one of a llama."""
    folder.mkdir(parents=True)
    network = tiny_network(family, **settings)
    (folder / "config.json").write_text(json.dumps(config_of(family, **settings)))
    weights = dict(tree_flatten(network.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    write_tokenizer(folder)
    return folder
