"""Is this machine fit? A list of findings, each with its reason and, where something is amiss, a remedy.

Must work where little else does: nothing of MLX is imported before a finding needs it, and what fails becomes a
finding. Each ``judge_`` function turns plain facts into one, so that a fact of any machine can be judged on any other.
"""

import contextlib
import importlib.metadata
import os
import platform
import re
import resource
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mlxtune.cache import CACHE, cache_folder
from mlxtune.device.blas import MACHINES, SYMBOLS, THREADS, Blas, library_in_use, open_blas
from mlxtune.device.memory import Memory, measure_memory, readable_bytes
from mlxtune.device.power import PowerReadings, ask_program, read_power
from mlxtune.errors import DeviceError, MlxtuneError
from mlxtune.network import OFFLINE, is_offline

if TYPE_CHECKING:
    from mlxtune.device.choose import Device
    from mlxtune.device.rates import MatmulRates

PACKAGES = ("mlxtune", "mlx", "mlx-lm", "numpy", "transformers")
OLDEST_GLIBC = (2, 35)
OLDEST_MACOS = (14,)
LEAST_MEMORY = 2 * 2**30
"""Bytes: what training the default model takes, and a little more."""
LEAST_DISK = 2 * 2**30
"""Bytes: the default model in every form it takes on its way, and a run."""
LEAST_SHARE = 0.9
"""Of numpy's rate: below it, MLX's products do not go through the BLAS that they should."""


@dataclass(frozen=True)
class Finding:
    """One fact about this machine."""

    name: str
    value: str
    status: Literal["ok", "warn", "bad"]
    """``bad``: mlxtune will fail here, or be many times slower than it need be."""
    reason: str = ""
    remedy: str | None = None


def is_well(findings: Sequence[Finding]) -> bool:
    """Whether nothing is bad; warnings are no illness."""
    return all(finding.status != "bad" for finding in findings)


def examine(choice: str = "auto", power: PowerReadings | None = None) -> list[Finding]:
    """Look at this machine, and at this process, in which mlx_lm is loaded on the way; takes one to four seconds.

    Args:
        choice: of the device: ``auto``, ``cpu`` or ``gpu``.
        power: what the machine says of battery, heat and memory; None reads it.
    """
    power = read_power() if power is None else power
    requirements = []
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        requirements = importlib.metadata.requires("mlxtune") or []
    findings = [Finding("python", platform.python_version(), "ok", sys.executable)]
    findings += [judge_version(name, _installed(name), requirements) for name in PACKAGES]
    machine, macos = platform.machine(), platform.mac_ver()[0]
    findings.append(judge_system(sys.platform, machine, platform.libc_ver(), macos, translated=is_translated()))
    limit_before = resource.getrlimit(resource.RLIMIT_NOFILE)
    findings += _of_mlx(choice)
    findings.append(judge_open_files(limit_before, resource.getrlimit(resource.RLIMIT_NOFILE)))
    findings.append(judge_compiler(shutil.which("c++") or shutil.which("g++")))
    findings.append(judge_power(power))
    findings.append(_cache())
    findings.append(judge_network(offline=is_offline()))
    return findings


def _of_mlx(choice: str) -> Iterator[Finding]:
    """What can only be known with MLX loaded."""
    try:
        from mlxtune.device.choose import gpu_is_there, open_device

        device = open_device(choice)
    except MlxtuneError as error:
        yield Finding("device", "none", "bad", error.message, error.remedy)
        return
    except (ImportError, OSError) as error:
        remedy = "install mlxtune again, into an environment of its own"
        yield Finding("device", "none", "bad", f"MLX cannot be loaded: {error}", remedy)
        return
    yield Finding("device", device.kind, "ok", device.reason)
    yield judge_precision(device)
    yield _memory()
    blas = open_blas()
    yield judge_blas(blas, library_in_use(), os.environ, platform.machine())

    import mlx.core as mx

    from mlxtune.device.rates import matmul_rate, matmul_rates

    try:
        yield judge_rates(matmul_rates(blas.threads or (1 if sys.platform == "linux" else None)), blas)
    except DeviceError as error:
        yield Finding("matmul on the CPU", "not measured", "warn", error.message, error.remedy)
    if gpu_is_there():
        rate = matmul_rate(mx.Device(mx.gpu), mx.bfloat16)
        yield Finding("matmul on the GPU", f"{rate:.0f} GFLOP/s", "ok", "bfloat16, 4096 x 4096, in MLX")


