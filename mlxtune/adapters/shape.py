"""What a low-rank adapter looks like, whatever its numbers are: ranks, strengths, and the layers that have an update.

Plain values that mean something together; knows no network.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mlxtune.adapters.patterns import matches
from mlxtune.errors import AdapterError


@dataclass(frozen=True)
class LoraShape:
    """The shape of an adapter. Raises AdapterError for values that mean nothing.

    A layer is named by its path in the network. Patterns are PEFT's: the end of a path, or a regular expression for it;
    the first that matches counts.
    """

    rank: int
    alpha: float
    dropout: float = 0.0
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Names a layer's path ends with, as in PEFT: ``q_proj`` or ``self_attn.q_proj``."""
    layers: int | Literal["all"] = "all"
    """``all``, or how many blocks at the top, those nearest the head."""
    use_rslora: bool = False
    use_dora: bool = False
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    modules_to_save: tuple[str, ...] = ()
    """Names that the paths of modules end with, which are trained in full."""

    def __post_init__(self) -> None:
        for rank in (self.rank, *self.rank_pattern.values()):
            if rank < 1:
                raise AdapterError(f"a LoRA rank is at least 1, not {rank}", remedy="raise method.rank")
        for alpha in (self.alpha, *self.alpha_pattern.values()):
            if not 0.0 < alpha < float("inf"):
                raise AdapterError(f"a LoRA alpha is a number above 0, not {alpha}", remedy="raise method.alpha")
        if not 0.0 <= self.dropout < 1.0:
            raise AdapterError(
                f"a LoRA dropout is at least 0 and below 1, not {self.dropout}", remedy="choose another method.dropout"
            )
        if self.layers != "all" and self.layers < 1:
            raise AdapterError(
                f"a LoRA adapter has at least 1 block, not {self.layers}",
                remedy="raise method.layers, or set it to all",
            )
        if not self.target_modules:
            raise AdapterError(
                "a LoRA adapter has at least one target module", remedy="name some in method.target_modules"
            )

    @property
    def scale(self) -> float:
        """What B A is multiplied with, in a layer that no pattern names."""
        return scale_of(self.alpha, self.rank, use_rslora=self.use_rslora)

    def rank_of(self, path: str) -> int:
        """R of the layer at ``path``."""
        return next((rank for pattern, rank in self.rank_pattern.items() if is_meant(path, pattern)), self.rank)

    def scale_of(self, path: str) -> float:
        """What the layer's B A is multiplied with."""
        alphas = (alpha for pattern, alpha in self.alpha_pattern.items() if is_meant(path, pattern))
        return scale_of(next(alphas, self.alpha), self.rank_of(path), use_rslora=self.use_rslora)


def scale_of(alpha: float, rank: int, *, use_rslora: bool) -> float:
    """alpha / rank, as in PEFT; rsLoRA's alpha / sqrt(rank).

    Source: LoRA, section 4.1, https://arxiv.org/abs/2106.09685; rsLoRA, theorem 3.2, https://arxiv.org/abs/2312.03732
    """
    return alpha / (math.sqrt(rank) if use_rslora else rank)


def is_named(path: str, name: str) -> bool:
    """Whether the target ``name`` means the layer at ``path``, by PEFT's rule: the whole path, or its end."""
    return path == name or path.endswith(f".{name}")


def is_meant(path: str, pattern: str) -> bool:
    """Whether a pattern for ranks or alphas means the layer at ``path``, by PEFT's rule.

    Raises: AdapterError, for a pattern that is no regular expression, or takes too long.
    """
    return matches(rf"(.*\.)?({pattern})", path)
