"""Which quantization each layer of a network is to have: one for all, or a mix.

A setting is what config.json says of a layer: ``{"group_size", "bits", "mode"}``. Knows layers by path, kind and size;
the values are worked out elsewhere. A family's exceptions are always respected: mlx_lm's ``quant_predicate`` names
layers that stay floats or get bits of their own.
"""

from collections.abc import Mapping
from typing import Any

from mlx import nn

from mlxtune.device.dequantize import is_quantized
from mlxtune.errors import ModelError, UsageError
from mlxtune.recipe.choices import BITS, FIXED_MODES, GROUP_SIZE, GROUP_SIZES, MIXES, MODES, in_words

Setting = dict[str, Any]


def setting_asked(
    bits: int | None = None, group_size: int | None = None, mode: str | None = None, mix: str | None = None
) -> Setting | None:
    """The setting that options mean: of all layers, or where there is a mix of those that it gives the fewest bits.

    Args: as of `models.convert.convert`.
    Returns: None, where nothing is to be quantized.
    Raises: UsageError, if they contradict each other or MLX has no such quantization.
    """
    if mix is not None:
        return _mix_asked(bits, group_size, mode, mix)
    if mode is not None and mode not in MODES:
        raise UsageError(f"there is no mode {mode}", where="--mode", remedy=f"choose {in_words(MODES)}")
    if mode in FIXED_MODES:
        fixed_bits, fixed_size = FIXED_MODES[mode]
        for option, asked, fixed in (("--bits", bits, fixed_bits), ("--group-size", group_size, fixed_size)):
            if asked not in (None, fixed):
                raise UsageError(
                    f"{mode} has {fixed_bits} bits in groups of {fixed_size}, and nothing else",
                    where=f"{option} {asked}",
                    remedy=f"leave {option} out, or choose --mode affine",
                )
        return {"group_size": fixed_size, "bits": fixed_bits, "mode": mode}
    if bits is None:
        if group_size is not None:
            raise UsageError("a group size alone quantizes nothing", where="--group-size", remedy="add --bits")
        if mode is not None:
            raise UsageError(f"{mode} does not say to how many bits", where="--mode", remedy="add --bits")
        return None
    check_quantization(bits, group_size or GROUP_SIZE)
    return {"group_size": group_size or GROUP_SIZE, "bits": bits, "mode": "affine"}


def _mix_asked(bits: int | None, group_size: int | None, mode: str | None, mix: str) -> Setting:
    if mix not in MIXES:
        raise UsageError(f"there is no mix {mix}", where="--mix", remedy=f"choose {in_words(MIXES)}")
    if mode not in (None, "affine"):
        raise UsageError(f"a mix is affine, and {mode} is not", where="--mix", remedy="leave --mode out")
    if mix == "sensitive":
        if bits is None:
            raise UsageError(
                "this mix needs a mean that its bits keep to", where="--mix sensitive", remedy="add --bits"
            )
    elif bits is not None:
        raise UsageError(f"{mix} says how many bits there are", where="--bits", remedy="leave out --bits or --mix")
    else:
        bits, _ = bits_of_mix(mix)
    check_quantization(bits, group_size or GROUP_SIZE)
    return {"group_size": group_size or GROUP_SIZE, "bits": bits, "mode": "affine"}


def check_quantization(bits: int, group_size: int) -> None:
    """Raises: UsageError, if MLX has no such affine quantization."""
    if bits not in BITS or group_size not in GROUP_SIZES:
        raise UsageError(
            f"{bits} bits in groups of {group_size} is no quantization of MLX's",
            remedy=f"choose {in_words(BITS)} bits and a group size of {in_words(GROUP_SIZES)}",
        )


def quantization_of(module: Any) -> Setting:
    """The setting of a quantized layer."""
    return {"group_size": module.group_size, "bits": module.bits, "mode": module.mode}


