"""What every command shares: five options, and where its output goes.

Data goes to standard output, as one JSON document on one line with ``--json``; notes, progress and errors go to
standard error. The five options may stand before or after the verb: each is remembered when it is met, and the last
one wins.
"""

import functools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlxtune.cli.progress import ProgressView, choose_view
from mlxtune.offline import network_off
from mlxtune.progress import Progress

if TYPE_CHECKING:
    from rich.console import RenderableType

WIDTH_ELSEWHERE = 120  # of tables that are piped on: no terminal says how wide they may be


@dataclass(frozen=True)
class Output:
    """Where one command's words go, and the shared options; ``output_options`` makes it."""

    json: bool = False
    quiet: bool = False
    debug: bool = False
    device: str = "auto"
    view: ProgressView = field(default_factory=ProgressView, repr=False)

    @property
    def progress(self) -> Progress:
        """To be handed to long work; draws on standard error."""
        return self.view

    def detail(self, text: str) -> None:
        """What the progress shows at the end of the line that moves next, such as loss and memory."""
        self.view.detail(text)

    def show(self, data: Any, text: "RenderableType") -> None:
        """Print data to standard output: ``data`` as one line of JSON with ``--json``, else ``text``.

        Args:
            data: JSON values, and paths. NaN is refused: other readers do not know it.
            text: a string, printed as it is, or anything rich can draw; strings inside are no markup.
        """
        self.view.close()
        if self.json:
            line = json.dumps(data, ensure_ascii=False, allow_nan=False, default=_plain)
            # UTF-8 whatever the locale is; a path that is not Unicode keeps its bytes as \udcXX, which JSON allows.
            click.echo(line.encode("utf-8", "backslashreplace"))
        elif isinstance(text, str):
            click.echo(text)
        else:
            from rich.console import Console

            is_terminal = sys.stdout.isatty()
            console = Console(
                width=None if is_terminal else WIDTH_ELSEWHERE, markup=False, highlight=False, emoji=False
            )
            console.print(text, soft_wrap=not is_terminal)  # a line that is piped on is not broken

    def note(self, text: str) -> None:
        """Print a line for people to standard error, unless ``--quiet``."""
        if not self.quiet:
            click.echo(text, err=True)


def _plain(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _remember(context: click.Context, option: click.Parameter, value: Any) -> None:
    """Keep a shared option where the verb finds it; a default never covers what stood before the verb."""
    if context.get_parameter_source(option.name) is not click.core.ParameterSource.DEFAULT:
        context.ensure_object(dict)[option.name] = value
        if option.name == "offline" and value:
            context.with_resource(network_off())


def _shared(name: str, **settings: Any) -> Callable[[Any], Any]:
    return click.option(name, expose_value=False, callback=_remember, **settings)


SHARED_OPTIONS = (
    _shared("--device", type=click.Choice(["auto", "cpu", "gpu"]), default="auto", help="Where to compute."),
    _shared("--offline", is_flag=True, help="Never use the network."),
    _shared("--json", is_flag=True, help="Print data, and errors, as one line of JSON."),
    _shared("--debug", is_flag=True, help="Show the traceback of an error."),
    _shared("--quiet", is_flag=True, help="No notes and no progress."),
)


def share_options(group: click.Group) -> None:
    """Give a group, and the groups in it, the five options, so that they may also stand between noun and verb."""
    for below in group.commands.values():
        if isinstance(below, click.Group):
            share_options(below)
    if not any(parameter.name == "json" for parameter in group.params):
        for option in SHARED_OPTIONS:
            option(group)


def output_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the five options, and its function the keyword ``output`` that knows them."""

    @functools.wraps(function)
    def with_output(*arguments: Any, **settings: Any) -> Any:
        context = click.get_current_context()
        given = {name: value for name, value in context.ensure_object(dict).items() if name != "offline"}
        output = Output(**given, view=choose_view(quiet=given.get("quiet", False)))
        context.call_on_close(output.view.close)
        return function(*arguments, output=output, **settings)

    for option in reversed(SHARED_OPTIONS):
        option(with_output)
    return with_output


def is_asked_for(flag: str, given: Mapping[str, Any], arguments: Sequence[str]) -> bool:
    """Whether a shared flag was set, also on a command line that was wrong before click came to it."""
    return bool(given.get(flag)) or f"--{flag}" in arguments
