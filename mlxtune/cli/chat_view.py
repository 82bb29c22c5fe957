"""Answers of a chat on standard output, as they come; all else that is told goes to standard error.

On a terminal what a model wrote is shown with control characters spelled out: text may say things to a terminal that
nobody should. Into a pipe it goes as it is, or as JSON Lines. Ctrl-C, where somebody sits before it, stops an answer
between two steps of the network and not within one; a second Ctrl-C ends the program.
"""

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import click

from mlxtune.cli.output import Output
from mlxtune.deployment.chat import INTERRUPTED, Chat, Heard, Reply, never
from mlxtune.printable import printable

KEPT = "\n\t\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
"""Of what is not printable: what text of some languages, and some emoji, cannot do without."""


class ChatView:
    """Shows the answers of one chat."""

    def __init__(self, chat: Chat, output: Output, *, is_live: bool) -> None:
        """Args:
        is_live: somebody types, who may stop an answer.
        """
        self.chat = chat
        self.output = output
        self.is_live = is_live
        self._is_terminal = sys.stdout.isatty()
        self._speaker: str | None = None
        self._ends_line = True

    def note(self, text: str) -> None:
        """Tell something about the chat, unless ``--quiet``."""
        self.output.note(printable(text, keep=KEPT))

    def tell(self, text: str) -> None:
        """Print what was asked for by a command."""
        click.echo(printable(text, keep=KEPT), err=True)

    def show(self, ask: Callable[[Callable[[], bool]], Iterator[Heard]]) -> None:
        """Print what comes from ``ask``, which is handed what tells it to stop."""
        self._speaker = None
        with stopped_by_interrupt() if self.is_live else contextlib.nullcontext(never) as is_stopped:
            try:
                for heard in ask(is_stopped):
                    self._hear(heard)
            finally:
                self._end_line()

    def _hear(self, heard: Heard) -> None:
        if not self.output.json:
            if heard.model != self._speaker and len(self.chat.asked) > 1:
                self._write(f"{heard.model}:\n")
            self._speaker = heard.model
            self._write(heard.text)
        if heard.reply is not None and self.output.json:
            self.output.show(asdict(heard.reply), "")
        elif heard.reply is not None:
            self._end_line()
            self._note_end(heard.reply)

    def _write(self, text: str) -> None:
        if text:
            click.echo(printable(text, keep=KEPT) if self._is_terminal else text, nl=False)
            self._ends_line = text.endswith("\n")

    def _end_line(self) -> None:
        if not self._ends_line:
            self._write("\n")

    def _note_end(self, reply: Reply) -> None:
        if reply.finish_reason == INTERRUPTED:
            self.note("(stopped)")
        elif reply.finish_reason == "length":
            self.note(f"(cut at {reply.completion_tokens:,} tokens; --max-tokens allows more)")
        elif not reply.text.strip():
            self.note("(the answer is empty)")


@contextlib.contextmanager
def stopped_by_interrupt() -> Iterator[Callable[[], bool]]:
    """Gives what tells whether Ctrl-C was pressed in the block. Pressed once more, it is a KeyboardInterrupt."""
    is_stopped = False

    def stop(*_: Any) -> None:
        nonlocal is_stopped
        if is_stopped:
            raise KeyboardInterrupt
        is_stopped = True

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield lambda: is_stopped
    finally:
        signal.signal(signal.SIGINT, before)
