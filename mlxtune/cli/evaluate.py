"""``mlxtune evaluate``: the scores of a run beside its base, or of any model on a recipe's or a file's rows."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from mlxtune.cli.output import Output, output_options


@click.command()
@click.argument("run_or_model", metavar="RUN_OR_MODEL")
@click.option("--recipe", help="For a model: the recipe whose test split and tasks it is scored on.")
@click.option("--data", type=click.Path(path_type=Path, dir_okay=False), help="For a model: the rows to score it on.")
@click.option("--force", is_flag=True, help="Score again, though scores.json is current.")
@output_options
def command(run_or_model: str, recipe: str | None, data: Path | None, force: bool, output: Output) -> None:
    """Score RUN_OR_MODEL on data it was not trained on.

    A run is set beside its base model; what is current in its scores.json is shown, the rest computed.
    """
    from mlxtune.device.choose import open_device
    from mlxtune.evaluation.table import to_rich
    from mlxtune.iteration.score import comparison, score_run
    from mlxtune.runs.folder import is_run_folder, open_run

    if is_run_folder(Path(run_or_model)):
        if recipe is not None or data is not None:
            raise click.UsageError("a run is scored on its own recipe's rows; leave out --recipe and --data")
        run = open_run(Path(run_or_model))
        scores = score_run(run, device=open_device(output.device), force=force, progress=output.progress)
        title = f"before and after, on {scores['rows']} {scores['split']} rows"
        output.show(scores | {"run_dir": run.path}, to_rich(comparison(scores), title=title))
        return
    if (recipe is None) == (data is None):
        raise click.UsageError("say what to score the model on: --recipe RECIPE or --data FILE")
    show_model_scores(run_or_model, recipe, data, output)


def show_model_scores(source: str, recipe: str | None, data: Path | None, output: Output) -> None:
    """Score one model on the rows of a recipe, or of a file with a recipe's defaults."""
    from mlxtune.device.choose import open_device
    from mlxtune.errors import UsageError
    from mlxtune.iteration.score import score_model_on
    from mlxtune.recipe.load import load_recipe
    from mlxtune.recipe.schema import Recipe

    if recipe is not None:
        settings = load_recipe(recipe).recipe
        rows = settings.data.test or settings.data.valid
        if rows is None:
            raise UsageError("the recipe names no held-out data", where=recipe, remedy="add data.test, or use --data")
    else:
        assert data is not None
        rows = data
        settings = Recipe.model_validate(
            {"name": "evaluate", "model": {"source": source}, "data": {"train": str(data)}}
        )
    scores = score_model_on(source, settings, rows, device=open_device(output.device), progress=output.progress)
    metrics = {name: asdict(interval) for name, interval in scores.metrics.items()}
    output.show({"model": source, "data": rows, "metrics": metrics}, _table(scores.metrics, source, rows))


def _table(metrics: Any, source: str, rows: Path) -> Any:
    from rich.table import Table
    from rich.text import Text

    from mlxtune.evaluation.table import format_interval

    table = Table(title=Text(f"{source} on {rows.name}"), caption="In brackets: the 95 % bootstrap interval.")
    table.add_column("metric")
    table.add_column("score", justify="right")
    for name, interval in metrics.items():
        table.add_row(Text(name), format_interval(name, interval))
    return table
