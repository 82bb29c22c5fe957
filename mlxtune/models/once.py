"""Making something in the cache once, however many processes want it at the same moment."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """No other process is in a block for the same ``path`` meanwhile; waits until that is so.

    The lock is on a file beside ``path`` and ends with the process, however that ends. Look whether ``path`` is there
    inside the block: another process may have made it while this one waited.
    """
    with path.with_name(f".{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
