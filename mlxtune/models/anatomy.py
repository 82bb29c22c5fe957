"""Where a network's backbone, blocks and head are; mlx_lm's model classes share no interface that says so.

Knows the families in the table, each of which a test has shown to give the network's own logits when the head is
applied to the backbone's output. For any other there is no anatomy, and work that needs one goes over full logits.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx import nn

FAMILIES = ("llama", "qwen2", "qwen3", "smollm3", "phi3", "gemma", "gemma2", "gemma3_text", "granite")
"""Modules of mlx_lm.models. Other model types run on one of these classes, as mistral does on llama's."""


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


def anatomy_of(network: nn.Module) -> Anatomy | None:
    """The parts of ``network``, or None where its family is not in the table. The modules are the network's own."""
    kind = type(network)
    parts: Any = network  # the families share these names, and no type that has them
    if kind.__name__ != "Model" or kind.__module__ not in {f"mlx_lm.models.{family}" for family in FAMILIES}:
        return None
    backbone = parts.model
    tied = "lm_head" not in network
    scaling = getattr(network, "logits_scaling", None)
    return Anatomy(
        backbone=backbone,
        blocks=backbone.layers,
        head=backbone.embed_tokens if tied else parts.lm_head,
        tied=tied,
        logit_scale=None if scaling is None else 1.0 / scaling,
        soft_cap=getattr(network, "final_logit_softcapping", None),
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
    that scales its embeddings, or looks up its masks by block number, fails there.

    Returns: token ids [B, L], and ``cache=``, to states [B, L, D] between the blocks; and those to hidden states
        [B, L, D], the last norm included. Each takes the caches of its own blocks.
    """
    whole: Any = anatomy.backbone
    if not hasattr(whole, "norm") or getattr(whole, "swa_idx", None) is not None:
        return None
    lower_part, upper_part = copy.copy(whole), copy.copy(whole)
    lower_part.layers, lower_part.norm = anatomy.blocks[:depth], nn.Identity()
    upper_part.layers = anatomy.blocks[depth:]

    def lower(token_ids: mx.array, cache: list[Any] | None = None) -> mx.array:
        return lower_part(token_ids, cache)

    def upper(states: mx.array, cache: list[Any] | None = None) -> mx.array:
        return upper_part(None, cache, input_embeddings=states)

    tokens = mx.arange(12).reshape(2, 6)  # in the same shapes as the whole, so the kernels are the same too
    expected = whole(tokens).astype(mx.float32)
    difference = mx.sqrt(mx.mean(mx.square(upper(lower(tokens)).astype(mx.float32) - expected)))
    return (lower, upper) if bool(difference <= 0.001 * mx.std(expected)) else None
