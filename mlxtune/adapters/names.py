"""PEFT's names of layers, which are Hugging Face's module paths, and mlx-lm's: the one place that relates them.

They are the same for most families. They differ where mlx-lm keeps a text model inside another one, where it stacks the
experts of a mixture into one layer, and where an adapter parts a tied head from its embedding. A family whose weights
mlx-lm rewrites as it loads them cannot be related at all: the same factors mean something else there.
"""

import re
from collections.abc import Mapping
from typing import Any

from mlxtune.adapters.saved import SeparateHead
from mlxtune.models.anatomy import anatomy_of

EXPERT = re.compile(r"(.+)\.experts\.(\d+)\.([^.]+)")
W_NAMES = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}
SAME_NAMES = {"gate_proj": "gate_proj", "down_proj": "down_proj", "up_proj": "up_proj"}
EXPERTS_APART = {
    **dict.fromkeys(("mixtral", "phimoe"), W_NAMES),
    **dict.fromkeys(("qwen2_moe", "qwen3_moe", "olmoe", "deepseek", "deepseek_v2", "deepseek_v3"), SAME_NAMES),
    "qwen3_next": SAME_NAMES,
}
"""Families whose experts are linear layers of their own for PEFT, by module of mlx_lm.models, and the names of those;
in others they are one parameter, which PEFT adapts in another way."""

REWRITTEN = ("falcon_h1", "gpt2")
"""Families whose weights are multiplied or transposed as mlx-lm loads them."""
REWRITTEN_HEADS = ("baichuan_m1", "bailing_moe", "bailing_moe_linear")
"""Families whose head's rows or columns are divided by their lengths; those that have a ``norm_head``, if it is set."""
WEIGHT_READERS = ("gemma4", "gemma4_text", "llama4_text", "muse_spark")
"""Families that read their embedding's or head's weight past the layer, where an update would go unseen."""
WEIGHT_READERS_IF_TIED = ("minicpm", "seed_oss")
"""Those that do it where the embedding is the head."""
SHIFTED_NORMS = ("muse_spark", "prism_hadamard_qwen35", "qwen3_next", "qwen3_5", "qwen3_5_moe", "step3p5")
"""Families whose norms are stored one less than mlx-lm has them."""


def is_shifted_norm(family: str, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a module with arrays of these shapes is a norm that is stored one less than mlx-lm has it."""
    return family in SHIFTED_NORMS and shapes.keys() == {"weight"} and len(shapes["weight"]) == 1


class Names:
    """The names of one network's layers."""

    def __init__(self, network: Any) -> None:
        modules = dict(network.named_modules())
        self.family = type(network).__module__.rpartition(".")[2]
        self.is_rewritten = self.family in REWRITTEN
        self.is_head_rewritten = self.family in REWRITTEN_HEADS and getattr(network, "norm_head", True)
        self._modules = modules
        self._paths = {_inner(path): path for path in modules}
        self._parted = {}
        for path, module in modules.items():
            if isinstance(module, SeparateHead):
                self._paths |= {_inner(path): f"{path}.inputs", "lm_head": f"{path}.outputs"}
                self._parted = {f"{path}.inputs": path, f"{path}.outputs": "lm_head"}
        anatomy = anatomy_of(network)
        head = anatomy.head if anatomy is not None and anatomy.tied else None
        tied = (path for path, module in modules.items() if module is head and not isinstance(module, SeparateHead))
        self.tied_embedding = next(tied, None)
        """The path of an embedding that is the head too."""
        self.is_reading_weights = self.family in WEIGHT_READERS or (
            self.family in WEIGHT_READERS_IF_TIED and self.tied_embedding is not None
        )
        self.has_known_head = anatomy is not None or "lm_head" in self._paths

    def place_of(self, name: str) -> tuple[str, int | None] | None:
        """The path of the layer that PEFT calls ``name``, and which of a mixture's experts; None if there is none."""
        if (path := self._paths.get(_inner(name))) is not None:
            return path, None
        if (found := EXPERT.fullmatch(name)) is None:
            return None
        mixture, expert, leaf = found.groups()
        leaf = {theirs: ours for ours, theirs in W_NAMES.items()}.get(leaf, leaf)
        for stacked in ("switch_mlp", "experts"):
            path = self._paths.get(_inner(f"{mixture}.{stacked}.{leaf}"))
            if path is not None and int(expert) < self._count(path):
                return path, int(expert)
        return None

    def names_of(self, path: str) -> list[str] | None:
        """PEFT's name of the layer at ``path``; of stacked experts a name each; None where PEFT has none."""
        if self.is_rewritten or (self.is_head_rewritten and path == "lm_head"):
            return None
        if (count := self._count(path)) == 0:
            return [_hugging_face(self._parted.get(path, path))]
        mixture, _, leaf = path.rpartition(".")
        leaves = EXPERTS_APART.get(self.family, {})
        if leaf not in leaves:
            return None
        mixture = mixture.rpartition(".")[0]
        return [f"{mixture}.experts.{expert}.{leaves[leaf]}" for expert in range(count)]

    def _count(self, path: str) -> int:
        """How many experts the layer at ``path`` stacks; 0 for one that stacks none."""
        module = self._modules[path]
        module = getattr(module, "base", module)
        return module.weight.shape[0] if "weight" in module and module.weight.ndim == 3 else 0  # noqa: PLR2004


def _inner(path: str) -> str:
    """A path as seen from inside the models that wrap the text model, whatever they are called."""
    return re.sub(r"^((language_model|model)\.)+", "", path)


def _hugging_face(path: str) -> str:
    """Where Hugging Face's model has what mlx-lm's has at ``path``."""
    if not path.startswith("language_model."):
        return path
    inner = _inner(path)
    return inner if inner == "lm_head" else f"model.language_model.{inner}"
