"""The processes that train one network together: who this one is, and the few things that they tell each other.

``mlx.launch`` starts such processes, on several machines or on one; MLX's own engine (ring, JACCL or MPI) carries what
they say. It is opened only where the environment says that there are several ranks: a process that is alone pays
nothing. MLX waits for a peer for ever and holds Python's lock meanwhile, so that neither a thread nor a signal handler
of Python's can end the wait; a watchdog outside of Python does. Knows arrays and numbers; nothing of training.
"""

import contextlib
import faulthandler
import json
import math
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import mlx.core as mx
import numpy as np

from mlxtune.errors import DeviceError, TrainingError, UsageError

TIMEOUT = "MLXTUNE_RANK_TIMEOUT"
TIMEOUT_SECONDS = 120.0
"""How long a rank waits for the others to come."""

RANK, HOSTFILE = "MLX_RANK", "MLX_HOSTFILE"
JACCL = ("MLX_IBV_DEVICES", "MLX_JACCL_COORDINATOR")
MPI_RANK, MPI_SIZE = "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"

Backend = Literal["ring", "jaccl", "mpi"]
Row = TypeVar("Row")


@dataclass(frozen=True)
class Ranks:
    """All processes of one training, seen from one of them; as it stands, from one that is alone.

    What they say to each other is said by all at once: each of the functions below returns when every rank has called
    it. Raises: TrainingError, where the connection to a rank is lost.
    """

    rank: int = 0
    """Of this process; rank 0 alone writes and speaks."""
    size: int = 1
    all_gather: Callable[[mx.array], mx.array] = lambda array: array
    """[1, N] of every rank to [R, N] in the order of ranks, evaluated."""
    all_sum: Callable[[mx.array], mx.array] = lambda array: array
    """The sum over all ranks, evaluated; to the last bit the same on each."""

    @property
    def is_alone(self) -> bool:
        return self.size == 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, rows: Sequence[Row]) -> Sequence[Row]:
        """This rank's part of rows that all ranks have: every R-th, so that rows sorted by length are spread evenly."""
        return rows[self.rank :: self.size]

    def gather(self, numbers: Sequence[float]) -> np.ndarray:
        """The numbers that each rank gives, [R, N] in float64: whoever adds them up gets the same."""
        return np.array(self.all_gather(mx.array([[float(number) for number in numbers]], mx.float64)), np.float64)

    def any(self, flag: bool) -> bool:
        """Whether any rank says so."""
        return bool(self.gather([flag]).any())

    def sum_arrays(self, arrays: Sequence[mx.array]) -> list[mx.array]:
        """The sums of arrays that have the same shapes on all ranks."""
        return list(arrays) if self.is_alone else _by_dtype(arrays, self.all_sum)

    def arrays_of_first(self, arrays: Sequence[mx.array]) -> list[mx.array]:
        """What rank 0 gives, to the last bit; the others' arrays say shapes and types."""

        def of_first(flat: mx.array) -> mx.array:
            # As whole numbers, which stay what they are when zeros are added; -0.0 would not.
            bits = flat.view(mx.uint8)
            return self.all_sum(bits if self.is_first else mx.zeros_like(bits)).view(flat.dtype)

        return list(arrays) if self.is_alone else _by_dtype(arrays, of_first)

    def text_of_first(self, text: str = "") -> str:
        """The text that rank 0 gives."""
        if self.is_alone:
            return text
        said = np.frombuffer(text.encode(), np.uint8)
        length = int(self.gather([len(said)])[0, 0])
        if not length:
            return ""
        array = self.all_sum(mx.array(said) if self.is_first else mx.zeros(length, mx.uint8))
        return np.array(array).tobytes().decode()


ALONE = Ranks()


def _by_dtype(arrays: Sequence[mx.array], function: Callable[[mx.array], mx.array]) -> list[mx.array]:
    """``function`` of arrays put behind one another, those of a type at once: a message has a price of its own."""
    results = list(arrays)
    for dtype in sorted({array.dtype for array in arrays}, key=str):
        places = [place for place, array in enumerate(arrays) if array.dtype == dtype]
        ends = np.cumsum([arrays[place].size for place in places]).tolist()
        flat = function(mx.concatenate([arrays[place].reshape(-1) for place in places]))
        for place, part in zip(places, mx.split(flat, ends[:-1]), strict=True):
            results[place] = part.reshape(arrays[place].shape)
    mx.eval(results)
    return results


