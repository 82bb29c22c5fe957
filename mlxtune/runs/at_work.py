"""Whether a process works in a run, told by one who only looks: the lock is not taken.

The lock's file names the process that took it last. Where that is gone nobody is there, and nothing is tried; only
where it lives is the lock touched, shared and for an instant. So looking never keeps out a process that is about to go
on with a run. The price: on a folder that several machines share, a process of another machine is not seen. Whoever is
to change a run takes the lock itself (`folder.lock`).
"""

import fcntl
import os
import stat

from mlxtune.runs.folder import RunFolder

LONGEST_PID = 20
"""Digits; more are no process."""


def who_works_in(run: RunFolder) -> int | None:
    """The process that works in ``run``; None if there is none, or the lock cannot be looked at."""
    try:
        descriptor = os.open(run.path / ".lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    pid = 0
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        told = os.read(descriptor, LONGEST_PID).decode("ascii", "replace").strip()
        pid = int(told) if told.isascii() and told.isdecimal() else 0
        if not pid or not _lives(pid):
            return None
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return pid
    except OSError:  # a share that knows no locks
        return None
    else:
        return None
    finally:
        os.close(descriptor)  # and with it what was locked


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
