"""``mlxtune evaluate``: the scores of a run beside its base, or of any model on a recipe's or a file's rows."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlxtune.cli.allow_python import allow_python_option
from mlxtune.cli.output import Output, output_options

if TYPE_CHECKING:
    from rich.console import RenderableType


@click.command()
@click.argument("run_or_model", metavar="RUN_OR_MODEL")
@click.option("--recipe", help="For a model: the recipe whose held-out rows and tasks it is scored on.")
@click.option("--data", type=click.Path(path_type=Path), help="For a model: the JSONL file to score it on.")
@click.option(
    "--against",
    multiple=True,
    metavar="MODEL",
    help="Another model to set beside it, untuned, on the same rows; give it again for more.",
)
@click.option(
    "--shots",
    multiple=True,
    type=click.IntRange(min=0),
    metavar="N",
    help="Show untuned models, the run's base too, N training rows first; again for more rows of the table.",
)
@click.option(
    "--lm-eval",
    "tasks",
    multiple=True,
    metavar="TASK",
    help="In place of its own rows: a task of lm-evaluation-harness, or a group of them; again for more.",
)
@click.option(
    "--lm-eval-limit", "limit", type=click.IntRange(min=1), metavar="N", help="With --lm-eval: the first N rows alone."
)
@click.option(
    "--include-path",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="With --lm-eval: task files of yours. They are programs and are run as such: use those you trust.",
)
@click.option("--apply-chat-template", is_flag=True, help="With --lm-eval: ask in the model's chat template.")
@click.option("--force", is_flag=True, help="Score again, though what was scored before is current.")
@output_options
@allow_python_option
def command(
    run_or_model: str,
    recipe: str | None,
    data: Path | None,
    against: tuple[str, ...],
    shots: tuple[int, ...],
    tasks: tuple[str, ...],
    limit: int | None,
    include_path: Path | None,
    apply_chat_template: bool,
    force: bool,
    output: Output,
) -> None:
    """Score RUN_OR_MODEL on data it was not trained on.

    A run is set beside its base model; what is current in its scores.json is shown, the rest computed. Models named
    with --against stay in the table until the run's own scores are made anew.

    With --lm-eval both models of a run, or the model, are asked the harness's tasks instead; --shots N then is how many
    examples a task shows before each question.
    """
    if tasks:
        if recipe is not None or data is not None or against or force or len(shots) > 1:
            raise click.UsageError(
                "--lm-eval asks a task's own rows, each time anew: leave out --recipe, --data, --against, --force and "
                "all --shots but one"
            )
        show_lm_eval(
            run_or_model,
            tasks,
            output,
            limit=limit,
            shots=shots[0] if shots else None,
            include=include_path,
            chat=apply_chat_template,
        )
        return
    if limit is not None or include_path is not None or apply_chat_template:
        raise click.UsageError("--lm-eval-limit, --include-path and --apply-chat-template belong to --lm-eval TASK")
    from mlxtune.iteration.score import evaluate

    scores = evaluate(
        run_or_model,
        recipe=recipe,
        data=data,
        against=against,
        shots=shots,
        device=output.device,
        force=force,
        note=output.note,
        progress=output.progress,
    )
    output.show(scores, table(scores, run_or_model))


def show_lm_eval(run_or_model: str, tasks: tuple[str, ...], output: Output, **how: Any) -> None:
    """Ask lm-evaluation-harness's tasks, and show what it says."""
    from mlxtune.cli.lm_eval_view import view
    from mlxtune.evaluation.lm_eval.harness import Asked
    from mlxtune.iteration.lm_eval import evaluate_with_lm_eval

    asked = Asked(tasks, **how)
    found = evaluate_with_lm_eval(run_or_model, asked, device=output.device, progress=output.progress)
    output.show(found, view(found, Path(run_or_model).name))


def table(scores: Mapping[str, Any], name: str) -> "RenderableType":
    """The before/after table of a run, or a model's scores; other models beside them, if any, and what each costs."""
    from rich.console import Group
    from rich.text import Text

    from mlxtune.evaluation.statistics import Interval
    from mlxtune.evaluation.table import (
        beside_others,
        comparison,
        costs,
        costs_to_rich,
        metrics_to_rich,
        others_to_rich,
        to_rich,
    )
    from mlxtune.iteration.started_from import started_from
    from mlxtune.printable import printable
    from mlxtune.runs.folder import RunFolder

    started = None
    if "tuned" in scores:
        run = RunFolder(Path(name))
        started = started_from(run, run.read_manifest())
        first = to_rich(comparison(scores), title=f"before and after, on {scores['rows']} {scores['split']} rows")
    else:
        metrics = {metric: Interval(**interval) for metric, interval in scores["metrics"].items()}
        title = f"{Path(name).name}, on {scores['rows']} rows of {Path(scores['data']).name}"
        first = metrics_to_rich(metrics, title=title)
    others = [others_to_rich(beside_others(scores), title="beside other models")] if scores["against"] else []
    notes = [Text(printable(f"{one['label']}: {note}")) for one in scores["against"] for note in one["notes"]]
    forgetting = [Text(forgetting_line(scores["forgetting"]))] if "forgetting" in scores else []
    said = [] if started is None else [Text(printable(started))]
    return Group(first, *said, *others, *notes, costs_to_rich(costs(scores)), *forgetting)


def forgetting_line(told: Mapping[str, Any]) -> str:
    """Whether the tuned model still can what the base could; and where not, what helps."""
    line = f"forgetting: {told['light']}: {told['sentence']}"
    return line if told["remedy"] is None else f"{line}; what helps: {told['remedy']}"
