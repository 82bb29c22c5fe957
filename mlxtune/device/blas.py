"""Opens a fast BLAS for MLX's CPU backend, before MLX itself is imported.

MLX's Linux wheel multiplies float32 matrices with a reference BLAS of a few GFLOP/s. A library that is opened globally
before ``mlx.core`` gives its own ``cblas_sgemm``, ``cblas_dgemm`` and ``cblas_cgemm`` in place of those. The wheel
scipy-openblas32 has them under the prefix ``scipy_``, so a copy with the three renamed is kept in the cache, under a
hash of the wheel's own list of hashes. This is the one thing that importing the package does to its process; the price
is a millisecond, and 0.2 s the first time. One thread is the default: two spin against whatever else runs, and a sum
split over two threads has other last bits.
"""

import ctypes
import functools
import hashlib
import importlib.util
import os
import platform
import secrets
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

from mlxtune.cache import CACHE, cache_folder
from mlxtune.errors import DeviceError, MlxtuneError
from mlxtune.files import flush_path

PREFIX = "scipy_"
SYMBOLS = ("cblas_sgemm", "cblas_dgemm", "cblas_cgemm")
THREADS = "MLXTUNE_BLAS_THREADS"
MACHINES = ("x86_64",)
"""``platform.machine()`` of the Linux machines on which scipy-openblas32 is installed with mlxtune."""


@dataclass(frozen=True)
class Blas:
    """Which library multiplies MLX's float32 matrices on the CPU, and why."""

    name: str
    reason: str
    fast: bool
    threads: int | None = None
    """None where the library decides by itself."""
    path: str | None = None
    """Of the library that was opened; None where MLX brings its own."""
    kernels: str | None = None
    """The processor that OpenBLAS has chosen its kernels for, as it calls it; None of other libraries."""
    remedy: str | None = None
    """How to come to a fast one."""


@functools.cache
def open_blas() -> Blas:
    """Open the best BLAS at hand: one that is global already, else the renamed scipy-openblas32, else the system's.

    ``MLXTUNE_BLAS_THREADS`` sets the number of threads of a library that is opened here. Never raises: MLX's own is
    slow but right, and the reason says what stood in the way.
    """
    if sys.platform == "darwin":
        return Blas("Accelerate", "macOS has it, and MLX uses it", fast=True)
    if sys.platform != "linux":
        return Blas("MLX's own", f"nothing is known of {sys.platform}", fast=False, remedy="use macOS or Linux")
    if "mlx.core" in sys.modules:
        remedy = "import mlxtune before mlx, mlx_lm and whatever imports them"
        return Blas("MLX's own", "mlx was imported before mlxtune", fast=False, remedy=remedy)
    if found := library_in_use():
        return Blas(Path(found).name, f"{found} was opened globally before mlxtune", fast=True, path=found)
    why_not, remedies = [], []
    for name, find, prefix in (
        ("scipy-openblas32", _renamed_copy, PREFIX),
        ("libopenblas.so.0", _system_library, ""),
    ):
        try:
            path = find()
            library = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
            set_threads = getattr(library, f"{prefix}openblas_set_num_threads")
            name_kernels = getattr(library, f"{prefix}openblas_get_corename")
            for symbol in SYMBOLS:
                getattr(library, symbol)
        except (OSError, ImportError, ValueError, AttributeError, MlxtuneError) as error:
            why_not.append(f"{name}: {error}")
            remedies.append(_way_out(error, platform.machine()))
            continue
        threads = _thread_count()
        set_threads(threads)
        name_kernels.restype = ctypes.c_char_p
        kernels = name_kernels().decode()
        reason = "; ".join([*why_not, f"opened {path} before mlx"])
        return Blas(name, reason, fast=True, threads=threads, path=str(path), kernels=kernels)
    return Blas("MLX's own", "; ".join(why_not), fast=False, remedy=remedies[0])


def library_in_use(symbol: str = SYMBOLS[0]) -> str | None:
    """The path of the library that any other library's global look-up of ``symbol`` ends in; None if in none."""
    program = ctypes.CDLL(None)
    try:
        address = ctypes.cast(getattr(program, symbol), ctypes.c_void_p)
    except AttributeError:
        return None
    answer = _SymbolOrigin()
    program.dladdr(address, ctypes.byref(answer))
    return os.fsdecode(answer.file_name or b"") or None


class _SymbolOrigin(ctypes.Structure):
    """``Dl_info`` of dlfcn.h."""

    _fields_ = (
        ("file_name", ctypes.c_char_p),
        ("file_base", ctypes.c_void_p),
        ("symbol_name", ctypes.c_char_p),
        ("symbol_address", ctypes.c_void_p),
    )


def _way_out(error: Exception, machine: str) -> str:
    """What to do about a library that could not be opened."""
    if isinstance(error, MlxtuneError) and error.remedy:
        return error.remedy
    if isinstance(error, ImportError) and machine in MACHINES:
        return "python -m pip install scipy-openblas32 lief"
    if isinstance(error, ImportError):
        return "apt install libopenblas0, or what else gives your system libopenblas.so.0"
    return f"set {CACHE} to a folder that programs may be loaded from, or install your system's libopenblas.so.0"


def _thread_count() -> int:
    asked = os.environ.get(THREADS) or "1"
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    # Importing the package cannot fail over this: the command line could not say it in one sentence.
    warnings.warn(f"{THREADS}={asked} is no number of threads: one thread is used", RuntimeWarning, stacklevel=2)
    return 1


def _system_library() -> str:
    """The name by which the dynamic linker knows the system's OpenBLAS."""
    return "libopenblas.so.0"


def _renamed_copy() -> Path:
    """The cached copy of scipy-openblas32's library that exports the three symbols under their plain names."""
    spec = importlib.util.find_spec("scipy_openblas32")
    if spec is None or spec.origin is None:
        raise ImportError("the package is not installed")
    package = Path(spec.origin).parent
    records = list(package.parent.glob("scipy_openblas32-*.dist-info/RECORD"))
    libraries = list(package.glob("lib/libscipy_openblas*.so"))
    if not records or not libraries:
        raise ImportError(f"{package} has no RECORD or no library")
    folder = cache_folder("blas")
    status = folder.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise DeviceError(
            "others can write to this folder, so no code is loaded from it",
            where=folder,
            remedy=f"chmod 700 {folder}, or set {CACHE} to a folder of your own",
        )
    key = hashlib.sha256(records[0].read_bytes() + repr((PREFIX, SYMBOLS)).encode()).hexdigest()[:16]
    copy = folder / f"libopenblas-{key}.so"
    if not copy.exists():
        import lief

        binary = lief.ELF.parse(str(libraries[0]))
        if binary is None:
            raise ImportError(f"lief cannot read {libraries[0]}")
        for symbol in binary.dynamic_symbols:
            if str(symbol.name).removeprefix(PREFIX) in SYMBOLS:
                symbol.name = str(symbol.name).removeprefix(PREFIX)
        part = copy.with_name(f".{copy.name}.{secrets.token_hex(4)}")  # two first runs at once must not meet
        try:
            binary.write(str(part))
            flush_path(part)
            part.replace(copy)
        finally:
            part.unlink(missing_ok=True)
    return copy
