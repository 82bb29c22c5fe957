"""How a GGUF file's rotations are scaled, as config.json's ``rope_scaling``.

Linear and YaRN are named in the metadata. Llama 3's scaling is in no key: the file has a tensor of factors, one a
frequency, that were worked out when it was made; the rule is found again where it gives those factors, and where none
does they are written down one by one. Phi 3 has two such tensors. What mlx_lm would compute otherwise is refused.

Source: rope_yarn in ggml/src/ggml-cpu/ops.cpp of https://github.com/ggml-org/llama.cpp; mlx_lm/models/rope_utils.py
"""

import math
from typing import Any

import numpy as np

from mlxtune.errors import ModelError
from mlxtune.models import DAMAGED
from mlxtune.models.gguf.architectures import Architecture
from mlxtune.models.gguf.header import GgufHeader
from mlxtune.models.gguf.values import SUPPORTED, count, number, short, small_tensor

FREQS, LONG, SHORT = "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"
ROPE_TENSORS = (FREQS, LONG, SHORT)
CLOSE = 1e-5  # relative; the factors were rounded to float32

LLAMA3_LOW, LLAMA3_HIGH, LLAMA3_CONTEXT = 1.0, 4.0, 8192
"""What every Llama 3 that Meta published has; only the factor differs."""


def rope_settings(header: GgufHeader, name: str, architecture: Architecture, *, rotated: int) -> dict[str, Any]:
    """The keys of config.json that scale rotations; none where nothing is scaled.

    Args:
        name: of the architecture, as the metadata's keys begin.
        rotated: of each head, how many dimensions are rotated.

    Raises: ModelError, if the scaling is of a kind that mlx_lm's class does not know, or is not whole.
    """
    kind = header.metadata.get(f"{name}.rope.scaling.type", "none")
    if not isinstance(kind, str):
        raise ModelError(f"{name}.rope.scaling.type is {short(kind)}, no name", where=header.path, remedy=DAMAGED)
    tensors = [tensor for tensor in ROPE_TENSORS if tensor in header.tensors]
    if tensors:
        _refuse_unless(
            kind in {"none", "longrope"} and tensors in ([FREQS], [LONG, SHORT]),
            header,
            f"scaling rotations by the tensors {', '.join(tensors)} beside the type {short(kind)} is not supported",
        )
        kind = "factors" if tensors == [FREQS] else "longrope"
    if kind == "none":
        return {}
    makers = {"linear": _linear, "yarn": _yarn, "factors": _factors, "longrope": _longrope}
    if kind not in makers or kind not in architecture.ropes:
        what = "by the tensor rope_freqs" if kind == "factors" else f"of the type {short(kind)}"
        _refuse_unless(False, header, f"rotary scaling {what} is not supported for {name}")
    return makers[kind](header, name, rotated)


def _refuse_unless(is_so: bool, header: GgufHeader, what: str) -> None:
    if not is_so:
        raise ModelError(what, where=header.path, remedy=SUPPORTED)


def _linear(header: GgufHeader, name: str, rotated: int) -> dict[str, Any]:  # noqa: ARG001 - the shape of a maker
    return {"rope_scaling": {"rope_type": "linear", "factor": number(header, f"{name}.rope.scaling.factor")}}


def _yarn(header: GgufHeader, name: str, rotated: int) -> dict[str, Any]:  # noqa: ARG001
    """Raises: ModelError, if the lengths of the rotated vectors are scaled otherwise than YaRN's paper has it."""
    prefix = f"{name}.rope.scaling."
    for key in ("attn_factor", "yarn_attn_factor", "yarn_ext_factor"):
        if prefix + key in header.metadata:
            own = number(header, prefix + key)
            _refuse_unless(own == 1.0, header, f"{prefix}{key} is {own}; only 1 is supported")
    scaling: dict[str, Any] = {
        "rope_type": "yarn",
        "factor": number(header, f"{prefix}factor"),
        "original_max_position_embeddings": count(
            header, f"{prefix}original_context_length", count(header, f"{name}.context_length")
        ),
    }
    for key in ("beta_fast", "beta_slow"):
        if f"{prefix}yarn_{key}" in header.metadata:
            scaling[key] = number(header, f"{prefix}yarn_{key}")
    return {"rope_scaling": scaling}


