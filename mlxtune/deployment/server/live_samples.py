"""A run's latest answers, as the live page shows them: some, each cut to a length, read when they change.

They are those of the last scoring, in samples.jsonl, or before there is one those that were written while the run
trains, in valid_samples.jsonl. Knows these two files; nothing of what a good answer is. Texts are anybody's: whoever
shows them takes care.
"""

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SHOWN = 12
LONGEST_TEXT = 2000
MOST_BYTES = 1 << 20
"""That are read of the file: its beginning has the answers that are shown."""
TEXTS = ("task", "where", "prompt", "reference", "base", "tuned")


class Samples:
    """What was read last.

    ``step`` is the one after which the answers were written, None where a scoring wrote them; ``version`` grows with
    each change of what is shown.
    """

    def __init__(self, scored: Path, valid: Path) -> None:
        self._scored = scored
        self._valid = valid
        self._stamp: tuple[Path, int, int, int] | None = None
        self._shown: list[dict[str, Any]] = []
        self.step: int | None = None
        self.version = 0

    def read(self) -> None:
        """Read the file that there is, if it is not what it was."""
        path = self._scored if os.path.lexists(self._scored) else self._valid
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            self._keep(None, b"")
            return
        try:
            found = os.fstat(descriptor)
            stamp = (path, found.st_ino, found.st_mtime_ns, found.st_size)
            if not stat.S_ISREG(found.st_mode):
                self._keep(None, b"")
            elif stamp != self._stamp:
                self._keep(stamp, os.pread(descriptor, MOST_BYTES, 0))
        finally:
            os.close(descriptor)

    def _keep(self, stamp: tuple[Path, int, int, int] | None, content: bytes) -> None:
        if stamp == self._stamp:
            return
        self._stamp, self._shown, self.step = stamp, [], None
        self.version += 1
        for line in content.split(b"\n"):
            if len(self._shown) == SHOWN:
                break
            if (told := _told(line)) is None:
                continue
            if stamp is not None and stamp[0] == self._valid and type(told.get("step")) is int:
                self.step = told["step"]
            self._shown.append({name: _cut(told[name]) if isinstance(told.get(name), str) else None for name in TEXTS})

    def to_json(self) -> list[dict[str, Any]]:
        return self._shown


def _told(line: bytes) -> Mapping[str, Any] | None:
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):  # among them a line of which only the beginning was read
        return None
    return told if isinstance(told, Mapping) else None


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"
