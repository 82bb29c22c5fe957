"""The weights of base plus adapter as one model stores them, one by one, and how much of the update each still holds.

A number format can round an update away: a weight moves only where the update is larger than half a step of its grid.
So the share that survives is measured on the very arrays that are written: with W the base's weight, D the update and
W' what is stored, <W' - W, D> / <D, D>. Rounding noise that is small beside D leaves it at 1; noise in which D drowns
makes it any number, far above 1 too.
What the adapter did not touch passes through as it is stored, to the last bit, where the format allows.
Memory holds one layer at a time. Knows arrays and networks, not files.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx import nn

from mlxtune.adapters.merge import layer_updates, merged_weights
from mlxtune.device.dequantize import SCALES, expanded, is_quantized
from mlxtune.device.precision import casting
from mlxtune.device.reductions import total
from mlxtune.errors import ModelError
from mlxtune.models.quantization import quantization_of, quantization_wanted
from mlxtune.models.write import DTYPES

KEPT_ENOUGH = 0.9
"""The share of the update that a fused model has to hold."""


def is_kept(share: float) -> bool:
    """Whether ``share`` says that enough is held; one as far above 1 is noise in the place of the update."""
    return abs(share - 1.0) <= 1.0 - KEPT_ENOUGH


@dataclass(frozen=True)
class Form:
    """How a fused model's weights are stored: as floats, or quantized."""

    dtype: str
    """Of floats, the scales of quantized layers included."""
    bits: Sequence[int] = ()
    """The bits a weight that an adapted layer may have, fewest first: the first that keep enough of its update are
    taken, else the last, or ``dtype`` where it ``may_stay_float``. Without any, nothing is quantized."""
    group_size: int = 32
    may_stay_float: bool = False

    def __str__(self) -> str:
        if not self.bits:
            return self.dtype
        return f"{self.bits[0]} bits" + (" or more" if len(self.bits) > 1 else "")


@dataclass(frozen=True)
class Survival:
    """What of one layer's update is stored: <W' - W, D> and <D, D>."""

    kept: float
    whole: float

    @property
    def share(self) -> float:
        return self.kept / self.whole if self.whole else 1.0


class FusedWeights:
    """One pass over the weights of a network that carries an adapter; known afterwards: what was stored how.

    Attributes:
        survival: of each adapted layer, by path.
        settings: of each quantized layer, by path, as config.json names them.
    """

    def __init__(self, network: nn.Module, plain: nn.Module, form: Form) -> None:
        """Look at ``network``, and at ``plain``, the same without the adapter, which says what its family quantizes.

        Neither is held: a network would hold on to every array that was worked out for it, until the end.
        """
        self.form = form
        self.survival: dict[str, Survival] = {}
        self.settings: dict[str, dict[str, Any]] = {}
        self._merged = dict(merged_weights(network, mx.float32))
        self._updates = dict(layer_updates(network, plain))
        self._wanted = quantization_wanted(plain, form.bits[0], form.group_size) if form.bits else {}
        self._cast = casting(plain, DTYPES[form.dtype])
        self._stored = {
            path: (setting, {key: module[key] for key in ("weight", *SCALES) if key in module})
            for path, module in plain.named_modules()
            if path in self._wanted and is_quantized(module) and (setting := quantization_of(module))
        }

    def stored_bytes(self) -> int:
        """What the weights take as they are going to be stored, before any of them is worked out.

        Raises: ModelError, if a layer's width is no multiple of the group size.
        """
        size = DTYPES[self.form.dtype].size
        total = 0
        for name, array in self._merged.items():
            path, _, leaf = name.rpartition(".")
            setting = self._wanted.get(path) if leaf == "weight" else None
            if setting is None:
                total += array.size * size
                continue
            if array.shape[-1] % setting["group_size"]:
                raise ModelError(
                    f"layer {path} is {array.shape[-1]} wide, which is no multiple of the group size "
                    f"{setting['group_size']}",
                    remedy="store it as floats",
                )
            total += array.size * setting["bits"] // 8 + 2 * size * array.size // setting["group_size"]
        return total

    def most_arrays(self) -> int:
        """How many arrays may come: of a quantized layer its scales and biases, too."""
        return len(self._merged) + 2 * len(self._wanted)

    def __len__(self) -> int:
        """How many weights are still to come, a quantized layer being one."""
        return len(self._merged)

    def __iter__(self) -> Iterator[tuple[str, mx.array]]:
        """Yields: name and array, lazy where nothing had to be measured; let go of with that."""
        for name in list(self._merged):
            array = self._merged.pop(name)
            path, _, leaf = name.rpartition(".")
            wanted = self._wanted.get(path)
            setting, packed = self._stored.pop(path, (None, {})) if leaf == "weight" else (None, {})
            if leaf == "weight" and path in self._updates:
                yield from self._fused(path, array, *self._updates.pop(path), wanted)
            elif leaf != "weight" or wanted is None:
                yield name, self._cast(name, array)
            elif setting is not None and setting["bits"] <= wanted["bits"]:
                self.settings[path] = setting
                yield from _named(path, packed)
            else:
                self.settings[path] = wanted
                yield from _named(path, _quantize(array, wanted, self.form.dtype))

    def _fused(
        self, path: str, merged: mx.array, base: mx.array, change: mx.array, wanted: dict[str, Any] | None
    ) -> Iterator[tuple[str, mx.array]]:
        """One adapted layer, in the first number format that keeps enough of its update."""
        for bits in self.form.bits:
            if wanted is None:
                break
            setting = wanted | {"bits": max(bits, wanted["bits"])}
            packed = _quantize(merged, setting, self.form.dtype)
            self.survival[path] = _survival(expanded(list(packed.values()), setting), base, change)
            is_last = bits == self.form.bits[-1] and not self.form.may_stay_float
            if is_last or is_kept(self.survival[path].share):
                self.settings[path] = setting
                yield from _named(path, packed)
                return
        array = self._cast(f"{path}.weight", merged)
        self.survival[path] = _survival(array.astype(mx.float32), base, change)
        yield f"{path}.weight", array


def _named(path: str, parts: dict[str, mx.array]) -> Iterator[tuple[str, mx.array]]:
    return ((f"{path}.{key}", part) for key, part in parts.items())


def _is_float(array: mx.array) -> bool:
    return mx.issubdtype(array.dtype, mx.floating)


def _quantize(weight: mx.array, setting: dict[str, Any], dtype: str) -> dict[str, mx.array]:
    """The arrays of a quantized layer; the scales and biases of affine groups in ``dtype``."""
    packed = dict(zip(("weight", "scales", "biases"), mx.quantize(weight, **setting), strict=False))
    return {key: array.astype(DTYPES[dtype]) if _is_float(array) else array for key, array in packed.items()}


def _survival(stored: mx.array, base: mx.array, change: mx.array) -> Survival:
    return Survival(total((stored - base) * change), total(change * change))
