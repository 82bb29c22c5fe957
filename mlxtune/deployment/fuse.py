"""Base plus adapter into one plain model folder, which needs neither mlxtune nor the adapter.

What a number format loses of the tuning is measured before the folder gets its name: the share of the update that each
layer still holds, and, where the caller brings held-out rows, how far the answers are from base plus adapter. What
loses too much is refused, with the smallest format that would pass. Weights are worked out one by one, so memory is
about one output shard, however large the model is. Knows folders; the arithmetic is fused_weights.py's.
"""

import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxtune.adapters.format import located
from mlxtune.adapters.open import attach_adapter
from mlxtune.deployment.fused_weights import KEPT_ENOUGH, Form, FusedWeights, Survival, is_kept
from mlxtune.device.precision import Precision
from mlxtune.device.reductions import all_finite
from mlxtune.errors import AdapterError, ModelError, UsageError
from mlxtune.evaluation.fidelity import Fidelity
from mlxtune.files import check_disk_space, new_folder, write_text
from mlxtune.models.load import check_config, load_network, read_config
from mlxtune.models.safetensors import validate_weights
from mlxtune.models.write import (
    DTYPES,
    copy_companions,
    plain_config,
    quantization_config,
    write_config,
    write_weights,
)
from mlxtune.progress import Progress, silent
from mlxtune.recipe.choices import BITS, GROUP_SIZE, in_words

KL_ALLOWED = 0.02
"""Nats a position between base plus adapter and the fused model."""

# Gemma's residual stream can leave float16's range of 65,504 (mlx-lm's gemma3_text.py clips it there, which is another
# network than the one trained).
OVERFLOWS_IN_FLOAT16 = ("gemma",)
FLOATS = {"float16": 10, "float32": 23}
"""Bits of a float's fraction, for those that keep more of an update than bfloat16's 7."""
AUTO_FROM = 4
"""Bits from which ``auto`` looks upwards for a base that is not quantized."""

Measure = Callable[[Path], Fidelity | None]
"""How far the model in a folder is from base plus adapter, on held-out rows; None where that cannot be measured."""


@dataclass(frozen=True)
class FuseReport:
    """What was written, in which number format, why, and what it lost."""

    out: Path
    dtype: str
    """Of all floats."""
    reason: str
    quantization: dict[str, Any] | None
    """As in config.json; None where all is floats."""
    adapted_layers: int
    weights: int
    """How many arrays the weight files hold."""
    bytes: int
    """Of these arrays together."""
    update_kept: float
    """The share of the whole update that the stored weights hold; rounding noise can lift it a little above 1."""
    layers: dict[str, float]
    """The same, layer by layer."""
    fidelity: Fidelity | None
    unmeasured: str | None = None
    """Why there is no ``fidelity``."""
    note: str | None = None
    """What whoever fuses should know: that the adapter was trained on another base, maybe."""

    @property
    def says_numbers(self) -> bool:
        """Whether the fused model's answers are numbers at all, as far as they were looked at."""
        return self.fidelity is None or math.isfinite(self.fidelity.mean_kl)

    @property
    def loses_too_much(self) -> bool:
        is_near = self.fidelity is None or self.fidelity.mean_kl <= KL_ALLOWED  # not, where it is no number
        return not (is_kept(self.update_kept) and is_near)

    def in_words(self) -> str:
        """What it lost, as a sentence has it."""
        lowest = min(self.layers, key=lambda path: self.layers[path])
        text = f"keeps {self.update_kept:.2%} of the update (least: {self.layers[lowest]:.1%}, in {lowest})"
        found = self.fidelity
        if found is None:
            return text if self.unmeasured is None else f"{text}; its answers are not compared: {self.unmeasured}"
        return (
            f"{text}, and is {found.mean_kl:.2g} nats from base plus adapter, with the same likeliest token at "
            f"{found.token_agreement:.1%} of {found.positions} held-out positions"
        )


