"""``mlxtune init``: five questions, and a recipe that fits."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlxtune.cli.output import Output, output_options
from mlxtune.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlxtune.iteration.propose import Proposal

MODEL = "smollm2-135m-instruct"
ALL_THAT_IS_FREE = 0.0


@click.command()
@click.argument("folder", metavar="[DIR]", type=click.Path(path_type=Path), default=Path("my-recipe"))
@click.option("--task", type=click.Choice(["classify", "extract", "answer", "write"]), help="What the model is to do.")
@click.option("--data", type=click.Path(path_type=Path), help="Your rows: a file, or a folder with its splits.")
@click.option("--model", metavar="SOURCE", help="A catalogue name, a folder, a .gguf file or org/name on the hub.")
@click.option("--minutes", type=float, help="Most minutes of training.")
@click.option(
    "--memory", type=click.FloatRange(0, 10_000), metavar="GB", help="Most memory to take; 0: all that is free."
)
@click.option("--force", is_flag=True, help="Replace DIR.")
@output_options
def command(
    folder: Path,
    task: str | None,
    data: Path | None,
    model: str | None,
    minutes: float | None,
    memory: float | None,
    force: bool,
    output: Output,
) -> None:
    """Ask for task, data, model, time and memory, and write a recipe to DIR that fits.

    Each question is an option too; without a terminal all five have to be given so. One file of rows is split into
    train, valid and test.
    """
    from mlxtune.files import check_new_folder
    from mlxtune.iteration.propose import Answers, propose_recipe

    check_new_folder(folder.absolute(), force=force)
    task, data, model, minutes, memory = _ask(task, data, model, minutes, memory)
    asked = Answers(task, data, model, minutes, int(memory * 1e9) or None)
    proposal = propose_recipe(asked, folder, device=output.device, force=force, progress=output.progress)
    found = proposal.forecast
    told = {"recipe": proposal.recipe, "rows": proposal.rows, "dropped": proposal.dropped, "form": proposal.why}
    output.show({**told, "plan": found.to_json()}, "\n".join(_lines(proposal)))
    if proposal.dropped:
        output.note(f"{proposal.dropped} rows are longer than data.max_seq_length and will be dropped")


def at_a_terminal() -> bool:
    """Whether somebody is there to be asked."""
    return sys.stdin.isatty()


def _ask(
    task: str | None, data: Path | None, model: str | None, minutes: float | None, memory: float | None
) -> tuple[str, Path, str, float, float]:
    """The five answers: from the options, else from a person. Raises: UsageError, if there is none to ask."""
    given = {"--task": task, "--data": data, "--model": model, "--minutes": minutes, "--memory": memory}
    missing = [name for name, value in given.items() if value is None]
    if missing and not at_a_terminal():
        raise UsageError(
            f"there is no terminal to ask at, and {', '.join(missing)} {'are' if len(missing) > 1 else 'is'} not given",
            where="mlxtune init",
            remedy=f"give {', '.join(missing)}, such as --task classify --data rows.jsonl --model {MODEL} "
            "--minutes 10 --memory 0",
        )
    tasks = click.Choice(["classify", "extract", "answer", "write"])
    rows = click.Path(path_type=Path, exists=True)
    return (
        _answer(task, "What is the model to do?", type=tasks),
        _answer(data, "Which file has your rows?", type=rows),
        _answer(model, "Which model?", default=MODEL),
        _answer(minutes, "How many minutes may it train?", type=float, default=10.0),
        _answer(
            memory,
            "How many GB of memory may it take (0: all that is free)?",
            type=click.FloatRange(0, 10_000),
            default=ALL_THAT_IS_FREE,
        ),
    )


def _answer(given: Any, question: str, **settings: Any) -> Any:
    ask: Callable[..., Any] = click.prompt
    return given if given is not None else ask(question, err=True, **settings)


def _lines(proposal: "Proposal") -> list[str]:
    from mlxtune.cli.plan import in_short

    rows = ", ".join(f"{count} {split}" for split, count in proposal.rows.items())
    return [
        f"wrote {proposal.recipe}",
        f"rows      {rows}; read as {proposal.why}",
        f"takes     {in_short(proposal.forecast)}",
        f"next      mlxtune train {proposal.recipe}",
    ]