def open_ranks(environment: Mapping[str, str] = os.environ) -> Ranks:
    """Meet the other ranks, where there are some; calling it again gives the same ranks.

    A process whose peers do not come within ``MLXTUNE_RANK_TIMEOUT`` seconds (120) ends with exit code 1 and a message.

    Raises: UsageError, if the environment's variables do not fit together; DeviceError, if MLX cannot open its engine.
    """
    backend = backend_of(environment)
    if backend is None:
        return ALONE
    seconds = _timeout(environment)
    message = (
        f"error: rank {rank_of(environment)} waited {seconds:g} seconds for the other ranks, and not all of them came\n"
        f"  hint: start all ranks at once, and see that each can reach the others; {TIMEOUT} sets the seconds"
    )
    with ended_after(seconds, message):
        group = _meet(backend)
        ranks = Ranks(
            group.rank(),
            group.size(),
            lambda array: _said(mx.distributed.all_gather(array, group=group, stream=mx.Device(mx.cpu))),
            lambda array: _said(mx.distributed.all_sum(array, group=group)),
        )
        ranks.gather([0.0])
    return ranks


def backend_of(environment: Mapping[str, str]) -> Backend | None:
    """Which of MLX's engines the environment was made for; None for a process that is alone.

    Raises: UsageError, if it was made for several ranks and not for one of these engines.
    """
    if environment.get(MPI_SIZE, "1") != "1":
        return "mpi"
    if not environment.get(RANK):
        return None
    if environment.get(HOSTFILE):
        return "ring" if _ring_size(Path(environment[HOSTFILE])) > 1 else None
    if all(environment.get(name) for name in JACCL):
        return "jaccl"
    raise UsageError(
        f"{RANK} says that this is one of several ranks, and nothing says how to reach the others",
        where=RANK,
        remedy=f"start them with mlx.launch --backend ring, mpi or jaccl; to train alone, unset {RANK}",
    )


def rank_of(environment: Mapping[str, str] = os.environ) -> int:
    """The rank that the environment gives this process, without meeting the others.

    Raises: UsageError, if there is no such rank.
    """
    backend = backend_of(environment)
    if backend is None:
        return 0
    name = MPI_RANK if backend == "mpi" else RANK
    rank = environment.get(name, "")
    size = _ring_size(Path(environment[HOSTFILE])) if backend == "ring" else None
    if not rank.isdecimal() or (size is not None and int(rank) >= size):
        of_size = "" if size is None else f" of {size}"
        raise UsageError(f"{name}={rank} is no rank{of_size}", where=name, remedy="ranks count from 0 on")
    return int(rank)


def _ring_size(hostfile: Path) -> int:
    """How many ranks a ring's hostfile names; mlx.launch writes an empty one for a process that is alone."""
    try:
        text = hostfile.read_text(encoding="utf-8").strip()
        return len(json.loads(text)) if text else 1
    except (OSError, ValueError, TypeError) as error:
        remedy = 'it is a JSON list of lists, one a rank: [["192.168.0.1:5000"], ["192.168.0.2:5000"]]'
        raise UsageError(f"{HOSTFILE} cannot be read: {error}", where=hostfile, remedy=remedy) from error


def _timeout(environment: Mapping[str, str]) -> float:
    asked = environment.get(TIMEOUT) or str(TIMEOUT_SECONDS)
    try:
        seconds = float(asked)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise UsageError(f"{TIMEOUT}={asked} is no time", where=TIMEOUT, remedy="give seconds, as in 120")
    return seconds


def _meet(backend: Backend) -> Any:
    """MLX's group of all ranks."""
    while True:
        try:
            return mx.distributed.init(strict=True, backend=backend)
        except RuntimeError as error:
            # The last rank of a ring tries for 31 seconds to reach the first, and gives up before the watchdog does.
            if "Couldn't connect" not in str(error):
                remedy = "see that the addresses are this machine's own and free, and that MLX has this engine"
                raise DeviceError(f"MLX cannot open its engine {backend!r}: {error}", remedy=remedy) from error


def _said(array: mx.array) -> mx.array:
    """An array that other ranks have a part in, evaluated."""
    try:
        mx.eval(array)
    except RuntimeError as error:
        raise TrainingError(
            f"a rank was lost, and the others cannot go on without it: {error}",
            remedy="see what it said last; then start all ranks again with --resume RUN: the last checkpoint is good",
        ) from error
    return array


@contextlib.contextmanager
def ended_after(seconds: float, message: str) -> Iterator[None]:
    """End this process with exit code 1, and ``message`` on standard error, if the block takes longer.

    Only faulthandler's thread can act while Python's lock is held, and all it can do is to write a traceback to a file
    and exit. The file is a pipe; at its other end a shell waits, whose answer to the first line is the message.
    """
    reading, writing = os.pipe()
    answer = ["/bin/sh", "-c", 'read -r line && printf "%s\\n" "$1" >&2', "sh", message]
    shell = subprocess.Popen(answer, stdin=reading, stdout=subprocess.DEVNULL)
    os.close(reading)
    faulthandler.dump_traceback_later(seconds, exit=True, file=writing)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        os.close(writing)
        shell.wait()
