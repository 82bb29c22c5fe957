"""How a network is changed: the keys of ``method``, by its ``type``.

LoRA and DoRA learn a small update beside weights that stay as they are; ``full`` changes the weights themselves. A key
that does not belong to the type that is named is refused, with that type: nothing is accepted and ignored.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, Tag
from pydantic_core import PydanticCustomError

from mlxtune.recipe.settings import Names, Settings, expected, told_by_type

DEFAULT_TYPE = "lora"


class TopLayers(Settings):
    """The blocks nearest to the output."""

    top: int = Field(ge=1)
    """How many of them."""


def _refuse_no_expression(pattern: str) -> str:
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise PydanticCustomError(
            "no_expression", "Input should be a regular expression ({error})", {"error": str(error)}
        ) from None
    return pattern


Name = Annotated[str, Field(min_length=1)]
Pattern = Annotated[Name, AfterValidator(_refuse_no_expression)]
Layers = Annotated[Literal["all"] | TopLayers, expected("all, or {top: N} with N at least 1")]


class LowRankSettings(Settings):
    """The keys that LoRA and DoRA share: a low-rank update beside frozen weights."""

    type: Literal["lora", "dora"]
    """The method."""
    rank: int = Field(default=8, ge=1)
    """Width R of the two low-rank factors; adapter size and memory grow with it."""
    alpha: float = Field(default=16.0, gt=0)
    """Strength of the update, as in PEFT: a layer adds alpha / rank * B A, or with `use_rslora` alpha / sqrt(rank)."""
    use_rslora: bool = False
    """Divide alpha by the root of the rank, so that a high rank's update does not shrink
    (https://arxiv.org/abs/2312.03732). At rank 8 the update is 2.8 times as strong as without it."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the adapter's inputs that is set to zero in training."""
    target_modules: Annotated[
        Literal["all-linear"] | Names, expected("all-linear, or a list of module names such as [q_proj, v_proj]")
    ] = "all-linear"
    """Which layers get an update: all linear ones of the blocks, or those whose last name is listed. The embedding
    (`embed_tokens`) and the head (`lm_head`) can be listed too; where the head is the embedding, one update serves
    both."""
    layers: Layers = "all"
    """Which blocks get adapters: all, or the N nearest to the output, which saves time and memory. An embedding or head
    that `target_modules` lists gets one either way."""
    rank_pattern: dict[Pattern, Annotated[int, Field(ge=1)]] = Field(default={})
    """Other ranks for some layers, as in PEFT: the end of a layer's name, or a regular expression for it, and its rank:
    `{v_proj: 16}`. The first that matches counts."""
    alpha_pattern: dict[Pattern, Annotated[float, Field(gt=0)]] = Field(default={})
    """Other alphas for some layers, in the same way."""
    modules_to_save: Annotated[
        tuple[Name, ...], Field(strict=False), expected("a list of module names such as [embed_tokens]")
    ] = ()
    """Modules that are trained in full beside the update: `embed_tokens`, `lm_head`, norms, linear layers. Each is kept
    whole in the adapter, in float32; PEFT opens such an adapter, and mlx-lm does not."""


class LoraSettings(LowRankSettings):
    """Low-rank adaptation (https://arxiv.org/abs/2106.09685): the base stays as it is, a small update is learned."""

    type: Literal["lora"] = "lora"  # pyright: ignore[reportIncompatibleVariableOverride] - it is frozen
    """`lora`."""


class DoraSettings(LowRankSettings):
    """LoRA that learns how long each of a weight's rows is apart from its direction (https://arxiv.org/abs/2402.09353).

    A little better at low ranks by its paper, for a step that also works out the length of every adapted weight's rows;
    not for the experts of a mixture.
    """

    type: Literal["dora"] = "dora"  # pyright: ignore[reportIncompatibleVariableOverride] - it is frozen
    """`dora`."""


class FullSettings(Settings):
    """The network's own weights are trained, those of all blocks or of some; the base may not be quantized.

    Weights that train, their gradient and the optimizer's two moments are float32: with adamw 16 bytes a weight; on a
    GPU 2 more for the copies that a step computes with. It wants a far lower rate than LoRA: 1e-5 to 5e-5.
    """

    type: Literal["full"] = "full"
    """`full`."""
    layers: Layers = "all"
    """Which blocks train: all, or the N nearest to the output."""
    train_embeddings: bool = False
    """Whether what is outside the blocks trains too: the embedding, the last norm and the head."""


def method_in_words(method: Mapping[str, Any]) -> str:
    """What a resolved recipe's ``method`` is, as a title has it: ``LoRA rank 8``, ``the top 2 blocks in full``."""
    kind = method.get("type", DEFAULT_TYPE)
    if kind == "full":
        layers = method.get("layers", "all")
        top = None if layers == "all" else layers["top"]
        blocks = "all blocks" if top is None else "the top block" if top == 1 else f"the top {top} blocks"
        return f"{blocks}{' and the embeddings' if method.get('train_embeddings') else ''} in full"
    name = {"lora": "LoRA", "dora": "DoRA"}[kind]
    name = f"{'rs' if kind == 'lora' else 'rank-stabilized '}{name}" if method.get("use_rslora") else name
    ranks = (method["rank"], *(method.get("rank_pattern") or {}).values())
    width = f"{method['rank']}" if len(set(ranks)) == 1 else f"{min(ranks)} to {max(ranks)} by layer"
    saved = method.get("modules_to_save") or ()
    return f"{name} rank {width}" + (f", {' and '.join(saved)} in full" if saved else "")


Method = Annotated[
    Annotated[LoraSettings, Tag("lora")] | Annotated[DoraSettings, Tag("dora")] | Annotated[FullSettings, Tag("full")],
    told_by_type(DEFAULT_TYPE),
]
"""One of the methods, told apart by ``type``."""
