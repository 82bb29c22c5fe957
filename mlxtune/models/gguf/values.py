"""Single values out of a GGUF file, each checked: counts, positive numbers, small tensors of float32."""

from math import isfinite, prod

import numpy as np
from gguf.constants import GGMLQuantizationType

from mlxtune.errors import ModelError
from mlxtune.models import DAMAGED
from mlxtune.models.gguf.architectures import ARCHITECTURES
from mlxtune.models.gguf.header import GgufHeader

SHOWN = 60  # characters of a value that an error shows
SUPPORTED = f"use the model's safetensors version, or a model of one of {', '.join(ARCHITECTURES)}"


def count(header: GgufHeader, key: str, default: int | None = None, *, least: int = 1, most: int = 2**31 - 1) -> int:
    """A whole number from ``least`` to ``most``.

    Raises: ModelError, if it is none, or there is neither it nor a default.
    """
    value = header.metadata.get(key, default)
    if type(value) is not int or not least <= value <= most:
        what = "is missing" if value is None else f"is {short(value)}, not a number from {least} to {most}"
        raise ModelError(f"{key} {what}", where=header.path, remedy=DAMAGED)
    return value


def number(header: GgufHeader, key: str, default: float | None = None) -> float:
    """A positive number, the shortest that is the stored float32: 1e-05, not 9.999999747378752e-06.

    Raises: ModelError, if it is none, or there is neither it nor a default.
    """
    value = header.metadata.get(key, default)
    if not isinstance(value, float) or not isfinite(value) or value <= 0:
        raise ModelError(f"{key} is {short(value)}, not a positive number", where=header.path, remedy=DAMAGED)
    return float(str(np.float32(value)))


def small_tensor(header: GgufHeader, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor of float32. Raises: ModelError, if it is of another type or shape."""
    tensor = header.tensors[name]
    if tensor.shape != shape or tensor.type is not GGMLQuantizationType.F32:
        what = f"tensor {name} has the shape {tensor.shape} and the type {tensor.type.name}, not {shape} and F32"
        raise ModelError(what, where=header.path, remedy=DAMAGED)
    return np.fromfile(header.path, "<f4", count=prod(shape), offset=tensor.begin).reshape(shape)


def short(value: object) -> str:
    """A value as an error shows it: a list of a hundred thousand entries would fill the terminal."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
