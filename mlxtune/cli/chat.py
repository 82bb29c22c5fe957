"""``mlxtune chat``: a conversation with a tuned model, its base or both, in the terminal or through a pipe."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlxtune.cli.failure import report_failure
from mlxtune.cli.output import Output, output_options
from mlxtune.cli.sampling_options import sampling_options
from mlxtune.errors import MlxtuneError
from mlxtune.printable import printable

if TYPE_CHECKING:
    from mlxtune.cli.chat_view import ChatView


@click.command()
@click.argument("run_or_model", metavar="RUN_OR_MODEL")
@click.option("--adapter", type=click.Path(path_type=Path), help="An adapter folder to put on a model.")
@click.option("--system", help="A system message instead of the one that training had.")
@click.option("--raw", is_flag=True, default=None, help="Send messages as they are, without a chat template.")
@sampling_options
@click.option(
    "--history",
    type=click.Path(path_type=Path),
    help="A file that keeps what you type for the next chat; without it nothing is kept.",
)
@output_options
def command(
    run_or_model: str,
    adapter: Path | None,
    system: str | None,
    raw: bool | None,
    sampling: dict[str, Any],
    history: Path | None,
    output: Output,
) -> None:
    """Talk to the tuned model of RUN_OR_MODEL, to its base, or to both.

    On a terminal /help lists the commands, such as /base, /both and /save; Ctrl-C stops an answer, Ctrl-D leaves. From
    a pipe each line is a message or a command, and the answers go to standard output, with --json one line of JSON
    each.
    """
    from mlxtune.cli.chat_commands import COMMANDS
    from mlxtune.cli.chat_lines import open_history, piped_messages, typed_messages
    from mlxtune.cli.chat_view import ChatView
    from mlxtune.deployment.chat import Chat
    from mlxtune.deployment.served import open_served
    from mlxtune.inference.sampling import Sampling

    is_live = sys.stdin.isatty() and sys.stdout.isatty() and not output.json
    if history is not None:
        if not is_live:
            raise click.UsageError("--history keeps what is typed on a terminal, and this is none")
        open_history(history)  # what is wrong with it is told before the model is opened
    settings = Sampling(**sampling)
    served = open_served([run_or_model], adapter=adapter, device=output.device, raw=raw, progress=output.progress)
    output.view.close()
    chat = Chat(served, settings, system=system)
    view = ChatView(chat, output, is_live=is_live)
    for model in served.models.values():
        if model.note is not None:
            view.note(f"note: {model.name}: {model.note}")
    if chat.is_raw:
        view.note("note: the model takes plain text, without turns: each message is answered by itself")
    try:
        if is_live:
            view.note(f"{' and '.join(chat.names)}: /help lists the commands, Ctrl-D leaves")
            talk(typed_messages(lambda: printable(" and ".join(chat.asked)), list(COMMANDS), history, view.note), view)
        else:
            talk(piped_messages(sys.stdin.buffer), view)
    finally:
        chat.close()


def talk(messages: Iterable[str], view: "ChatView") -> None:
    """Follow one message after the other.

    On a terminal an error is told and the chat goes on; from a pipe it is the end. Raises: MlxtuneError, OSError, then.
    """
    from mlxtune.cli.chat_commands import obey

    for message in messages:
        try:
            obey(message, view)
        except (MlxtuneError, OSError) as error:
            if not view.is_live:
                raise
            report_failure(error, as_json=False, debug=view.output.debug)
