"""A child process that answers lines with lines, a time limit on each; one that hangs or dies is replaced.

For work on what strangers wrote: whatever it does to the process that does it, this one stays whole. One process
answers many lines, so that its start is paid once. Knows lines; nothing of what they say.
"""

import contextlib
import queue
import subprocess
import threading
from collections.abc import Sequence
from typing import IO


class ChildTimeoutError(Exception):
    """No answer came in time; the child was ended."""


class ChildDiedError(Exception):
    """The child ended before it answered."""


class Child:
    """A process, started when it is first asked; to be closed, which ends it.

    Args:
        command: the program and its arguments.
        seconds: the time limit for one answer.
    """

    def __init__(self, command: Sequence[str], *, seconds: float) -> None:
        self.seconds, self._command = seconds, command
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def ask(self, line: bytes) -> bytes:
        """The answer to ``line``, which has no line end.

        Raises: ChildTimeoutError or ChildDiedError; what is asked next, a new process answers.
        """
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(line + b"\n")
            process.stdin.flush()
            answer = self._answers.get(timeout=self.seconds)
        except queue.Empty as error:
            self.close()
            raise ChildTimeoutError from error
        except BrokenPipeError:
            answer = b""
        if not answer:
            self.close()
            raise ChildDiedError
        return answer

    def _start(self) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert process.stdout is not None
        self._process, self._answers = process, queue.SimpleQueue()
        threading.Thread(target=_pump, args=(process.stdout, self._answers), daemon=True).start()
        return process

    def close(self) -> None:
        """End the process, whatever it is doing."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _pump(source: IO[bytes], answers: "queue.SimpleQueue[bytes]") -> None:
    """Hand on each line, and an empty one at the end."""
    with contextlib.suppress(OSError, ValueError):  # closed while it was read from
        for line in source:
            answers.put(line)
    answers.put(b"")
