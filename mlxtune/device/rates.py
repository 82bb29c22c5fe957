"""How fast this machine multiplies matrices, MLX beside numpy on the CPU, and the GPU; and how fast its memory is.

numpy works in a child process, with as many threads as MLX's BLAS has: threads can only be set before numpy is loaded.
The two take turns, and the best of several turns counts, since whatever else the machine does only ever makes a turn
slower.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx

from mlxtune.errors import DeviceError

THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

NUMPY_TURNS = """
import sys, time
import numpy
size = int(sys.argv[1])
random = numpy.random.default_rng(0)
left, right = (random.random((size, size), dtype=numpy.float32) for _ in range(2))
left @ right
for _ in sys.stdin:
    start = time.perf_counter()
    left @ right
    print(time.perf_counter() - start, flush=True)
"""


@dataclass(frozen=True)
class MatmulRates:
    """Float32 matrix products on the CPU, in GFLOP/s."""

    mlx_gflops: float
    numpy_gflops: float

    @property
    def share(self) -> float:
        """MLX's rate as a part of numpy's."""
        return self.mlx_gflops / self.numpy_gflops


def matmul_rates(threads: int | None, *, size: int = 1024, turns: int = 8) -> MatmulRates:
    """Multiply [size, size] matrices in MLX and numpy, in turn.

    Args:
        threads: of numpy; None leaves it its own choice.

    Raises: DeviceError, if numpy's process fails.
    """
    environment = os.environ | {name: str(threads) for name in THREAD_VARIABLES if threads is not None}
    multiply = _mlx_product(mx.Device(mx.cpu), mx.float32, size)
    command = [sys.executable, "-P", "-c", NUMPY_TURNS, str(size)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment) as numpy:
        assert numpy.stdin is not None
        assert numpy.stdout is not None
        assert numpy.stderr is not None
        seconds = []
        try:
            for _ in range(turns):
                numpy.stdin.write("\n")
                numpy.stdin.flush()
                seconds.append((float(numpy.stdout.readline()), multiply()))
        except (OSError, ValueError) as error:  # the pipe closed, or no number came
            numpy.kill()
            said = (numpy.stderr.read().strip() or "it said nothing").splitlines()[-1]
            raise DeviceError(f"numpy could not be measured: {said}", remedy="reinstall numpy") from error
        numpy.stdin.close()
    best_numpy, best_mlx = (min(column) for column in zip(*seconds, strict=True))
    return MatmulRates(mlx_gflops=_gflops(size, best_mlx), numpy_gflops=_gflops(size, best_numpy))


def matmul_rate(device: mx.Device, dtype: mx.Dtype, *, size: int = 4096, turns: int = 5) -> float:
    """GFLOP/s of [size, size] matrix products on one device of MLX."""
    multiply = _mlx_product(device, dtype, size)
    return _gflops(size, min(multiply() for _ in range(turns)))


def copy_rate(device: mx.Device, *, size_bytes: int = 64 << 20, turns: int = 8) -> float:
    """GB/s of memory, read and written together, where MLX adds one to each number of a large array.

    Args:
        size_bytes: of the array: beyond most processors' caches, and little enough that MLX keeps a freed buffer of it
            for the next turn, since the system's handing out of new memory is slower than memory is.
    """
    array = mx.zeros(size_bytes // 4, dtype=mx.float32, stream=device)
    mx.eval(array)
    seconds = []
    for _ in range(turns + 1):  # the first takes the memory
        mx.synchronize()
        start = time.perf_counter()
        mx.eval(mx.add(array, 1.0, stream=device))
        seconds.append(time.perf_counter() - start)
    return 2 * array.nbytes / min(seconds[1:]) / 1e9


def _mlx_product(device: mx.Device, dtype: mx.Dtype, size: int) -> Callable[[], float]:
    """A function that multiplies two [size, size] matrices and returns the seconds it took."""
    left, right = (mx.random.uniform(shape=(size, size), key=mx.random.key(n), stream=device) for n in range(2))
    left, right = left.astype(dtype, stream=device), right.astype(dtype, stream=device)

    def seconds() -> float:
        mx.synchronize()
        start = time.perf_counter()
        mx.eval(mx.matmul(left, right, stream=device))
        return time.perf_counter() - start

    mx.eval(left, right)
    seconds()  # the first product also makes threads and kernels
    return seconds


def _gflops(size: int, seconds: float) -> float:
    return 2 * size**3 / seconds / 1e9
