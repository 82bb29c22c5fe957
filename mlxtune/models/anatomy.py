"""Where a network's backbone, blocks and head are; mlx_lm's model classes share no interface that says so.

Knows the families in the table, each of which a test has shown to give the network's own logits when the head is
applied to the backbone's output. For any other there is no anatomy, and work that needs one goes over full logits.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
from mlx import nn


@dataclass(frozen=True)
class Names:
    """What a family calls its parts: the backbone in the network, and what the backbone holds."""

    backbone: str = "model"
    embedding: str = "embed_tokens"
    blocks: str = "layers"
    norm: str = "norm"
    head: str = "lm_head"
    """In the network; where there is none, the embedding is the head."""
    logit_scale: Callable[[Any], float] | None = None
    """Of a network: what its head's output is multiplied by."""
    unscale: Callable[[Any], None] = lambda backbone: None  # noqa: ARG005
    """Has a backbone take its embeddings as they are, where the family multiplies them."""


def _unscale_gemma(backbone: Any) -> None:
    backbone.args = replace(backbone.args, hidden_size=1)  # read for this factor alone, which is its square root


def _unscale_granite(backbone: Any) -> None:
    backbone.embedding_multiplier = 1.0


def _unscale_minicpm(backbone: Any) -> None:
    backbone.args = replace(backbone.args, scale_emb=1.0)


def _granite_scale(network: Any) -> float:
    return 1.0 / network.logits_scaling


def _minicpm_scale(network: Any) -> float:
    args = network.args  # a head of its own gets smaller states, and one tied to the embedding does not
    return 1.0 if args.tie_word_embeddings else args.dim_model_base / args.hidden_size


DENSE = (
    *("apertus", "ernie4_5", "exaone4", "gemma4_text", "glm4", "hunyuan_v1_dense", "internlm3", "llama", "ministral3"),
    *("nemotron", "olmo2", "olmo3", "phi3", "qwen2", "qwen3", "seed_oss", "smollm3", "stablelm", "starcoder2"),
)
MIXTURES_OF_EXPERTS = (
    *("deepseek_v2", "deepseek_v3", "deepseek_v32", "dots1", "ernie4_5_moe", "glm4_moe", "gpt_oss", "mixtral"),
    *("olmoe", "qwen2_moe", "qwen3_moe"),
)
RECURRENT = ("qwen3_5", "qwen3_next")

_GEMMA = Names(unscale=_unscale_gemma)
_GRANITE = Names(logit_scale=_granite_scale, unscale=_unscale_granite)
_COHERE = Names(logit_scale=lambda network: network.args.logit_scale)
_MAMBA = Names(backbone="backbone", embedding="embeddings", norm="norm_f")
FAMILIES: dict[str, Names] = dict.fromkeys((*DENSE, *MIXTURES_OF_EXPERTS, *RECURRENT), Names()) | {
    "bailing_moe": Names(embedding="word_embeddings"),
    "cohere": _COHERE,
    "cohere2": _COHERE,
    "gemma": _GEMMA,
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
    "gpt2": Names(embedding="wte", blocks="h", norm="ln_f"),
    "granite": _GRANITE,
    "granitemoe": _GRANITE,
    "granitemoehybrid": _GRANITE,
    "jamba": Names(norm="final_layernorm"),
    "lfm2": Names(norm="embedding_norm"),
    "mamba": _MAMBA,
    "mamba2": _MAMBA,
    "minicpm": Names(logit_scale=_minicpm_scale, unscale=_unscale_minicpm),
    "nemotron_h": _MAMBA,
    "phi": Names(norm="final_layernorm"),
    "rwkv7": Names(embedding="embeddings"),
}
"""Modules of mlx_lm.models. Other model types run on one of these classes, as mistral does on llama's."""
WRAPPED = "language_model"
"""Where families that may have other senses too keep the network of text."""


@dataclass(frozen=True)
class Anatomy:
    """The parts of one network; ``apply_head`` of what ``backbone`` gives is what the network gives."""

    backbone: Callable[..., mx.array]
    """Token ids [B, L], and ``cache=``, to hidden states [B, L, D], the last norm included."""
    blocks: list[nn.Module]
    head: Any
    """A linear layer, or where ``tied`` the embedding, either of them maybe quantized."""
    tied: bool
    logit_scale: float | None
    """The head's output is multiplied by this."""
    soft_cap: float | None
    """Then logits become soft_cap * tanh(logits / soft_cap)."""
    names: Names


def anatomy_of(network: nn.Module) -> Anatomy | None:
    """The parts of ``network``, or None where its family is not in the table. The modules are the network's own."""
    network = network.get(WRAPPED, network)
    kind = type(network)
    names = FAMILIES.get(kind.__module__.removeprefix("mlx_lm.models."))
    if names is None or kind.__name__ not in ("Model", "TextModel"):
        return None
    backbone: Any = network[names.backbone]
    tied = names.head not in network
    return Anatomy(
        backbone=backbone,
        blocks=backbone[names.blocks],
        head=backbone[names.embedding] if tied else network[names.head],
        tied=tied,
        logit_scale=None if names.logit_scale is None else names.logit_scale(network),
        soft_cap=getattr(network, "final_logit_softcapping", None),
        names=names,
    )


def apply_head(anatomy: Anatomy, hidden: mx.array) -> mx.array:
    """Logits [..., V] of hidden states [..., D]."""
    logits = anatomy.head.as_linear(hidden) if anatomy.tied else anatomy.head(hidden)
    if anatomy.logit_scale is not None:
        logits = logits * anatomy.logit_scale
    if anatomy.soft_cap is not None:
        logits = anatomy.soft_cap * mx.tanh(logits / anatomy.soft_cap)
    return logits


def split_backbone(anatomy: Anatomy, depth: int) -> tuple[Callable[..., mx.array], Callable[..., mx.array]] | None:
    """The backbone cut above its first ``depth`` blocks, or None where it does not come apart plainly.

    Both halves share the network's own blocks. That they give what the whole gives is tried on a few tokens: a family
    that adds positions to its embeddings, or looks up its masks by block number, fails there. A window of attention is
    wider than a few tokens, so families that have one are not to be cut.

    Returns: token ids [B, L], and ``cache=``, to states [B, L, D] between the blocks; and those to hidden states
        [B, L, D], the last norm included. Each takes the caches of its own blocks.
    """
    whole: Any = anatomy.backbone  # a module
    names = anatomy.names
    lower_part, upper_part = copy.copy(whole), copy.copy(whole)
    lower_part |= {names.blocks: anatomy.blocks[:depth], names.norm: nn.Identity()}
    upper_part |= {names.blocks: anatomy.blocks[depth:], names.embedding: nn.Identity()}
    names.unscale(upper_part)

    def lower(token_ids: mx.array, cache: list[Any] | None = None) -> mx.array:
        return lower_part(token_ids, cache)

    def upper(states: mx.array, cache: list[Any] | None = None) -> mx.array:
        return upper_part(states, cache)

    tokens = mx.arange(12).reshape(2, 6)  # in the same shapes as the whole, so the kernels are the same too
    expected = whole(tokens, cache=None).astype(mx.float32)
    try:
        found = upper(lower(tokens)).astype(mx.float32)
    except (TypeError, ValueError, IndexError):  # what they raise who count their blocks, or states as token ids
        return None
    difference = mx.sqrt(mx.mean(mx.square(found - expected)))
    return (lower, upper) if bool(difference <= 0.001 * mx.std(expected)) else None
