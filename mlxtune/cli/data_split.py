"""``mlxtune data split``: one file into train, valid and test."""

from pathlib import Path

import click

from mlxtune.cli.offline import obey_offline
from mlxtune.cli.output import Output, output_options
from mlxtune.printable import printable
from mlxtune.synced import warning_of_synced

SHOWN = 20
"""Of the lines that were moved, those that a person is told of."""


@click.command("split")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--test", type=float, default=0.1, show_default=True, help="Share of the rows for test; 0 for none.")
@click.option("--valid", type=float, default=0.1, show_default=True, help="Share of the rows for valid; 0 for none.")
@click.option("--group-by", metavar="COLUMN", help="Keep rows together that have the same value here.")
@click.option("--stratify", metavar="COLUMN", help="Give each value of this column the same shares.")
@click.option(
    "--similarity",
    type=float,
    default=0.7,
    show_default=True,
    help="Keep rows together that share so much of their word trigrams; 1: only those that ask the same.",
)
@click.option("--recipe", metavar="RECIPE", help="Read FILE's rows as this recipe does: its data.format and columns.")
@click.option("--out", type=click.Path(path_type=Path), help="The folder to write to; named after FILE if not given.")
@click.option("--force", is_flag=True, help="Overwrite train.jsonl, valid.jsonl and test.jsonl in that folder.")
@output_options
def command(
    file: Path,
    test: float,
    valid: float,
    group_by: str | None,
    stratify: str | None,
    similarity: float,
    recipe: str | None,
    out: Path | None,
    force: bool,
    output: Output,
) -> None:
    """Split FILE into train, valid and test; equal rows, near-duplicates and groups stay together.

    A row's place depends on its content (or its group's name), so rows added at the end move no old ones, unless a new
    row links two old ones.
    """
    from mlxtune.data.split import split_file

    shape = None
    if recipe is not None:
        from mlxtune.iteration.opening import shape_of
        from mlxtune.recipe.load import load_recipe

        read_as = load_recipe(recipe).recipe
        obey_offline(read_as)
        shape = shape_of(read_as.data)
    report = split_file(
        file,
        out,
        test=test,
        valid=valid,
        group_by=group_by,
        stratify=stratify,
        similarity=similarity,
        shape=shape,
        force=force,
        progress=output.progress,
    )
    data = {
        "folder": report.folder,
        "rows": report.rows,
        "duplicates": report.duplicates,
        "alike": report.alike,
        "largest": report.largest,
        "moved_lines": report.moved,
        "form_chosen_because": report.why,
    }
    text = f"{report.folder}: {', '.join(f'{count} {split}' for split, count in report.rows.items())}; "
    text += f"{report.duplicates} {'row repeats' if report.duplicates == 1 else 'rows repeat'} another"
    if report.alike:
        text += f", {report.alike} more {'asks' if report.alike == 1 else 'ask'} nearly the same as another"
    output.show(data, f"{text}\nread as {printable(report.why)}")
    if warning := warning_of_synced(report.folder):
        output.note(warning)
    if report.moved:
        lines = ", ".join(map(str, report.moved[:SHOWN]))
        if len(report.moved) > SHOWN:
            lines += f" and {len(report.moved) - SHOWN:,} more"
        output.note(f"moved so that no split is empty: line {lines}; it may move back when the file grows")
    total = sum(report.rows.values())
    if report.largest * 10 > total and report.largest > 1:
        output.note(f"{report.largest} of {total} rows hang together, so the shares are met roughly")
