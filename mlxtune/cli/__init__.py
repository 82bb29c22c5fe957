"""The command ``mlxtune``: a table of verbs and nouns, each loaded only when it is called.

Knows names and one-line helps, so that ``mlxtune --help`` loads no command, no mlx and no pydantic; the price is that
those lines stand here and not with their commands. The module of a noun or verb has it as ``command``.
``MLXTUNE_`` variables mirror every option: ``MLXTUNE_DEVICE`` for ``--device`` anywhere, ``MLXTUNE_TRAIN_RUN_DIR``
for ``mlxtune train --run-dir``.

Exit codes: 0 done; 1 failure; 2 usage; 3 problems found by a command that looks for them; 130 and 143 interrupted.
"""

import importlib
import sys
from io import TextIOWrapper
from typing import Any, NoReturn

import click

from mlxtune.cli.failure import report_failure
from mlxtune.cli.output import is_asked_for, share_options
from mlxtune.network import close_hub

COMMANDS = {
    "doctor": "Check this machine: versions, device, memory, BLAS.",
    "bench": "Measure this machine, in one line to send in.",
    "models": "List, show and fetch models: the catalogue's, and the hub's.",
    "cache": "List and clear what mlxtune keeps to save work.",
    "convert": "Write a model as an MLX folder; quantize it, if asked to.",
    "recipes": "List, show, copy, check and import recipes.",
    "init": "Answer five questions; get a recipe for your own rows that fits.",
    "data": "Look at training data, token by token; check it; split it.",
    "plan": "Foretell what a recipe takes: memory, time, and what would fit.",
    "train": "Fine-tune a model by a recipe, then score it.",
    "evaluate": "Score a model, or a run beside its base, on data it never saw.",
    "report": "Write the one page about a run: verdict, scores, curves, answers, data.",
    "runs": "List, show, compare and prune runs.",
    "sweep": "Try settings of a recipe, or parts of its rows; keep what validates best.",
    "generate": "Let a model answer prompts.",
    "chat": "Talk to a tuned model, or to its base, in the terminal.",
    "watch": "Look at a run while it trains, in a browser; pause it, stop it.",
    "serve": "Serve tuned models to applications, and a page to chat with them.",
    "fuse": "Fold the adapter of a run into its base model.",
    "export": "Write a tuned model in the form of another program.",
}
"""Every command and its one-line help; ``mlxtune.cli.<name>`` has the command itself."""


class Root(click.Group):
    """The root group; it alone turns exceptions into messages and exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's interface
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's interface
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"mlxtune.cli.{cmd_name}").command
        if isinstance(command, click.Group):
            share_options(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's interface
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise click.NoSuchCommand(args[0], possibilities=COMMANDS, ctx=ctx)
        return super().resolve_command(ctx, args)

    def main(self, args: Any = None, prog_name: str | None = None, *_: Any, **extra: Any) -> NoReturn:
        """Run one command line and leave the process with its exit code."""
        arguments = list(sys.argv[1:] if args is None else args)
        # For mlx_lm and transformers, whatever they do; network.py opens the hub again while it fetches itself.
        close_hub()
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):  # a locale without some letter shows its code, and goes on
                stream.reconfigure(errors="backslashreplace")
        given: dict[str, Any] = {}
        extra["standalone_mode"] = False
        try:
            code = super().main(arguments, prog_name or "mlxtune", obj=given, **extra)
        except Exception as error:  # noqa: BLE001 - the one place where any error becomes a message
            debug, as_json = (is_asked_for(name, given, arguments) for name in ("debug", "json"))
            code = report_failure(error, as_json=as_json, debug=debug)
        sys.exit(code if isinstance(code, int) else 0)


@click.group(
    "mlxtune",
    cls=Root,
    context_settings={"auto_envvar_prefix": "MLXTUNE", "help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="mlxtune")
def main() -> None:
    """Fine-tune a language model on your own data, and prove that it got better."""


share_options(main)
