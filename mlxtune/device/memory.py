"""How much memory the machine has, and how much this process has used.

One interface for Linux (/proc, and the limit of a container) and macOS (sysctl). "Available" is what can be had
without swapping, as the system itself estimates it: a moment's reading, not a promise. Peaks are of the whole process
so far; MLX's own count leaves out what Python and the BLAS hold.
"""

import re
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mlxtune.errors import DeviceError

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")

GPU_CACHE_SHARE = 0.125
"""Of an Apple GPU's working set, for freed buffers."""
RESERVED_SHARE = 0.05
"""Of the machine's memory, that is left to everything else."""

OUT_OF_MEMORY = ("unable to allocate", "attempting to allocate", "out of memory", "insufficient memory")
"""What MLX's errors say, in lower case, when there is no memory left: the CPU's and the GPU's allocator, and Metal."""


@dataclass(frozen=True)
class Memory:
    """Bytes, all of them."""

    total_bytes: int
    """Of the machine, or of the container where that is less."""
    available_bytes: int
    peak_resident_bytes: int
    """The most memory that this process has had at once."""
    mlx_active_bytes: int
    """In MLX's arrays now."""
    mlx_peak_bytes: int
    """The most in MLX's arrays at once, since the start or ``mx.reset_peak_memory``."""


@dataclass(frozen=True)
class MemoryLimit:
    """How many bytes MLX's arrays may take at once, and why not more."""

    bytes: int
    reason: str


def hold_gpu_memory() -> None:
    """Let MLX keep an Apple GPU's recommended working set at hand, and ask for no more.

    Beyond it macOS would move memory about, and the machine would freeze; so what needs more fails instead. Freed
    buffers are kept up to a share of it. Where Metal tells no such number (no Apple GPU) nothing is set.
    """
    import mlx.core as mx

    if working_set_bytes := _working_set_bytes():
        mx.set_wired_limit(working_set_bytes)  # heeded from macOS 15 on
        mx.set_memory_limit(working_set_bytes)
        mx.set_cache_limit(int(GPU_CACHE_SHARE * working_set_bytes))


def _working_set_bytes() -> int | None:
    """Metal's recommendedMaxWorkingSetSize, where there is one."""
    import mlx.core as mx

    told = mx.device_info().get("max_recommended_working_set_size")
    return None if told is None else int(told)


def memory_limit(proc: Path = PROC) -> MemoryLimit:
    """How much memory this process's arrays may take now, so that the machine does not begin to swap.

    Raises: DeviceError, if the system does not tell.
    """
    import mlx.core as mx

    on_gpu = mx.default_device() == mx.gpu
    return limit_of(measure_memory(proc), working_set_bytes=_working_set_bytes() if on_gpu else None)


def limit_of(memory: Memory, *, working_set_bytes: int | None = None) -> MemoryLimit:
    """What a machine with these readings has for the arrays of a process.

    What is available without swapping and what the arrays take already are theirs, less a share of the whole for the
    rest of the machine. An Apple GPU shares the memory with everything else, and keeps no more than its recommended
    working set at hand: beyond that macOS moves memory about.

    Args:
        working_set_bytes: Metal's recommendedMaxWorkingSetSize, on an Apple GPU.
    """
    left = memory.available_bytes - int(RESERVED_SHARE * memory.total_bytes)
    free = max(0, memory.mlx_active_bytes + left)
    if working_set_bytes is not None and working_set_bytes < free:
        return MemoryLimit(working_set_bytes, "the GPU's recommended working set")
    whole, share = readable_bytes(memory.total_bytes), f"{RESERVED_SHARE:.0%}"
    return MemoryLimit(free, f"free now of {whole}, less {share} for the rest of the machine")


def measure_memory(proc: Path = PROC) -> Memory:
    """The memory of the machine and of this process, now.

    Raises: DeviceError, if the system does not tell.
    """
    import mlx.core as mx

    try:
        total_bytes, available_bytes = machine_memory(proc)
        peak_bytes = peak_resident_bytes(proc)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        told_by = "/usr/sbin/sysctl" if sys.platform == "darwin" else proc
        remedy = f"make {told_by} available to this process; training works without it"
        raise DeviceError(f"the system does not tell: {error}", where=told_by, remedy=remedy) from error
    return Memory(total_bytes, available_bytes, peak_bytes, mx.get_active_memory(), mx.get_peak_memory())


def machine_memory(proc: Path = PROC) -> tuple[int, int]:
    """Total and available bytes."""
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "hw.memsize", "kern.memorystatus_level"]
        return read_sysctl(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    total, available = read_meminfo((proc / "meminfo").read_text())
    limit, left = container_memory((proc / "self" / "cgroup").read_text(), CGROUPS)
    return min(total, limit or total), available if left is None else min(available, left)


def peak_resident_bytes(proc: Path = PROC) -> int:
    """The most memory that this process has had at once, in bytes.

    On Linux not getrusage's figure: a child process inherits that from its parent.
    """
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes here; elsewhere KiB
    return 1024 * _number("VmHWM", (proc / "self" / "status").read_text())


def read_meminfo(text: str) -> tuple[int, int]:
    """Total and available bytes out of /proc/meminfo."""
    return 1024 * _number("MemTotal", text), 1024 * _number("MemAvailable", text)


def read_sysctl(text: str) -> tuple[int, int]:
    """Total and available bytes out of macOS's ``hw.memsize`` and ``kern.memorystatus_level``, a line each.

    The second is the percentage that the system's own ``memory_pressure`` calls free.
    """
    total, free_percent = (int(line) for line in text.split())
    return total, total * free_percent // 100


def container_memory(membership: str, root: Path) -> tuple[int | None, int | None]:
    """The lowest limit of the control groups (version 2) that a process is in, and the least that one has left.

    Page cache that was not used lately counts as left: the kernel gives it back before it refuses.

    Args:
        membership: /proc/self/cgroup.
        root: where the groups are mounted.

    Returns: bytes; None where nothing is limited.
    """
    match = re.search(r"^0::/(.*)$", membership, re.MULTILINE)
    limits, lefts = [], []
    folder = root / match[1] if match else root
    for group in (folder, *folder.parents):
        if not group.is_relative_to(root):
            break
        try:
            limit = int((group / "memory.max").read_text())
            used = int((group / "memory.current").read_text())
            cache = _number("inactive_file", (group / "memory.stat").read_text())
        except (OSError, ValueError):  # no such file, or the word "max"
            continue
        limits.append(limit)
        lefts.append(max(0, limit - used + cache))
    return min(limits, default=None), min(lefts, default=None)


def _number(name: str, text: str) -> int:
    """The number in the line of ``text`` that starts with ``name``, with or without a colon."""
    match = re.search(rf"^{name}:?\s+(\d+)", text, re.MULTILINE)
    if match is None:
        raise ValueError(f"there is no {name}")
    return int(match[1])


def readable_bytes(count: int) -> str:
    """Bytes for people, as in ``15.9 GiB`` or ``24 MiB``."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether MLX could not get the memory that it asked for: it raises no type of its own for that."""
    told = str(error).lower()
    return any(words in told for words in OUT_OF_MEMORY)