def quantization_wanted(network: nn.Module, bits: int, group_size: int, mode: str = "affine") -> dict[str, Setting]:
    """The setting of each layer of ``network`` that is to be quantized so, by path.

    A layer that is narrower than any group, such as gemma3n's mixing coefficients, stays floats, as it does in mlx_lm.
    """
    predicate = getattr(network, "quant_predicate", None)
    wanted = {}
    for path, module in network.named_modules():
        if is_quantized(module) or (hasattr(module, "to_quantized") and module.weight.shape[-1] >= min(GROUP_SIZES)):
            verdict = True if predicate is None else predicate(path, module)
            if verdict:
                # a family that names bits and groups but no mode means MLX's default
                own = {"mode": "affine"} | verdict if isinstance(verdict, dict) else {}
                wanted[path] = {"group_size": group_size, "bits": bits, "mode": mode} | own
    return wanted


def bits_of_mix(mix: str) -> tuple[int, int]:
    """The lower and the higher bits of a mix that names them."""
    _, low, high = mix.split("_")
    return int(low), int(high)


def mixed(network: nn.Module, mix: str, group_size: int) -> dict[str, Setting]:
    """The setting of each layer by one of mlx-lm's mixes, after llama.cpp's: the projections of values and back from
    the wide inner layer get more bits in the first and last eighth of the blocks and in every third of the others, and
    so does the head.

    Raises: ModelError, for a network whose layers have other names.
    Source: mlx_lm.convert.mixed_quant_predicate_builder, 0.32.2
    """
    low, high = bits_of_mix(mix)
    wanted = quantization_wanted(network, low, group_size)
    layers: Any = getattr(network, "layers", ())
    inner = next((path.split(".") for path in wanted if "down_proj" in path), None)
    place = next((i for i, part in enumerate(inner or ()) if part.isdigit()), None)
    if place is None:
        raise ModelError(
            "a mix goes by the names of layers, and this network has no down_proj", remedy="choose --bits without --mix"
        )
    plain = {"group_size": group_size, "bits": low, "mode": "affine"}
    eighth = len(layers) // 8
    for path, setting in wanted.items():
        parts = path.split(".")
        block = int(parts[place]) if len(parts) > place and parts[place].isdigit() else 0
        at_an_end = block < eighth or block >= 7 * len(layers) // 8
        more = at_an_end or (block - eighth) % 3 == 2  # noqa: PLR2004 - the last of every three
        is_sensitive = any(name in path for name in ("v_proj", "v_a_proj", "v_b_proj", "down_proj"))
        if setting == plain and ((is_sensitive and more) or "lm_head" in path):
            setting["bits"] = high
    return wanted


def allocate_bits(
    losses: Mapping[str, Mapping[int, float]], sizes: Mapping[str, int], mean_bits: int
) -> dict[str, int]:
    """Bits for each layer, so that the sum of the losses is small and the mean over all weights at most ``mean_bits``.

    Every layer starts at the fewest bits; then come the steps upwards along the lower convex hull of each layer's
    losses, those that spare most loss a bit of the file first, as far as they fit. But for the last few steps that is
    the best there is.

    Args:
        losses: of each layer at each number of bits.
        sizes: the number of each layer's weights.
    """
    steps = []
    chosen = {}
    for path, loss_at in losses.items():
        bits = chosen[path] = min(loss_at)
        while more := [other for other in loss_at if other > bits and loss_at[other] < loss_at[bits]]:
            spared = {other: (loss_at[bits] - loss_at[other]) / ((other - bits) * sizes[path]) for other in more}
            best = max(more, key=lambda other: (spared[other], other))
            steps.append((spared[best], path, bits, best))
            bits = best
    room = mean_bits * sum(sizes[path] for path in losses) - sum(chosen[path] * sizes[path] for path in losses)
    for _, path, before, after in sorted(steps, key=lambda step: -step[0]):
        cost = (after - before) * sizes[path]
        if chosen[path] == before and cost <= room:
            chosen[path] = after
            room -= cost
    return chosen
