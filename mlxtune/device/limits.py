"""Imports mlx_lm and takes back what its import does to the process.

``import mlx_lm`` sets the limit of open files to (2048, 4096): it lowers the hard limit for us and our children for
good, and fails where an unprivileged process has a lower one. Here the limit does not move during the import.
"""

import contextlib
import sys
from collections.abc import Iterator

from mlxtune.network import is_offline
from mlxtune.offline import close_network


@contextlib.contextmanager
def open_file_limit_kept() -> Iterator[None]:
    """Within the block, Python's calls that would set the limit of open files (RLIMIT_NOFILE) do nothing.

    Holds for the whole process while the block runs: threads that set the limit meanwhile are not heard.
    """
    import resource

    original = resource.setrlimit

    def ignore_open_files(which: int, limits: tuple[int, int]) -> None:
        # A hard limit that was lowered cannot be raised again without privilege: the call itself has to be skipped.
        if which != resource.RLIMIT_NOFILE:
            original(which, limits)

    resource.setrlimit = ignore_open_files
    try:
        yield
    finally:
        resource.setrlimit = original


def import_mlx_lm() -> None:
    """Import mlx_lm, once, with the limit of open files as it was, and with the guard up where the network is off.

    All work with a model comes through here, from the command line as from Python.
    """
    if is_offline():
        close_network()
    if "mlx_lm" not in sys.modules:
        with open_file_limit_kept():
            import mlx_lm  # noqa: F401 - for its effects
