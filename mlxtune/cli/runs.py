"""``mlxtune runs``: the runs in a folder, one of them, what differs between several, and making room."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from mlxtune.cli.output import Output, output_options
from mlxtune.errors import UsageError
from mlxtune.runs.folder import RUNS

RUN = click.Path(path_type=Path)
FOLDER = click.Path(path_type=Path, file_okay=False)
SETTINGS = (
    "method.type",
    "method.rank",
    "training.learning_rate",
    "training.batch_size",
    "training.epochs",
    "training.max_steps",
    "data.max_seq_length",
)
"""Of a run's recipe, told where one run is shown; all of it is in its recipe.yaml."""


@click.group()
def command() -> None:
    """List, show, compare and prune runs."""


@command.command("list")
@click.argument("folder", type=FOLDER, default=RUNS)
@output_options
def list_of_runs(folder: Path, output: Output) -> None:
    """List the runs in FOLDER (runs/), the newest first; and what in it is broken.

    `loss` draws the training loss, from the first step to the last.
    """
    from mlxtune.cli.runs_view import draw_list
    from mlxtune.runs.listing import list_runs

    listing = list_runs(folder)
    data = {
        "folder": listing.folder,
        "runs": [run.to_json() for run in listing.runs],
        "broken": [{"path": one.path, "why": one.why} for one in listing.broken],
    }
    output.show(data, draw_list(listing))


@command.command()
@click.argument("run", type=RUN)
@output_options
def show(run: Path, output: Output) -> None:
    """Show RUN: what it did, how far it came, its scores, what to look at, and what it takes on the disk."""
    from mlxtune.cli.runs_view import draw_run
    from mlxtune.runs.disk import disk_bytes
    from mlxtune.runs.folder import RunFolder
    from mlxtune.runs.listing import read_entry, read_list, read_object

    entry, folder = read_entry(run), RunFolder(run)
    manifest, recipe = folder.read_manifest(), read_object(folder.resolved)
    parts = {"checkpoints": folder.checkpoints, "adapter": folder.adapter, "all": run}
    more: dict[str, Any] = {
        "device": f"{manifest['device'].get('kind')}, {manifest['device'].get('precision')}",
        "settings": {key: str(value) for key in SETTINGS if (value := _at(recipe, key)) is not None},
        "scores": folder.read_scores(),
        "findings": read_list(folder.findings),
        "disk_bytes": {name: disk_bytes(path) for name, path in parts.items()},
    }
    data = {**entry.to_json(), **more, "settings": recipe, "manifest": manifest}
    output.show(data, draw_run(entry, more))


@command.command()
@click.argument("runs", metavar="RUN RUN...", type=RUN, nargs=-1, required=True)
@click.option("--html", type=click.Path(path_type=Path), help="Write the comparison as a page of its own.")
@click.option("--force", is_flag=True, help="Replace the page.")
@output_options
def compare(runs: tuple[Path, ...], html: Path | None, force: bool, output: Output) -> None:
    """Compare runs with the first: what was set otherwise, and what differs in their scores.

    Where two were scored on the same rows, the rows are paired, and each difference has its interval and a verdict.
    """
    from mlxtune.cli.runs_view import draw_comparison
    from mlxtune.iteration.compare import compare_runs

    comparison = compare_runs(runs)
    data = comparison.to_json()
    if html is not None:
        from mlxtune.files import new_file
        from mlxtune.iteration.compare_page import comparison_page

        with new_file(html, force=force) as part:
            part.write_text(comparison_page(comparison), encoding="utf-8")
        output.note(f"wrote {html}")
        data["html"] = html
    output.show(data, draw_comparison(comparison))


@command.command()
@click.argument("folder", type=FOLDER, default=RUNS)
@click.option("--keep", type=click.IntRange(min=0), metavar="N", help="Keep the N runs that were worked in last.")
@click.option(
    "--older-than", type=click.FloatRange(min=0), metavar="DAYS", help="Only runs that nobody worked in for so long."
)
@click.option("--checkpoints", is_flag=True, help="Only the checkpoints of finished runs; the runs themselves stay.")
@click.option("--yes", is_flag=True, help="Take them away. Without it they are only shown.")
@output_options
def prune(
    folder: Path, keep: int | None, older_than: float | None, checkpoints: bool, yes: bool, output: Output
) -> None:
    """Show which runs in FOLDER (runs/) may go; with --yes, take them away.

    A run that a process works in stays, and so does one that another run was started from, and what is broken or a
    link.
    """
    from mlxtune.cli.runs_view import draw_prunable, draw_pruned
    from mlxtune.runs.prune import find_prunable
    from mlxtune.runs.prune import prune as take_away

    try:
        age = None if older_than is None else timedelta(days=older_than)
    except (OverflowError, ValueError) as error:
        raise UsageError(f"{older_than:g} is no number of days", where="--older-than", remedy="give fewer") from error
    prunable = find_prunable(folder, keep=keep, older_than=age, checkpoints=checkpoints)
    gone, stayed = take_away(prunable.candidates, prunable.folder) if yes else ([], [])
    kept = [*prunable.kept, *stayed]
    data = {
        "folder": prunable.folder,
        "done": yes,
        "candidates": [
            {"path": one.path, "what": one.what, "bytes": one.bytes, "why": one.why} for one in prunable.candidates
        ],
        "gone": [one.path for one in gone],
        "kept": [{"path": one.path, "why": one.why} for one in kept],
        "bytes": sum(one.bytes for one in gone) if yes else prunable.bytes,
    }
    output.show(data, draw_pruned(gone, kept) if yes else draw_prunable(prunable))


def _at(recipe: dict[str, Any], key: str) -> Any:
    """The value of a dotted key; None where a recipe of another version has no such key."""
    value: Any = recipe
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