def fuse(
    model_folder: Path,
    adapter_folder: Path,
    out: Path,
    *,
    precision: Precision,
    dtype: str | None = None,
    bits: int | str | None = None,
    measure: Measure | None = None,
    accept_loss: bool = False,
    force: bool = False,
    extra_files: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> FuseReport:
    """Fold an adapter into its base model and write the result to ``out``, whole or not at all.

    Args:
        model_folder: the base, in Hugging Face's or MLX's form, quantized or not.
        adapter_folder: written by mlxtune, mlx-lm or PEFT.
        precision: of the device in use; decides the number format together with the family, if ``dtype`` is None.
        dtype: float16, bfloat16 or float32; of what is not quantized.
        bits: quantize: to so many bits, ``"stored"`` for those that the base has, or ``"auto"`` for as few as lose
            little enough, layer by layer. What the adapter did not touch stays as stored, unless it has more bits.
        measure: how far a folder's answers are from base plus adapter's.
        accept_loss: write it, whatever it loses, if its answers are numbers.
        force: replace what is at ``out``.
        extra_files: names and texts to put beside the weights.

    Raises: OutputExistsError; UsageError for an unknown dtype or number of bits; ModelError for a base that cannot be
        opened, a weight beyond the range of ``dtype``, or a result that loses too much; AdapterError for an adapter
        that cannot be opened or does not fit.
    """
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"there is no dtype {dtype!r}", where="--dtype", remedy=f"choose from {', '.join(DTYPES)}")
    config = read_config(model_folder)
    check_config(config, model_folder)
    chosen, reason = choose_dtype(config, precision, asked=dtype, quantized=bits is not None)
    forms = [Form(chosen)] if bits is None else _quantized_forms(config, chosen, bits, where=model_folder)

    def write(form: Form, why: str = reason) -> FuseReport:
        try:
            written = _write(model_folder, adapter_folder, part, form, progress)
        except _NotFiniteError as error:
            if dtype is not None or form.dtype != "float16":
                raise error.told(form.dtype, model_folder) from error
            return write(replace(form, dtype="bfloat16"), f"{error.name} exceeds float16's range")
        fidelity = None if measure is None else measure(part)
        return FuseReport(out, form.dtype, why, fidelity=fidelity, **written)

    with new_folder(out, force=force) as part:
        form, report = forms[0], write(forms[0])
        for form in forms[1:]:
            if not report.loses_too_much:
                break
            report = write(form)
        if report.loses_too_much and not (accept_loss and report.says_numbers):
            raise _refusal(report, form, config, write)
        for name, text in (extra_files or {}).items():
            write_text(part / name, text)
    return report


def _quantized_forms(config: Mapping[str, Any], dtype: str, bits: int | str, *, where: Path) -> list[Form]:
    """What to try, smallest first: one form, or for ``auto`` more and more bits, and at last none.

    Raises: UsageError, where the base has no bits that could be kept, or there are no such bits.
    """
    stored = config.get("quantization") or {}
    group_size = stored.get("group_size", GROUP_SIZE) if stored.get("mode", "affine") == "affine" else GROUP_SIZE
    if bits == "auto":
        ladder = [width for width in BITS if width >= stored.get("bits", AUTO_FROM)]
        forms = [Form(dtype, tuple(ladder[i:]), group_size, may_stay_float=True) for i in range(len(ladder))]
        return [*forms, Form(dtype)]
    if bits == "stored":
        if not stored:
            raise UsageError(
                "the base is not quantized, so nothing says to how many bits", where=where, remedy="add --bits N"
            )
        bits = stored["bits"]
    if bits not in BITS:
        raise UsageError(f"{bits} bits is no quantization of MLX's", where="--bits", remedy=f"choose {in_words(BITS)}")
    return [Form(dtype, (int(bits),), group_size)]


