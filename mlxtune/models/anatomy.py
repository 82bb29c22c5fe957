"""Where a network's backbone, blocks and head are; mlx_lm's model classes share no interface that says so.

Knows the families in the table, each of which a test has shown to give the network's own logits when the head is
applied to the backbone's output. For any other there is no anatomy, and work that needs one goes over full logits.
"""

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
    blocks_path: str
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
        blocks_path="model.layers",
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
