"""Two courtesies while a run works: the machine does not fall asleep, and says when it is done. Both can be left out.

By the system's own programs, by absolute path, with fixed arguments and never a shell; where one is missing nothing
happens, since a run is not to fail for want of a courtesy. macOS is kept awake by ``caffeinate``, which ends with this
process however that ends; a closed lid sends a laptop to sleep all the same. Elsewhere nothing is kept awake. Unseen on
a Mac so far.
"""

import html
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

CAFFEINATE = "/usr/bin/caffeinate"
OSASCRIPT = "/usr/bin/osascript"
NOTIFY_SEND = "/usr/bin/notify-send"
DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")
TITLE = "mlxtune"
SECONDS = 5.0
"""For a notification to be shown."""


class Awake:
    """Keeps the machine from falling asleep of idleness, from `hold` until `let_go`.

    Args:
        program: what is started where ``system`` is macOS; in tests, another.
    """

    def __init__(self, system: str = sys.platform, program: str = CAFFEINATE) -> None:
        self._command = [program, "-i", "-w", str(os.getpid())] if system == "darwin" else None
        self._child: subprocess.Popen[bytes] | None = None

    def hold(self) -> None:
        """From now on, if it is not held already."""
        if self._command is None or self._child is not None:
            return
        nowhere = subprocess.DEVNULL
        try:  # a group of its own: Ctrl-C is for the run, which may take its time to save
            self._child = subprocess.Popen(
                self._command, stdin=nowhere, stdout=nowhere, stderr=nowhere, start_new_session=True
            )
        except OSError:
            self._command = None

    def let_go(self) -> None:
        """The machine may sleep again."""
        child, self._child = self._child, None
        if child is not None:
            child.terminate()
            child.wait()


def notification(text: str, system: str, environment: Mapping[str, str]) -> list[str] | None:
    """The command that shows ``text``; None where there is nothing to show it on.

    On macOS the text is an argument of a fixed script and no part of it. Elsewhere the desktop reads it as markup, so
    it is escaped. It begins with a space in both, lest a program takes it for an option.
    """
    if system == "darwin":
        script = ("on run argv", "display notification (item 1 of argv) with title (item 2 of argv)", "end run")
        return [OSASCRIPT, *(part for line in script for part in ("-e", line)), f" {text}", TITLE]
    if any(environment.get(name) for name in DISPLAYS) and Path(NOTIFY_SEND).exists():
        return [NOTIFY_SEND, f"--app-name={TITLE}", TITLE, f" {html.escape(text)}"]
    return None


def notify(text: str, ring: Callable[[], None]) -> None:
    """Show ``text`` on this machine's desktop; without one, or where that fails, ``ring`` the terminal's bell."""
    command, nowhere = notification(text, sys.platform, os.environ), subprocess.DEVNULL
    if command is not None:
        try:
            done = subprocess.run(command, stdin=nowhere, stdout=nowhere, stderr=nowhere, timeout=SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired):
            pass
        else:
            if done.returncode == 0:
                return
    ring()