def _refusal(
    report: FuseReport, form: Form, config: Mapping[str, Any], write: Callable[[Form], FuseReport]
) -> ModelError:
    """What was lost, and the smallest form that would pass: found by trying, since no rule foretells it."""
    floats = ["float32"] if str(config.get("model_type", "")).startswith(OVERFLOWS_IN_FLOAT16) else list(FLOATS)
    wider = [replace(form, bits=(width,)) for width in BITS if form.bits and width > form.bits[-1]]
    wider += [Form(dtype) for dtype in floats if form.bits or FLOATS.get(dtype, 0) > FLOATS.get(form.dtype, 0)]
    remedy = "add --accept-loss to write it all the same" if report.says_numbers else "choose another form"
    for other in wider:
        try:
            tried = write(other)
        except ModelError:  # values beyond its range
            continue
        if not tried.loses_too_much:
            option = f"--requantize --bits {other.bits[0]}" if other.bits else f"--dtype {tried.dtype}"
            remedy = f"{option} is the smallest that would pass; or {remedy}"
            break
    return ModelError(
        f"stored as {form}, the fused model {report.in_words()}: at least {KEPT_ENOUGH:.0%} and at most {KL_ALLOWED} "
        "nats are asked for",
        where=report.out,
        remedy=remedy,
    )


def _write(model_folder: Path, adapter_folder: Path, folder: Path, form: Form, progress: Progress) -> dict[str, Any]:
    """Write the model in one form into ``folder``, in place of what is there; what a `FuseReport` says of it."""
    for path in folder.iterdir():  # of a form that was tried before
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    fused = _open_fused(model_folder, adapter_folder, form)
    check_disk_space(folder, fused.stored_bytes())
    size = write_weights(folder, _finite(fused, progress), count=fused.most_arrays())
    config = plain_config(read_config(model_folder), form.dtype)
    if fused.settings:
        config["quantization"] = quantization_config(fused.settings)
    write_config(folder, config)
    copy_companions(model_folder, folder)
    written = validate_weights(folder)
    kept = [sum(getattr(survival, side) for survival in fused.survival.values()) for side in ("kept", "whole")]
    return {
        "quantization": config.get("quantization"),
        "adapted_layers": len(fused.survival),
        "weights": len(written),
        "bytes": size,
        "update_kept": Survival(*kept).share,
        "layers": {path: survival.share for path, survival in sorted(fused.survival.items())},
    }


def _open_fused(model_folder: Path, adapter_folder: Path, form: Form) -> FusedWeights:
    """Here the networks are let go of, so that weights that are written are held by none."""
    plain, _ = load_network(model_folder)
    network, _ = load_network(model_folder)
    attach_adapter(network, adapter_folder, as_stored=True)
    try:
        return FusedWeights(network, plain, form)
    except AdapterError as error:
        raise located(error, adapter_folder) from error


def choose_dtype(
    config: Mapping[str, Any], precision: Precision, *, asked: str | None = None, quantized: bool = False
) -> tuple[str, str]:
    """The number format of a fused model and the reason for it: the one asked for, or by family and device."""
    if asked is not None:
        return asked, "asked for"
    family = str(config.get("model_type", ""))
    if precision.dequantize and not quantized:
        return "float32", "the CPU computes in float32"
    if family.startswith(OVERFLOWS_IN_FLOAT16):
        return "bfloat16", f"{family} overflows in float16"
    return "float16", "it keeps small updates that bfloat16 would round away"


class _NotFiniteError(Exception):
    """A weight is infinite or not a number, in the type it was to be written in."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def told(self, dtype: str, where: Path) -> ModelError:
        """The same for a user."""
        remedy = "choose --dtype bfloat16" if dtype == "float16" else "check the base model and the adapter"
        return ModelError(f"{self.name} has values that are not finite in {dtype}", where=where, remedy=remedy)


def _finite(fused: FusedWeights, progress: Progress) -> Iterator[tuple[str, mx.array]]:
    """Work each weight out and hand it on. Raises: _NotFiniteError."""
    count = len(fused)
    for name, array in fused:
        if not all_finite(array):
            raise _NotFiniteError(name)
        progress("fuse: weights", count - len(fused), count)
        yield name, array
