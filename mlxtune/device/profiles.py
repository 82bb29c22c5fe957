"""Macs that one may own or buy: memory, bandwidth and GPU of each, as published, for estimates before anything is run.

Names are ``CHIP-MEMORYgb``: m2-16gb, m3-pro-18gb, m4-max-64gb. Bandwidth is Apple's figure, a peak; where a chip was
sold with several numbers of GPU cores, the fewest that came with that memory count, so that an estimate promises too
little rather than too much. What arithmetic a core does, Apple has told of M1 alone (2.6 TFLOPS of 8 cores, newsroom,
10 November 2020); later cores do more, those of M5 with accelerators much more, and are counted as M1's. Knows no
running machine but by its chip's name. The price: all that follows from it is an estimate, that no Mac has shown.

Sources. Apple's newsroom on M1 (2020-11), M1 Pro and Max (2021-10), M1 Ultra (2022-03), M2 (2022-06), M2 Pro and Max
(2023-01), M2 Ultra (2023-06), M3, Pro and Max (2023-10), M3 Ultra (2025-03), M4 (2024-05), M4 Pro and Max (2024-10), M5
(2025-10), M5 Pro and Max (2026-03), read as others repeat them: https://locara.dev/docs/notes/mac-hardware-lineup;
M4 Max and M3 Ultra, https://english.worldmagazine.it/431260; M5 Pro and Max, https://allyoucantech.com/?p=178375.
M1's bandwidth, which Apple did not tell, is that of its LPDDR4X. An M5 Ultra is not listed: no source for it was found.
Of the memory a GPU may keep at hand (Metal's recommendedMaxWorkingSetSize) 2/3 up to 36 GB and 3/4 beyond is the least
that owners report: 10.67 GB of 16 (exo-explore/exo pull 1672), 37.4 GiB of 48 (yanun0323/Whallm pull 1).
"""

import difflib
import re
from dataclasses import dataclass

from mlxtune.errors import UsageError

CORE_FLOPS = 2.6e12 / 8
"""A second, of one GPU core: M1's."""
REACHED_SHARE = 0.5
"""Of peak arithmetic and of peak bandwidth, that an estimate counts on."""
LITTLE_MEMORY_GB = 36
WORKING_SET_SHARES = (2 / 3, 3 / 4)
"""Of a machine's memory, for its GPU: up to `LITTLE_MEMORY_GB`, and beyond."""
LEAST_CORES = 7
"""Of the smallest chip: what is taken for one whose name is not known."""


@dataclass(frozen=True)
class Machine:
    """One Mac, by published figures."""

    name: str
    chip: str
    memory_gb: int
    bandwidth_gb_s: float
    gpu_cores: int

    @property
    def memory_bytes(self) -> int:
        """Apple's GB of memory are 2^30 bytes."""
        return self.memory_gb << 30

    @property
    def working_set_bytes(self) -> int:
        """What its GPU may keep at hand."""
        little, much = WORKING_SET_SHARES
        return int((little if self.memory_gb <= LITTLE_MEMORY_GB else much) * self.memory_bytes)

    @property
    def flops_per_s(self) -> float:
        """Of matrix products, as an estimate counts on."""
        return REACHED_SHARE * self.gpu_cores * CORE_FLOPS

    @property
    def bytes_per_s(self) -> float:
        """Out of memory, as an estimate counts on."""
        return REACHED_SHARE * self.bandwidth_gb_s * 1e9


CHIPS: tuple[tuple[str, float, int, tuple[int, ...]], ...] = (
    ("m1", 68.25, 7, (8, 16)),
    ("m1-pro", 200, 14, (16, 32)),
    ("m1-max", 400, 24, (32, 64)),
    ("m1-ultra", 800, 48, (64, 128)),
    ("m2", 100, 8, (8, 16, 24)),
    ("m2-pro", 200, 16, (16, 32)),
    ("m2-max", 400, 30, (32, 64, 96)),
    ("m2-ultra", 800, 60, (64, 128, 192)),
    ("m3", 100, 8, (8, 16, 24)),
    ("m3-pro", 150, 14, (18, 36)),
    ("m3-max", 300, 30, (36, 96)),
    ("m3-max", 400, 40, (48, 64, 128)),
    ("m3-ultra", 819, 60, (96, 256, 512)),
    ("m4", 120, 8, (16, 24, 32)),
    ("m4-pro", 273, 16, (24, 48, 64)),
    ("m4-max", 410, 32, (36,)),
    ("m4-max", 546, 40, (48, 64, 128)),
    ("m5", 153, 8, (16, 24, 32)),
    ("m5-pro", 307, 16, (24, 48, 64)),
    ("m5-max", 460, 32, (36,)),
    ("m5-max", 614, 40, (48, 64, 128)),
)
"""Chip, bandwidth in GB/s, GPU cores, memory sizes in GB."""
MACHINES: dict[str, Machine] = {
    f"{chip}-{size}gb": Machine(f"{chip}-{size}gb", chip, size, bandwidth, cores)
    for chip, bandwidth, cores, sizes in CHIPS
    for size in sizes
}


def machine_named(name: str) -> Machine:
    """The machine of that name. Raises: UsageError, for another name, with the nearest and all that there are."""
    asked = re.sub(r"[\s_]+", "-", name.strip().lower())
    if asked in MACHINES:
        return MACHINES[asked]
    near = difflib.get_close_matches(asked, MACHINES, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    raise UsageError(
        f"no machine is called {name!r}", where="--machine", remedy=f"{meant}the names are {', '.join(MACHINES)}"
    )


def flops_of_device(device_name: str) -> float:
    """What matrix products reach on a GPU, by its chip's name (``Apple M2 Pro``); an unknown one is the smallest."""
    chip = re.sub(r"\s+", "-", device_name.strip().lower().removeprefix("apple "))
    cores = min((machine.gpu_cores for machine in MACHINES.values() if machine.chip == chip), default=LEAST_CORES)
    return REACHED_SHARE * cores * CORE_FLOPS
