"""Networks that tests put adapters on, and adapters of many kinds as PEFT and mlx-lm write them."""

import json

import mlx.core as mx
import numpy as np
import safetensors.numpy
from mlx import nn
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models import mixtral, qwen3_moe
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import save_config
from reference.peft import PREFIX
from tiny import VOCABULARY_SIZE, tiny_llama

from mlxtune.adapters.attach import LoraShape, attach_lora

TOKENS = mx.array([[5, 6, 7, 8, 200, 31]])


def tiny_mixture(family=mixtral, *, quantized=False, layers=2):
    """Four experts, of which each token has two."""
    shape = {"vocab_size": VOCABULARY_SIZE, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": layers}
    shape |= {"num_attention_heads": 4, "num_key_value_heads": 2, "num_experts_per_tok": 2}
    if family is mixtral:
        shape |= {"model_type": "mixtral", "num_local_experts": 4}
    else:
        shape |= {"model_type": "qwen3_moe", "num_experts": 4, "moe_intermediate_size": 64, "decoder_sparse_step": 1}
        shape |= {"mlp_only_layers": [], "rms_norm_eps": 1e-5, "head_dim": 16, "rope_theta": 1e4}
        shape |= {"tie_word_embeddings": False, "max_position_embeddings": 512, "norm_topk_prob": True}
    network = family.Model(family.ModelArgs.from_dict(shape))
    weights = tree_flatten(network.parameters())
    drawn = [(name, draw(array.shape, number)) for number, (name, array) in enumerate(weights)]
    network.load_weights([(name, 1.0 + array if array.ndim == 1 else array) for name, array in drawn])
    if quantized:
        nn.quantize(network, group_size=32, bits=4)
    network.eval()
    network.freeze()
    return network


NETWORKS = {
    "untied": lambda **options: tiny_llama(tied=False, **options),
    "tied": lambda **options: tiny_llama(tied=True, **options),
    "mixtral": lambda **options: tiny_mixture(mixtral, **options),
    "qwen3_moe": lambda **options: tiny_mixture(qwen3_moe, **options),
}


def started_llama():
    """A network whose LoRA of rank 2, on all of its layers, has learned something."""
    made = tiny_llama()
    attach_lora(made, LoraShape(rank=2, alpha=4.0, dropout=0.0, target_modules="all-linear", layers="all"), seed=1)
    started = [
        (name, array + draw(array.shape, len(name), scale=0.05))
        for name, array in tree_flatten(made.trainable_parameters())
    ]
    made.update(tree_unflatten(started))
    return made


def draw(shape, number, *, scale=0.1):
    """The numbers of one tensor of a test's adapter, the same for the same number."""
    return scale * mx.random.normal(shape, key=mx.random.key(number))


# --- as PEFT writes them

HIDDEN, INNER = 64, 128
DIMS = {"q_proj": (64, 64), "k_proj": (32, 64), "v_proj": (32, 64), "o_proj": (64, 64)}
DIMS |= {"gate_proj": (128, 64), "up_proj": (128, 64), "down_proj": (64, 128), "lm_head": (VOCABULARY_SIZE, 64)}
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}


def layer(block, leaf):
    return f"model.layers.{block}.{'self_attn' if leaf in ('q_proj', 'k_proj', 'v_proj', 'o_proj') else 'mlp'}.{leaf}"


def factors(ranks, *, dora=False, dims=None):
    """PEFT's tensors for the layers of ``ranks``, which has each layer's rank."""
    tensors = {}
    for number, (name, rank) in enumerate(ranks.items()):
        output_dims, input_dims = (dims or DIMS)[name.rpartition(".")[2]]
        tensors[f"{PREFIX}{name}.lora_A.weight"] = draw((rank, input_dims), 3 * number)
        tensors[f"{PREFIX}{name}.lora_B.weight"] = draw((output_dims, rank), 3 * number + 1)
        if dora:
            tensors[f"{PREFIX}{name}.lora_magnitude_vector"] = 1 + mx.abs(draw((output_dims,), 3 * number + 2))
    return {name: np.array(array) for name, array in tensors.items()}


def on_embedding(rank=2, *, dora=False):
    name = f"{PREFIX}model.embed_tokens"
    tensors = {
        f"{name}.lora_embedding_A": draw((rank, VOCABULARY_SIZE), 90),
        f"{name}.lora_embedding_B": draw((HIDDEN, rank), 91),
    }
    if dora:
        tensors[f"{name}.lora_magnitude_vector"] = 1 + mx.abs(draw((HIDDEN,), 92))
    return {name: np.array(array) for name, array in tensors.items()}


def peft_folder(folder, tensors, config=CONFIG):
    folder.mkdir(exist_ok=True)
    safetensors.numpy.save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


ALL = [layer(block, leaf) for block in range(2) for leaf in DIMS if leaf != "lm_head"]
QS = [layer(0, "q_proj"), layer(1, "q_proj")]


