"""Working on several batches side by side, where that is faster: on the CPU, by threads.

MLX's CPU backend computes one graph on one core. A BLAS with two threads speeds up the products alone, and its threads
spin while they wait; two Python threads, each with half of the rows, speed up everything. Their number is fixed and not
the machine's, so that the same run gives the same bits on any number of cores. A GPU gets one batch at a time.

Streams belong to threads: a lazy array must be evaluated on the thread that made it, and only then travels.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

CPU_WORKERS = 2


@dataclass(frozen=True)
class Workers:
    """How many threads there are, and a ``map`` over them: results in the order of the items."""

    count: int
    map: Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


ONE_WORKER = Workers(1, map)


@contextmanager
def start_workers(count: int) -> Iterator[Workers]:
    """Threads that stay until the block ends; for a count of 1, the caller's own."""
    if count == 1:
        yield ONE_WORKER
        return
    pool = ThreadPoolExecutor(count, thread_name_prefix="mlxtune")
    try:
        yield Workers(count, pool.map)
    finally:
        pool.shutdown(cancel_futures=True)
