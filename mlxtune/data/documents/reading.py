"""Documents read in a child process (worker.py), a time limit on each; a process that hangs or dies is replaced.

One process reads many files, so that its start (half a second) is paid once. The price of a process at all is that a
document travels as JSON, a few milliseconds a megabyte.
"""

import contextlib
import json
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any, Self

from mlxtune.data.documents.document import Document, from_json
from mlxtune.data.documents.unreadable import UnreadableError

SECONDS = 120.0
"""What a file may take; a book of 120 pages takes 3."""
COMMAND = (sys.executable, "-P", "-m", "mlxtune.data.documents.worker")


class DocumentReader:
    """Reads documents; to be closed, which ends its process.

    Args:
        seconds: the time limit for one file.
        command: the child, but for tests.
    """

    def __init__(self, *, seconds: float = SECONDS, command: tuple[str, ...] = COMMAND) -> None:
        self._seconds, self._command = seconds, command
        self._child: subprocess.Popen[bytes] | None = None
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, path: Path) -> Document:
        """What the file says. Raises: UnreadableError, with the reason why it gives nothing."""
        answer = self._ask(path)
        if "document" not in answer:
            raise UnreadableError(answer["reason"], answer["remedy"])
        return from_json(answer["document"])

    def _ask(self, path: Path) -> dict[str, Any]:
        child = self._child or self._start()
        assert child.stdin is not None
        try:
            child.stdin.write(json.dumps(str(path)).encode() + b"\n")
            child.stdin.flush()
            line = self._answers.get(timeout=self._seconds)
        except queue.Empty:
            self.close()
            return {"reason": f"it was not read within {self._seconds:g} s", "remedy": "take it out, or save it again"}
        except BrokenPipeError:
            line = b""
        if not line:
            self.close()
            return {"reason": "damaged: the reader crashed on it", "remedy": "take it out, or save it again"}
        return json.loads(line)

    def _start(self) -> "subprocess.Popen[bytes]":
        child = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert child.stdout is not None
        self._child, self._answers = child, queue.SimpleQueue()
        threading.Thread(target=_pump, args=(child.stdout, self._answers), daemon=True).start()
        return child

    def close(self) -> None:
        """End the child, whatever it is doing."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _pump(source: IO[bytes], answers: "queue.SimpleQueue[bytes]") -> None:
    """Hand on each line, and an empty one at the end."""
    with contextlib.suppress(OSError, ValueError):  # closed while it was read from
        for line in source:
            answers.put(line)
    answers.put(b"")
