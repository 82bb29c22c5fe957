"""Documents read in a child process (worker.py), a time limit on each; a process that hangs or dies is replaced.

One process reads many files, so that its start (half a second) is paid once. The price of a process at all is that a
document travels as JSON, a few milliseconds a megabyte.
"""

import json
import sys
from pathlib import Path
from typing import Any, Self

from mlxtune.child import Child, ChildDiedError, ChildTimeoutError
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
        self._child = Child(command, seconds=seconds)

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
        try:
            return json.loads(self._child.ask(json.dumps(str(path)).encode()))
        except ChildTimeoutError:
            seconds = self._child.seconds
            return {"reason": f"it was not read within {seconds:g} s", "remedy": "take it out, or save it again"}
        except ChildDiedError:
            return {"reason": "damaged: the reader crashed on it", "remedy": "take it out, or save it again"}

    def close(self) -> None:
        """End the child, whatever it is doing."""
        self._child.close()