def judge_version(name: str, version: str | None, requirements: Sequence[str]) -> Finding:
    """Is a package there, in a version that mlxtune was made for?

    Args:
        requirements: mlxtune's own, as its metadata has them: ``mlx-lm<0.33,>=0.32.2``.
    """
    if version is None:
        return Finding(name, "missing", "bad", "not installed in this environment", "install mlxtune again")
    for requirement in requirements:
        match = re.match(r"([\w.-]+)(?:\[.*?\])?\s*([^;]*)", requirement)
        wanted = match[2].strip() if match and match[1] == name else ""
        bounds = re.findall(r"(>=|<)\s*([\w.]+)", wanted)
        if any((_numbers(version) < _numbers(bound)) == (sign == ">=") for sign, bound in bounds):
            remedy = f"python -m pip install '{name}{wanted}'"
            return Finding(name, version, "warn", f"mlxtune was tested with {wanted}", remedy)
    return Finding(name, version, "ok")


def is_translated() -> bool:
    """Whether macOS runs this Python, made for Intel, on Apple silicon (Rosetta). Source: Apple's article "About the
    Rosetta translation environment".
    """
    if sys.platform != "darwin":
        return False
    return (ask_program(("/usr/sbin/sysctl", "-n", "sysctl.proc_translated")) or "").strip() == "1"


def judge_system(system: str, machine: str, libc: tuple[str, str], macos: str, *, translated: bool = False) -> Finding:
    """Does MLX have a wheel for this system?

    Args:
        system, machine: ``sys.platform`` and ``platform.machine()``.
        libc: name and version; of Linux.
        macos: the version; of macOS.
        translated: whether this Python was made for Intel and runs on Apple silicon.
    """
    if system == "darwin":
        return _judge_macos(machine, macos, translated=translated)
    if system == "linux":
        name = f"Linux {machine}, {' '.join(libc).strip() or 'libc unknown'}"
        if libc[0] != "glibc" or _numbers(libc[1]) < OLDEST_GLIBC:
            remedy = "use a distribution that has it, such as Debian 12 or Ubuntu 22.04, or a container with one"
            return Finding("system", name, "bad", "MLX's wheel needs glibc 2.35 or newer", remedy)
        return Finding("system", name, "ok", "MLX's wheel needs glibc 2.35 or newer")
    return Finding("system", f"{system} {machine}", "bad", "mlxtune runs on macOS and Linux", "use one of them")


def _judge_macos(machine: str, macos: str, *, translated: bool) -> Finding:
    name, reason, remedy = f"macOS {macos} {machine}", "", None
    if translated:
        reason = "this Python is made for Intel and runs under Rosetta"
        remedy = "install a Python for arm64 (python.org's, or Homebrew's below /opt/homebrew), and mlxtune into it"
    elif macos.startswith("10.16"):  # what macOS 11 and later tell programs that were built before them
        reason = "this Python was built for an older macOS, and cannot tell which one this is"
        remedy = "use a Python that was built for macOS 11 or newer"
    elif machine != "arm64":
        reason, remedy = "MLX needs Apple silicon", "use a Mac that has it"
    elif _numbers(macos) < OLDEST_MACOS:
        reason, remedy = "MLX needs macOS 14 or newer", "update macOS"
    if remedy is not None:
        return Finding("system", name, "bad", reason, remedy)
    return Finding("system", name, "ok", "MLX needs macOS 14 or newer")


