"""How a command that failed says so: what happened, where, and the way out, on standard error.

One sentence for people, one line of JSON for programs; a traceback only with ``--debug``. Knows the error tree and
click's own errors; everything else that arrives here is a bug, or the operating system refusing.
"""

import errno
import json
import os
import signal
import traceback

import click

from mlxtune.device.memory import is_out_of_memory
from mlxtune.errors import MlxtuneError

EXIT_CODES: dict[int, int] = {signal.SIGINT: 130, signal.SIGTERM: 143}

NO_ROOM = "make room on this disk; a run then goes on from its last checkpoint: mlxtune train --resume RUN"
NO_ACCESS = "choose a place that you can write to, or give yourself the right to write here"
NO_MEMORY = "close other programs, or ask for less: shorter or fewer rows at once, or a smaller model"
REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), NO_ROOM),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), NO_ACCESS),
}
"""What to do where the system refuses, by its number for the reason."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, obeyed as Ctrl-C is: no ``except`` of an error takes it for one."""


def report_failure(error: Exception, *, as_json: bool, debug: bool) -> int:
    """Print ``error`` to standard error.

    Returns: the exit code: that of a MlxtuneError, 2 for a wrong command line, 130 after Ctrl-C, 143 after SIGTERM,
        else 1.
    """
    if debug:
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    if isinstance(error, click.exceptions.NoArgsIsHelpError) and not as_json:
        error.show()
        return error.exit_code
    kind, message, where, remedy, code = _describe(error, debug=debug)
    if as_json:
        document = {"error": {"type": kind, "message": message, "where": where, "remedy": remedy}}
        click.echo(json.dumps(document, ensure_ascii=False).encode("utf-8", "backslashreplace"), err=True)
        return code
    colour = False if os.environ.get("NO_COLOR") else None  # None: click asks whether it is a terminal
    click.echo(click.style("error: ", fg="red", bold=True) + message, err=True, color=colour)
    if where is not None:
        click.echo(f"  at: {where}", err=True)
    if remedy is not None:
        click.echo("  " + click.style("hint: ", fg="cyan") + remedy, err=True, color=colour)
    return code


def _describe(  # noqa: PLR0911 - one return a kind of error
    error: Exception, *, debug: bool
) -> tuple[str, str, str | None, str | None, int]:
    """Type, message, place, remedy and exit code of any exception."""
    kind = type(error).__name__
    if isinstance(error, MlxtuneError):
        return kind, error.message, error.where, error.remedy, error.exit_code
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return "UsageError", "a command is missing", error.ctx.command_path, f"see {error.ctx.command_path} --help", 2
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "mlxtune"
        return "UsageError", error.format_message(), path, f"see {path} --help", error.exit_code
    if isinstance(error, click.ClickException):
        return kind, error.format_message(), None, None, error.exit_code
    if isinstance(error, click.Abort):
        number = signal.SIGTERM if isinstance(error.__cause__, Terminated) else signal.SIGINT
        return "Interrupted", "interrupted", None, None, EXIT_CODES[number]
    see_more = None if debug else "add --debug to see where in the program"
    if isinstance(error, OSError) and error.strerror:
        remedy = REMEDIES.get(error.errno or 0, see_more)
        return kind, error.strerror, error.filename and str(error.filename), remedy, 1
    if isinstance(error, RuntimeError) and is_out_of_memory(error):
        return "DeviceError", f"there is not enough memory: {error}", None, NO_MEMORY, 1
    traceback_hint = "" if debug else " (add --debug for the traceback)"
    return kind, f"internal error: {kind}: {error}{traceback_hint}", None, None, 1
