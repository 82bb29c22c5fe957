"""How long work tells how far it is: by calling a function that is handed in; the command line's draws a bar."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""``(what, done, total)``: ``what`` names the work and, after a colon, its unit, as in ``"download: bytes"``."""


def silent(what: str, done: int, total: int) -> None:
    """The progress that nobody watches."""