def judge_precision(device: "Device") -> Finding:
    """The number formats that follow from the device."""
    if device.kind == "cpu":
        reason = "quantized weights are expanded at load; MLX's CPU backend is fast in float32 alone"
    else:
        reason = "quantized weights stay as stored; adapters are trained in float32"
    return Finding("precision", str(device.precision.dtype).removeprefix("mlx.core."), "ok", reason)


def _memory(measure: Callable[[], Memory] = measure_memory) -> Finding:
    """How much memory there is, where the system tells."""
    try:
        return judge_memory(measure())
    except DeviceError as error:
        return Finding("memory", "unknown", "warn", error.message, error.remedy)


def judge_memory(memory: Memory) -> Finding:
    """Is there enough to train the default model?"""
    value = f"{readable_bytes(memory.available_bytes)} available of {readable_bytes(memory.total_bytes)}"
    peak, mlx_peak = readable_bytes(memory.peak_resident_bytes), readable_bytes(memory.mlx_peak_bytes)
    peaks = f"peak of this process {peak}, of MLX {mlx_peak}"
    if memory.available_bytes < LEAST_MEMORY:
        remedy = "close other programs, or train with a smaller training.batch_size and data.max_seq_length"
        return Finding("memory", value, "warn", f"training the default model takes up to 2 GiB; {peaks}", remedy)
    return Finding("memory", value, "ok", peaks)


def judge_blas(blas: Blas, library: str | None, environment: Mapping[str, str], machine: str) -> Finding:
    """Do MLX's products on the CPU go through a fast library?

    Args:
        library: where a look-up of the BLAS's symbols ends, in this process.
        machine: ``platform.machine()``; where none comes with mlxtune, a slow one is no fault of the installation.
    """
    threads = "" if blas.threads is None else f", {blas.threads} thread{'s' if blas.threads > 1 else ''}"
    value = blas.name + threads
    if not blas.fast:
        status = "bad" if machine in MACHINES else "warn"
        return Finding("BLAS", value, status, f"many times slower than need be; {blas.reason}", blas.remedy)
    if blas.path is not None and (library is None or Path(library).name != Path(blas.path).name):
        reason = f"{blas.reason}, but {SYMBOLS[0]} is answered by {library or 'nothing'}"
        return Finding("BLAS", value, "bad", reason, "unset LD_PRELOAD, and import nothing before mlxtune")
    if processor := environment.get("OPENBLAS_CORETYPE"):
        reason = f"{blas.reason}; OPENBLAS_CORETYPE={processor} ties OpenBLAS to one kind of processor"
        return Finding("BLAS", value, "warn", reason, "unset OPENBLAS_CORETYPE")
    return Finding("BLAS", value, "ok", blas.reason + (f"; {THREADS} sets the threads" if blas.threads else ""))


def judge_rates(rates: "MatmulRates", blas: Blas) -> Finding:
    """Is MLX as fast as numpy, thread for thread?"""
    name = "matmul on the CPU"
    value = f"{rates.mlx_gflops:.0f} GFLOP/s, {rates.share:.2f} of numpy's"
    reason = f"float32, 1024 x 1024; numpy: {rates.numpy_gflops:.0f} GFLOP/s"
    if rates.share >= LEAST_SHARE:
        return Finding(name, value, "ok", reason)
    remedy = "run doctor again when the machine is quiet" if blas.fast else "see BLAS"
    return Finding(name, value, "warn", f"{reason}; at least {LEAST_SHARE} of it is to be had", remedy)


