"""How many bytes a folder holds. Links are no files of its own: they are counted as links, never followed."""

import os
from pathlib import Path


def disk_bytes(path: Path) -> int:
    """The sizes of all files below the folder ``path``; what cannot be looked at counts nothing."""
    total, waiting = 0, [os.fspath(path)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
        except OSError:
            continue
    return total
