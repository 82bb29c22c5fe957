"""What somebody says in a chat, one message after the other: typed on a terminal, or piped in, a line each.

A message of several lines stands between triple quotes, in both. Nothing that was typed outlives the chat, unless its
user names a file for it: that file is its owner's alone. Knows nothing of models and of what messages mean.
"""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from mlxtune.data.reading.content import numbered_lines, stream_content, too_long
from mlxtune.errors import DataError, UsageError

QUOTES = '"""'
PIPE = "standard input"
HISTORY_BEGINS = b"\n# "
"""How every file begins that prompt_toolkit keeps a history in."""


def is_open(text: str) -> bool:
    """Whether quotes at its beginning are not closed at its end: there is more to come."""
    quoted = text.strip()
    return quoted.startswith(QUOTES) and not (len(quoted) >= 2 * len(QUOTES) and quoted.endswith(QUOTES))


def quoted_text(message: str) -> str | None:
    """What stands between the quotes, without the line ends beside them; None, where there are no quotes."""
    quoted = message.strip()
    if not quoted.startswith(QUOTES) or is_open(message):
        return None
    return quoted[len(QUOTES) : -len(QUOTES)].removeprefix("\n").removesuffix("\n")


def piped_messages(stream: BinaryIO) -> Iterator[str]:
    """The messages of a pipe, as they come; blank lines are none.

    Raises: DataError, for a line that is no UTF-8 or too long, and quotes that are never closed.
    """
    begun, first = "", 0
    for number, raw in numbered_lines(stream_content(stream, PIPE), blank=True):
        where = f"{PIPE}:{number}"
        if raw is None:
            raise DataError(f"the line is {too_long()}", where=where, remedy="break it into several")
        try:
            line = raw.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise DataError("the line is not UTF-8", where=where, remedy="send UTF-8") from error
        text = begun + line
        if is_open(text):
            begun, first = text + "\n", first or number
            continue
        begun, first = "", 0
        if text.strip():
            yield text
    if begun:
        raise DataError(f"the {QUOTES} is never closed", where=f"{PIPE}:{first}", remedy=f"end the text with {QUOTES}")


def typed_messages(
    label: Callable[[], str], commands: Sequence[str], history: Path | None, note: Callable[[str], None]
) -> Iterator[str]:
    """The messages that are typed, until Ctrl-D; Ctrl-C drops a line that was begun.

    Args:
        label: what stands before a line, asked anew for each.
        commands: what Tab completes a line to.
        history: a file that keeps what was typed; None: it is forgotten at the end.
        note: told what a user may want to know.

    Raises: UsageError, for a file that is no history or that others can read.
    """
    session: PromptSession[str] = PromptSession(
        history=InMemoryHistory() if history is None else open_history(history),
        multiline=True,
        prompt_continuation="... ",
        key_bindings=_bindings(),
        completer=WordCompleter(commands, sentence=True),
        complete_while_typing=False,
        enable_suspend=True,
    )
    while True:
        try:
            text = session.prompt(f"{label()}> ")
        except KeyboardInterrupt:
            note("Ctrl-D leaves")
            continue
        except EOFError:
            return
        if text.strip():
            yield text


def open_history(path: Path) -> History:
    """The history in a file, which is made, its owner's alone, where it is not there.

    Raises: UsageError, if it is no such file or others can read it.
    """
    path = path.expanduser()
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise UsageError(
            f"the history cannot be kept there: {error.strerror}", where=path, remedy="name a file that you can write"
        ) from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or os.pread(descriptor, len(HISTORY_BEGINS), 0) not in (b"", HISTORY_BEGINS):
            raise UsageError("this file is no chat's history", where=path, remedy="name a file of its own for it")
        if found.st_mode & 0o077:
            raise UsageError("others can read this history", where=path, remedy=f"chmod 600 {path}")
    finally:
        os.close(descriptor)
    return FileHistory(path)


def _bindings() -> KeyBindings:
    bindings, typing = KeyBindings(), has_focus(DEFAULT_BUFFER)  # not where the history is searched

    @bindings.add("enter", filter=typing)
    def _(event: KeyPressEvent) -> None:
        if is_open(event.current_buffer.text):
            event.current_buffer.insert_text("\n")
        else:
            event.current_buffer.validate_and_handle()

    @bindings.add("escape", "enter", filter=typing)
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return bindings