def judge_open_files(before: tuple[int, int], after: tuple[int, int]) -> Finding:
    """Did loading mlx_lm leave the limit of open files, (soft, hard), as it was?"""
    soft, hard = ("unlimited" if limit == resource.RLIM_INFINITY else str(limit) for limit in after)
    value = f"{soft} (hard: {hard})"
    if before == after:
        return Finding("open files", value, "ok", "the limit that importing mlx_lm would lower is kept")
    reason = f"importing mlx_lm changed the limit from {before[0]} (hard: {before[1]})"
    return Finding("open files", value, "warn", reason, "start a new process, and import mlx_lm through mlxtune alone")


def _cache() -> Finding:
    """Is the cache there, ours, writable and not about to fill the disk?"""
    try:
        folder = cache_folder()
        with tempfile.TemporaryFile(dir=folder):
            pass
        files = [path.lstat() for path in folder.rglob("*")]
        size = sum(status.st_size for status in files if stat.S_ISREG(status.st_mode))
        return judge_cache(folder, size, shutil.disk_usage(folder).free, folder.stat().st_mode)
    except MlxtuneError as error:
        return Finding("cache", error.where or "none", "bad", error.message, error.remedy)
    except OSError as error:
        remedy = f"set {CACHE} to a folder that you can write to"
        return Finding("cache", str(error.filename), "bad", f"cannot be used: {error.strerror}", remedy)


def judge_cache(folder: Path, size_bytes: int, free_bytes: int, mode: int) -> Finding:
    """Is there room for models, and does the folder keep others out?"""
    value = f"{folder}, {readable_bytes(size_bytes)}"
    free = f"{readable_bytes(free_bytes)} free on its disk"
    if free_bytes < LEAST_DISK:
        return Finding("cache", value, "warn", free, f"make room, or set {CACHE} to a folder on another disk")
    if mode & 0o022:
        return Finding("cache", value, "warn", "others can write to it", f"chmod 700 {folder}")
    return Finding("cache", value, "ok", free)


def judge_compiler(path: str | None) -> Finding:
    """Is there a C++ compiler? None is needed but to build other people's programs."""
    reason = "needed for `make conformance` alone, which builds llama.cpp"
    return Finding("compiler", path or "none", "ok", reason)


def judge_power(power: PowerReadings) -> Finding:
    """What would training wait for, or rest for, now (`training.throttle`)?"""
    battery = "on battery" if power.on_battery else "no battery" if power.on_battery is None else "plugged in"
    percent = "" if power.battery_percent is None else f" ({power.battery_percent} %)"
    heat, memory = power.thermal or "unknown", power.memory_pressure or "unknown"
    value = f"{battery}{percent}, heat {heat}, memory pressure {memory}"
    reason = "what training.throttle heeds; unknown is left alone"
    if power.on_battery:
        return Finding(
            "power", value, "warn", "training waits for the plug", "plug in, or training.throttle.battery=ignore"
        )
    if power.thermal in ("heavy", "critical"):
        return Finding("power", value, "warn", "the system slows itself down", "let it cool down; close other programs")
    if power.memory_pressure == "critical":
        return Finding("power", value, "warn", "training waits for memory", "close other programs")
    return Finding("power", value, "ok", reason)


def judge_hub(answer: str | None, *, address: str) -> Finding:
    """Does the hub answer, at the address that ``HF_ENDPOINT`` may change?

    Args:
        answer: what went wrong; None, if nothing did.
    """
    if answer is None:
        return Finding("hub", address, "ok", "it answers; nothing was fetched, and no token was sent")
    remedy = "check the connection (HTTPS_PROXY names a proxy, HF_ENDPOINT a mirror); what is cached is used without it"
    return Finding("hub", address, "bad", answer, remedy)


def judge_network(*, offline: bool) -> Finding:
    """May mlxtune use the network?"""
    if offline:
        return Finding("network", "off", "ok", f"--offline or {OFFLINE} is set: only what is on this machine is used")
    return Finding("network", "on", "ok", "used for nothing but fetching a model that is asked for and not here")


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, for comparing: ``5.24.0.dev0`` as (5, 24, 0)."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()