def whole_modules(names):
    shapes = {"lm_head": (VOCABULARY_SIZE, HIDDEN), "model.embed_tokens": (VOCABULARY_SIZE, HIDDEN)}
    drawn = {name: draw(shapes.get(name, (HIDDEN,)), 70 + i) for i, name in enumerate(names)}
    return {f"{PREFIX}{name}.weight": np.array(array) for name, array in drawn.items()}


MIXTURES = {
    "mixtral": (mixtral, "block_sparse_moe.experts.{}.{}", ("w1", "w2", "w3")),
    "qwen3_moe": (qwen3_moe, "mlp.experts.{}.{}", ("gate_proj", "down_proj", "up_proj")),
}


def mixture_tensors(pattern, leaves, *, experts=4):
    names = [f"model.layers.{i}.{pattern.format(e, leaf)}" for i in range(2) for e in range(experts) for leaf in leaves]
    return factors(dict.fromkeys(names, 2), dims=dict.fromkeys(leaves, (64, 64)))


ROUND_TRIPS = {
    "ranks": ("untied", factors({QS[0]: 2, QS[1]: 4}), {"rank_pattern": {"layers.1.self_attn.q_proj": 4}}),
    "alphas": ("untied", factors(dict.fromkeys(ALL, 2)), {"target_modules": "all-linear",
                                                          "alpha_pattern": {"up_proj": 7}}),
    "rsLoRA": ("untied", factors(dict.fromkeys(QS, 2)), {"use_rslora": True, "lora_dropout": 0.25}),
    "lowest block": ("untied", factors({QS[0]: 2}), {"layers_to_transform": [0]}),
    "DoRA": ("untied", factors(dict.fromkeys(QS, 2), dora=True), {"use_dora": True}),
    "embedding": ("untied", on_embedding(), {"target_modules": ["embed_tokens"]}),
    "DoRA of an embedding": ("untied", on_embedding(dora=True), {"target_modules": ["embed_tokens"], "use_dora": True}),
    "head": ("untied", factors(dict.fromkeys([*QS, "lm_head"], 2)), {"target_modules": ["q_proj", "lm_head"]}),
    "saved": ("untied", factors(dict.fromkeys(QS, 2)) | whole_modules(["model.norm"]),
              {"modules_to_save": ["model.norm"]}),
    "tied, embedding": ("tied", on_embedding(), {"target_modules": ["embed_tokens"]}),
    "tied, both": ("tied", on_embedding(), {"target_modules": ["embed_tokens"], "ensure_weight_tying": True}),
    "tied, saved head": ("tied", whole_modules(["lm_head"]), {"target_modules": [], "modules_to_save": ["lm_head"]}),
    "tied, saved both": ("tied", whole_modules(["model.embed_tokens"]),
                         {"target_modules": [], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}),
    "mixtral": ("mixtral", mixture_tensors(*MIXTURES["mixtral"][1:]), {"target_modules": ["w1", "w2", "w3"]}),
    "qwen3_moe": ("qwen3_moe", mixture_tensors(*MIXTURES["qwen3_moe"][1:]),
                  {"target_modules": r".*experts\.\d+\..*"}),
}  # fmt: skip


# --- as mlx-lm writes them


def trained_by_mlx_lm(folder, kind, *, keys=None, num_layers=-1, dora=False, quantized=False, rank=2):
    """A folder as mlx_lm.lora writes it, and the network that it trained."""
    network = NETWORKS[kind](quantized=quantized)
    settings = {"rank": rank, "scale": 3.0, "dropout": 0.0} | ({} if keys is None else {"keys": keys})
    linear_to_lora_layers(network, num_layers, settings, use_dora=dora)
    trained = tree_flatten(network.trainable_parameters())
    moved = [(name, array + draw(array.shape, number)) for number, (name, array) in enumerate(trained)]
    network.update(tree_unflatten(moved))
    folder.mkdir(exist_ok=True)
    mx.save_safetensors(str(folder / "adapters.safetensors"), dict(moved))
    fine_tune_type = "dora" if dora else "lora"
    config = {"fine_tune_type": fine_tune_type, "num_layers": num_layers, "lora_parameters": settings, "model": "base"}
    save_config(config, folder / "adapter_config.json")
    return network


CASES = {
    "every layer": ("untied", {}),
    "top block": ("untied", {"num_layers": 1}),
    "more blocks than there are": ("untied", {"num_layers": 16, "keys": ["mlp.up_proj"]}),
    "whole paths": ("untied", {"keys": ["model.layers.0.mlp.up_proj", "lm_head", "model.embed_tokens"]}),
    "embedding, tied": ("tied", {"keys": ["self_attn.q_proj", "model.embed_tokens"]}),
    "DoRA": ("untied", {"dora": True}),
    "DoRA of an embedding": ("untied", {"dora": True, "keys": ["self_attn.q_proj", "model.embed_tokens"]}),
    "DoRA of an embedding, tied": ("tied", {"dora": True, "keys": ["model.embed_tokens"]}),
    "experts": ("mixtral", {}),
    "experts, top block": ("qwen3_moe", {"num_layers": 1}),
}
