"""CPU or GPU, and the number formats that follow; the choice carries its reason."""

from dataclasses import dataclass
from typing import Literal

import mlx.core as mx

from mlxtune.device.blas import Blas, open_blas
from mlxtune.device.memory import hold_gpu_memory
from mlxtune.device.precision import CPU_FLOAT32, GPU_BFLOAT16, Precision
from mlxtune.errors import DeviceError, UsageError

CPU_CACHE_BYTES = 128 << 20
"""Freed buffers kept for reuse on the CPU; with MLX's own 32 MB a step's memory is cleared anew each time."""


@dataclass(frozen=True)
class Device:
    """Where the work runs."""

    kind: Literal["cpu", "gpu"]
    precision: Precision
    reason: str
    compiles: bool
    """Whether training steps are compiled; batches then come in few shapes."""


def in_words(blas: Blas) -> str:
    """A BLAS and how many threads it has, where that is known."""
    return blas.name if blas.threads is None else f"{blas.name}, {blas.threads} thread{'s' * (blas.threads > 1)}"


def gpu_is_there() -> bool:
    """Whether this MLX has a GPU backend and a GPU to go with it."""
    return mx.is_available(mx.gpu)


def open_device(choice: str = "auto") -> Device:
    """Make the CPU or the GPU MLX's default, for the rest of this process.

    On the CPU ``mx.compile`` is switched off: it gains nothing there, needs a compiler at run time, and loads libraries
    from a folder that other users can write to.

    Args:
        choice: ``auto``, ``cpu`` or ``gpu``.

    Raises: DeviceError, if there is no GPU and ``gpu`` was asked for; UsageError, if there is no such choice.
    """
    if choice not in ("auto", "cpu", "gpu"):
        raise UsageError(f"there is no device {choice!r}", where="--device", remedy="choose auto, cpu or gpu")
    if choice == "gpu" and not gpu_is_there():
        raise DeviceError(
            "this MLX sees no GPU", where="--device gpu", remedy="use --device cpu, or run on a Mac with Apple silicon"
        )
    if choice == "gpu" or (choice == "auto" and gpu_is_there()):
        mx.set_default_device(mx.gpu)
        hold_gpu_memory()
        device = Device("gpu", GPU_BFLOAT16, "asked for" if choice == "gpu" else "MLX sees a GPU", compiles=True)
    else:
        mx.set_default_device(mx.cpu)
        mx.disable_compile()
        mx.set_cache_limit(CPU_CACHE_BYTES)
        why = "asked for" if choice == "cpu" else "MLX sees no GPU"
        device = Device("cpu", CPU_FLOAT32, f"{why}; BLAS: {in_words(open_blas())}", compiles=False)
    return device
