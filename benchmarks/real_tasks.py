"""Whether tuning helps: the whole path on real data sets that other people made, base and tuned model side by side.

Each task is a recipe over a slice of its training rows; what is scored are test rows that nothing was chosen by. With
``--against`` larger models that were not tuned answer the same rows. A run that is there already is gone on with, so
that the command can be stopped and said again.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from measure import child_environment, device_named, report, run_program, show_table

SMOLLM2 = "smollm2-135m-instruct"


@dataclass(frozen=True)
class RealTask:
    """One data set: how its rows are read, which share of them is used, and what is asked.

    ``shares`` are of train and test; a share is of the rows by their content's hash, the same ones every time. ``data``
    and ``task`` are sections of a recipe.
    """

    folder: str
    task: Mapping[str, Any]
    data: Mapping[str, Any] = field(default_factory=dict)
    shares: tuple[float, float] = (1.0, 1.0)
    epochs: int = 2
    learning_rate: float = 1.0e-3
    batch_size: int = 8
    top: int = 15
    """Of 30 blocks, those that are trained."""

    def recipe(self, name: str, folder: Path, test_share: float | None) -> dict[str, Any]:
        """The recipe on the data in ``folder``; with ``test_share``, on that share of the test rows."""
        rows = folder / self.folder
        train, test = self.shares
        test = test if test_share is None else test_share
        return {
            "name": name,
            "model": {"source": SMOLLM2},
            "method": {"rank": 16, "alpha": 32, "layers": {"top": self.top}},
            "data": {
                "train": [{"path": str(rows / "train.jsonl"), "weight": train}],
                "valid": str(rows / "valid.jsonl"),
                "test": [{"path": str(rows / "test.jsonl"), "weight": test}],
                "max_seq_length": 1024,
                **self.data,
            },
            "training": {
                "epochs": self.epochs,
                "batch_size": self.batch_size,
                "learning_rate": self.learning_rate,
            },
            "evaluation": {"every_steps": 100, "tasks": [self.task], "forgetting": False},
            "checkpoint": {"every_steps": 100},
        }


TASKS = {
    "banking77": RealTask(
        "banking77",
        {"name": "intent", "scorer": "choice"},
        {"columns": {"label": "category"}},
        shares=(0.5, 0.1),
        epochs=1,
    ),
    "unfair_tos": RealTask(
        "unfair_tos", {"name": "clause", "scorer": "choice"}, {"columns": {"text": "sentence", "label": "tag"}}
    ),
    "pubmedqa": RealTask(
        "pubmedqa",
        {"name": "decision", "scorer": "choice"},
        {"columns": {"prompt": ["CONTEXTS", "QUESTION"], "completion": "final_decision"}},
        epochs=1,
    ),
    "sentence_polarity": RealTask(
        "sentence_polarity", {"name": "polarity", "scorer": "choice"}, shares=(0.3, 0.5), epochs=1
    ),
    "wikisql": RealTask("wikisql", {"name": "query", "scorer": "exact_match", "max_tokens": 64}),
    "gsm8k": RealTask(
        "gsm8k",
        {"name": "answer", "scorer": "numeric", "pattern": r"####\s*(.+)", "max_tokens": 256},
        shares=(0.3, 0.25),
        epochs=1,
    ),
}

HEADERS = ("task", "test rows", "metric", "base", "tuned", "p", "verdict", "minutes")


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="The data sets' folder.")
@click.option("--task", "names", type=click.Choice(list(TASKS)), multiple=True, help="Only these.")
@click.option("--folder", type=click.Path(path_type=Path), required=True, help="Where recipes and runs are kept.")
@click.option("--against", multiple=True, help="A model that was not tuned, to set beside.")
@click.option("--shots", type=click.IntRange(0), multiple=True, default=(0,), help="Examples before a question.")
@click.option("--test-share", type=click.FloatRange(0, 1, min_open=True), help="Of the test rows; for a slow rival.")
@click.option("--device", type=click.Choice(["cpu", "auto"]), default="auto", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="The report to write, as JSON.")
def command(
    data: Path,
    names: tuple[str, ...],
    folder: Path,
    against: tuple[str, ...],
    shots: tuple[int, ...],
    test_share: float | None,
    device: str,
    out: Path | None,
) -> None:
    """Tune the default model on real tasks and score it on rows that it never saw."""
    device = device_named(device)
    results = []
    for name in names or TASKS:
        click.echo(name, err=True)
        recipe = TASKS[name].recipe(name, data.absolute(), test_share)
        results.append({"task": name, **turn(recipe, folder / name, against, shots, device)})
    show_table(HEADERS, [row for result in results for row in table_rows(result)])
    settings = {"model": SMOLLM2, "against": against, "shots": shots, "test_share": test_share, "device": device}
    report(out, "real_tasks", settings, results)


def turn(
    recipe: Mapping[str, Any], folder: Path, against: Sequence[str], shots: Sequence[int], device: str
) -> dict[str, Any]:
    """Train and score, or go on with what is there; then score what it is set against."""
    folder.mkdir(parents=True, exist_ok=True)
    file, run = folder / "recipe.yaml", folder / "run"
    file.write_text(json.dumps(recipe, indent=1), encoding="utf-8")  # JSON is YAML too
    program = [sys.executable, "-m", "mlxtune", "--json", "--device", device]
    environment = child_environment(device)
    where = ["--resume", run] if (run / "run.json").is_file() else ["--run-dir", run]
    trained = run_program([*program, "train", file, *where], environment=environment, log=folder / "train.log")
    if against:
        beside = [word for model in against for word in ("--against", model)]
        asked = [word for count in shots for word in ("--shots", str(count))]
        command = [*program, "evaluate", run, *beside, *asked]
        run_program(command, environment=environment, log=folder / "evaluate.log")
    scores = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    return {"run": json.loads(trained.output), "wall_s": trained.wall_s, "scores": scores}


def table_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """The headline metric of the task, and of each model that it was set against."""
    scores = result["scores"]
    metric, rows = scores["headline"], str(scores["rows"])
    minutes = f"{result['run']['seconds'] / 60:.1f}"
    beside = [("", scores["base"], scores["differences"])]
    beside += [(f" ({one['label']})", one["metrics"], one["differences"]) for one in scores.get("against", [])]
    table = []
    for label, metrics, differences in beside:
        difference = differences[metric]
        table.append(
            [
                result["task"] + label,
                rows,
                metric,
                shown(metrics[metric]),
                shown(scores["tuned"][metric]),
                f"{difference['p_value']:.2g}",
                difference["verdict"],
                minutes,
            ]
        )
    return table


def shown(interval: Mapping[str, float]) -> str:
    """A rate with its interval, in percent."""
    return "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * interval[key] for key in ("mean", "low", "high")))


if __name__ == "__main__":
    command()
