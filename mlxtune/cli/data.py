"""``mlxtune data``: look at rows as the network will meet them; split a file."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlxtune.cli import data_scan, data_stats
from mlxtune.cli.output import Output, output_options
from mlxtune.printable import printable

if TYPE_CHECKING:
    from rich.console import Group

    from mlxtune.data.inspect import Inspection
    from mlxtune.recipe.schema import Recipe


@click.group()
def command() -> None:
    """Look at training data, count it, and split it."""


command.add_command(data_stats.command)
command.add_command(data_scan.command)


@command.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="The folder to write to; named after FILE if not given.")
@click.option("--force", is_flag=True, help="Overwrite train.jsonl, valid.jsonl and test.jsonl in that folder.")
@output_options
def split(file: Path, out: Path | None, force: bool, output: Output) -> None:
    """Split FILE into train, valid and test: 80, 10 and 10 % on average, equal rows together.

    A row's place depends on its content alone, so rows added later move no old ones.
    """
    from mlxtune.data.split import split_file

    report = split_file(file, out, force=force)
    rows = report.rows
    data = {"folder": report.folder, "rows": rows, "duplicates": report.duplicates, "moved_lines": report.moved}
    text = f"{report.folder}: {rows['train']} train, {rows['valid']} valid, {rows['test']} test; "
    text += f"{report.duplicates} {'row repeats' if report.duplicates == 1 else 'rows repeat'} another"
    output.show(data, text)
    if report.moved:
        lines = ", ".join(map(str, report.moved))
        output.note(f"moved so that no split is empty: line {lines}; it may move back when the file grows")


@command.command()
@click.argument("recipe")
@click.option("--row", type=click.IntRange(min=1), default=1, show_default=True, help="Which row, counted from 1.")
@click.option("--split", type=click.Choice(["train", "valid", "test"]), default="train", show_default=True)
@output_options
def inspect(recipe: str, row: int, split: str, output: Output) -> None:
    """Show which tokens of a row of RECIPE's data are trained on, in colour."""
    from mlxtune.data.inspect import inspect_row
    from mlxtune.data.normalize import read_examples
    from mlxtune.errors import UsageError
    from mlxtune.recipe.load import load_recipe

    settings = load_recipe(recipe).recipe
    path: Path | None = getattr(settings.data, split)
    if path is None:
        raise UsageError(f"the recipe has no data.{split}", where=recipe, remedy="choose another --split")
    examples = read_examples(path, settings.data.format)
    if row > len(examples):
        raise UsageError(f"there is no row {row}", where=path, remedy=f"--row goes from 1 to {len(examples)}")
    inspection = inspect_row(
        examples[row - 1],
        open_recipe_tokenizer(settings, output),
        train_on=settings.data.train_on,
        max_seq_length=settings.data.max_seq_length,
        overflow=settings.data.overflow,
    )
    data = {
        "where": inspection.where,
        "split": split,
        "row": row,
        "rows": len(examples),
        "tokens": len(inspection.token_ids),
        "target_tokens": inspection.target_tokens,
        "note": inspection.note,
        "token_ids": inspection.token_ids,
        "is_target": inspection.is_target,
        "pieces": inspection.pieces,
    }
    output.show(data, draw(inspection, f"{split} row {row} of {len(examples)}"))


def open_recipe_tokenizer(settings: "Recipe", output: Output) -> Any:
    """The tokenizer of a recipe's model; the model is fetched or converted first if it is not there yet."""
    from mlxtune.models.source import find_model
    from mlxtune.models.tokenizer import open_tokenizer

    quantize = settings.model.quantize
    folder = find_model(
        settings.model.source,
        quantize=None if quantize is None else (quantize.bits, quantize.group_size),
        progress=output.progress,
    ).path
    return open_tokenizer(folder, settings.data.chat_template)


def draw(inspection: "Inspection", title: str) -> "Group":
    """The row's text, what is trained on in green and between « and », which also says it where there is no colour."""
    from rich.console import Group
    from rich.text import Text

    text = Text()
    inside = False
    for segment in inspection.segments:
        if segment.is_target != inside:
            text.append("»" if inside else "«", style="green")
            inside = segment.is_target
        style = "bold green" if inside else "dim"
        text.append(printable(segment.text, keep="\n\t"), style=f"{style} reverse" if segment.is_special else style)
    if inside:
        text.append("»", style="green")
    count = len(inspection.token_ids)
    share = f"{inspection.target_tokens} of {count} tokens are trained on ({inspection.target_tokens / count:.0%})"
    lines = [
        Text(f"{title}, {inspection.where}", style="bold"),
        text,
        Text(f"{share}: those between « and », in green"),
    ]
    if inspection.note:
        lines.append(Text(inspection.note, style="yellow"))
    return Group(*lines)
