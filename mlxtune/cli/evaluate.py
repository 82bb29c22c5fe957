"""``mlxtune evaluate``: the scores of a run beside its base, or of any model on a recipe's or a file's rows."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlxtune.cli.output import Output, output_options

if TYPE_CHECKING:
    from rich.table import Table


@click.command()
@click.argument("run_or_model", metavar="RUN_OR_MODEL")
@click.option("--recipe", help="For a model: the recipe whose held-out rows and tasks it is scored on.")
@click.option("--data", type=click.Path(path_type=Path), help="For a model: the JSONL file to score it on.")
@click.option("--force", is_flag=True, help="Score again, though what was scored before is current.")
@output_options
def command(run_or_model: str, recipe: str | None, data: Path | None, force: bool, output: Output) -> None:
    """Score RUN_OR_MODEL on data it was not trained on.

    A run is set beside its base model; what is current in its scores.json is shown, the rest computed.
    """
    from mlxtune.iteration.score import evaluate

    scores = evaluate(
        run_or_model, recipe=recipe, data=data, device=output.device, force=force, progress=output.progress
    )
    output.show(scores, table(scores, run_or_model))


def table(scores: Mapping[str, Any], name: str) -> "Table":
    """The before/after table of a run, or a model's scores."""
    from mlxtune.evaluation.statistics import Interval
    from mlxtune.evaluation.table import metrics_to_rich, to_rich
    from mlxtune.iteration.card import comparison

    if "tuned" in scores:
        return to_rich(comparison(scores), title=f"before and after, on {scores['rows']} {scores['split']} rows")
    metrics = {metric: Interval(**interval) for metric, interval in scores["metrics"].items()}
    title = f"{Path(name).name}, on {scores['rows']} rows of {Path(scores['data']).name}"
    return metrics_to_rich(metrics, title=title)
