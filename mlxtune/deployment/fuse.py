"""Base plus adapter into one plain model folder, which needs neither mlxtune nor the adapter.

Base weights and their merged results stay lazy until they are written, so memory is about one output shard, however
large the model is. What comes out is never quantized: requantizing would lose part of what was learned, and how much
has to be measured first. Knows folders; the arithmetic is adapters/merge.py's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxtune.adapters.lora import lora_layers
from mlxtune.adapters.merge import merged_weights
from mlxtune.adapters.open import attach_adapter
from mlxtune.device.precision import Precision
from mlxtune.errors import ModelError, UsageError
from mlxtune.files import new_folder, write_text
from mlxtune.models.load import load_network, read_config
from mlxtune.models.safetensors import validate_weights
from mlxtune.models.write import DTYPES, copy_companions, write_config, write_weights
from mlxtune.progress import Progress, silent

# Gemma's residual stream can leave float16's range of 65,504 (mlx-lm's gemma3_text.py clips it there, which is another
# network than the one trained).
OVERFLOWS_IN_FLOAT16 = ("gemma",)


@dataclass(frozen=True)
class FuseReport:
    """What was written, and why in this number format."""

    out: Path
    dtype: str
    reason: str
    adapted_layers: int
    weights: int
    """How many arrays the weight files hold."""
    bytes: int
    """Of these arrays together."""


def fuse(
    model_folder: Path,
    adapter_folder: Path,
    out: Path,
    *,
    precision: Precision,
    dtype: str | None = None,
    force: bool = False,
    extra_files: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> FuseReport:
    """Fold an adapter into its base model and write the result to ``out``, whole or not at all.

    Args:
        model_folder: the base, in Hugging Face's or MLX's form, quantized or not.
        adapter_folder: written by mlxtune, mlx-lm or PEFT.
        precision: of the device in use; decides the number format together with the family, if ``dtype`` is None.
        dtype: float16, bfloat16 or float32.
        force: replace what is at ``out``.
        extra_files: names and texts to put beside the weights.

    Raises: OutputExistsError; UsageError for an unknown dtype; ModelError for a base that cannot be opened or a weight
        beyond the range of ``dtype``; AdapterError for an adapter that cannot be opened or does not fit.
    """
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"there is no dtype {dtype!r}", where="--dtype", remedy=f"choose from {', '.join(DTYPES)}")
    config = read_config(model_folder)
    chosen, reason = choose_dtype(config, precision) if dtype is None else (dtype, "asked for")
    try:
        with new_folder(out, force=force) as part:
            weights, adapted_layers = _fused_weights(model_folder, adapter_folder, DTYPES[chosen])
            count = len(weights)
            size = write_weights(part, _finite(weights, progress), count=count)
            write_config(part, plain_config(config, chosen))
            copy_companions(model_folder, part)
            for name, text in (extra_files or {}).items():
                write_text(part / name, text)
            if (readable := len(validate_weights(part))) != count:
                raise ModelError(f"{readable} of {count} weights can be read back", where=out, remedy="check the disk")
    except _NotFiniteError as error:
        if chosen != "float16":
            remedy = "check the base model and the adapter"
        elif dtype is not None:
            remedy = "choose --dtype bfloat16"
        else:
            options: Any = {"force": force, "extra_files": extra_files, "progress": progress}
            report = fuse(model_folder, adapter_folder, out, precision=precision, dtype="bfloat16", **options)
            return replace(report, reason=f"{error.name} exceeds float16's range")
        message = f"{error.name} has values that are not finite in {chosen}"
        raise ModelError(message, where=model_folder, remedy=remedy) from error
    return FuseReport(out, chosen, reason, adapted_layers, count, size)


def choose_dtype(config: Mapping[str, Any], precision: Precision) -> tuple[str, str]:
    """The number format of a fused model and the reason for it, from the family and the device."""
    family = str(config.get("model_type", ""))
    if precision.dequantize:
        return "float32", "the CPU computes in float32"
    if family.startswith(OVERFLOWS_IN_FLOAT16):
        return "bfloat16", f"{family} overflows in float16"
    return "float16", "it keeps small updates that bfloat16 would round away"


def plain_config(config: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """The base's config for weights that are not quantized and stored as ``dtype``; so too its ``text_config``."""
    dropped = ("quantization", "quantization_config", "quantize_activations")
    plain = {key: value for key, value in config.items() if key not in dropped}
    plain["torch_dtype"] = dtype
    if "dtype" in plain:  # the same, by its newer name
        plain["dtype"] = dtype
    if isinstance(text_config := plain.get("text_config"), dict):
        plain["text_config"] = plain_config(text_config, dtype)
    return plain


class _NotFiniteError(Exception):
    """A weight is infinite or not a number, in the type it was to be written in."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def _fused_weights(model_folder: Path, adapter_folder: Path, dtype: mx.Dtype) -> tuple[dict[str, mx.array], int]:
    """The fused model's weights, lazy, and the number of layers that the adapter changed."""
    network, _ = load_network(model_folder)
    attach_adapter(network, adapter_folder)
    return dict(merged_weights(network, dtype)), len(lora_layers(network))


def _finite(weights: dict[str, mx.array], progress: Progress = silent) -> Iterator[tuple[str, mx.array]]:
    """Work each weight out and hand it on; it is taken out of ``weights``, so that none is held after its use."""
    count = len(weights)
    while weights:
        name = next(iter(weights))
        array = weights.pop(name)
        if not mx.all(mx.isfinite(array)).item():
            raise _NotFiniteError(name)
        progress("fuse: weights", count - len(weights), count)
        yield name, array