def _factors(header: GgufHeader, name: str, rotated: int) -> dict[str, Any]:
    """Llama 3's rule where it gives the factors; else they stand as they are.

    mlx_lm and transformers read a list of factors as ``longrope``, whose scale is 1 where both lengths are the same.
    """
    factors = _positive(header, FREQS, rotated)
    if np.all(factors == 1):
        return {}
    factor = float(factors.max())
    rule = {
        "rope_type": "llama3",
        "factor": float(str(np.float32(factor))),
        "low_freq_factor": LLAMA3_LOW,
        "high_freq_factor": LLAMA3_HIGH,
        "original_max_position_embeddings": LLAMA3_CONTEXT,
    }
    base = number(header, f"{name}.rope.freq_base", 10000.0)
    if np.allclose(llama3_factors(base, rotated, factor), factors, rtol=CLOSE, atol=0):
        return {"rope_scaling": rule}
    listed = [float(str(one)) for one in factors]
    length = count(header, f"{name}.context_length")
    scaling = {"rope_type": "longrope", "short_factor": listed, "long_factor": listed, "factor": 1.0}
    return {"rope_scaling": scaling | {"original_max_position_embeddings": length}}


def llama3_factors(
    base: float,
    rotated: int,
    factor: float,
    *,
    low: float = LLAMA3_LOW,
    high: float = LLAMA3_HIGH,
    context: int = LLAMA3_CONTEXT,
) -> np.ndarray:
    """By how much Llama 3 slows each frequency down, [rotated / 2], float64: not at all the fast ones, by ``factor``
    the slow ones, and in between by a blend.

    Source: apply_scaling in https://github.com/meta-llama/llama-models/blob/main/models/llama3/model.py
    """
    wavelengths = 2 * math.pi * base ** (np.arange(0, rotated, 2) / rotated)
    blend = (context / wavelengths - low) / (high - low)
    return 1 / ((1 - np.clip(blend, 0, 1)) / factor + np.clip(blend, 0, 1))


def longrope_scale(length: int, original: int) -> float:
    """By how much mlx_lm scales rotated vectors, from the context's length now and at first."""
    return math.sqrt(1 + math.log(length / original) / math.log(original)) if length > original else 1.0


def _longrope(header: GgufHeader, name: str, rotated: int) -> dict[str, Any]:
    """Raises: ModelError, if the rotated vectors are scaled otherwise than mlx_lm works out from the two lengths."""
    if LONG not in header.tensors:
        raise ModelError(f"the tensor {LONG} is missing", where=header.path, remedy=DAMAGED)
    length = count(header, f"{name}.context_length")
    original = count(header, f"{name}.rope.scaling.original_context_length", length, least=2)
    scale = longrope_scale(length, original)
    own = number(header, f"{name}.rope.scaling.attn_factor", scale)
    _refuse_unless(
        math.isclose(own, scale, rel_tol=1e-4), header, f"{name}.rope.scaling.attn_factor is {own}, not {scale:.6g}"
    )
    short, long = ([float(str(one)) for one in _positive(header, tensor, rotated)] for tensor in (SHORT, LONG))
    scaling = {"type": "longrope", "rope_type": "longrope", "short_factor": short, "long_factor": long}
    return {"rope_scaling": scaling, "original_max_position_embeddings": original}


def _positive(header: GgufHeader, tensor: str, rotated: int) -> np.ndarray:
    factors = small_tensor(header, tensor, (rotated // 2,))
    if not (np.isfinite(factors).all() and (factors > 0).all()):
        raise ModelError(
            f"the tensor {tensor} has a factor that is no positive number", where=header.path, remedy=DAMAGED
        )
    return factors
