"""Whether replay keeps a model from forgetting: one task, learned until it costs what the model could do, and again
with general rows among the task's own.

The task is intents of bank customers, one of 77 labels: answers of a few tokens, at a high learning rate and for long,
make a small model answer everything with a label. Everything but replay is the same in both runs, updates included, so
that the second sees fewer of the task's own rows: what replay costs the task is in the table too. A run that is there
already is gone on with.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from measure import child_environment, device_named, report, run_program, show_table

MODEL = "smollm2-135m-instruct"
HEADERS = ("run", "light", "questions right", "change", "p", "bits per byte", "intent right", "minutes")
GENERAL = (("self_instruct", 1), ("oasst_chat", 3))
"""Data sets that general rows are taken from, and of which rows: every so manieth, since those of one tree follow one
another and begin alike.
"""
LONGEST = 800
"""Characters of a general row: longer ones would take the time of many others."""


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="The data sets' folder.")
@click.option("--folder", type=click.Path(path_type=Path), required=True, help="Where recipes and runs are kept.")
@click.option("--share", type=click.FloatRange(0, 0.9, min_open=True), default=0.3, show_default=True)
@click.option("--steps", type=click.IntRange(1), default=120, show_default=True, help="Updates of each run.")
@click.option("--learning-rate", type=float, default=1e-3, show_default=True)
@click.option("--model", default=MODEL, show_default=True)
@click.option("--device", type=click.Choice(["cpu", "auto"]), default="auto", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="The report to write, as JSON.")
def command(
    data: Path,
    folder: Path,
    share: float,
    steps: int,
    learning_rate: float,
    model: str,
    device: str,
    out: Path | None,
) -> None:
    """Tune a model on one task without and with replay, and ask both, and the base, what they know in general."""
    device = device_named(device)
    folder.mkdir(parents=True, exist_ok=True)
    general = write_general(data, folder / "general.jsonl")
    settings = {"model": model, "steps": steps, "learning_rate": learning_rate, "device": device, "share": share}
    results = []
    for name, replay in (
        ("without replay", None),
        (f"with {share:.0%} replay", {"file": str(general), "share": share}),
    ):
        click.echo(name, err=True)
        recipe = make_recipe(data.absolute(), model, steps, learning_rate, replay)
        results.append({"run": name, **turn(recipe, folder / ("replay" if replay else "plain"), device)})
    show_table(HEADERS, table_rows(results))
    report(out, "forgetting", settings, results)


def write_general(data: Path, path: Path) -> Path:
    """General rows of several public sets as one file of chats, each of at most `LONGEST` characters."""
    lines = []
    for name, every in GENERAL:
        rows = [json.loads(line) for line in (data / name / "train.jsonl").read_text(encoding="utf-8").splitlines()]
        chats = [as_chat(row) for row in rows[::every]]
        lines += [{"messages": chat} for chat in chats if sum(len(turn["content"]) for turn in chat) <= LONGEST]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def as_chat(row: Mapping[str, Any]) -> list[dict[str, str]]:
    """A row of one of the sets as turns."""
    if "messages" in row:
        roles = {"prompter": "user", "assistant": "assistant"}
        return [{"role": roles[turn["role"]], "content": turn["text"]} for turn in row["messages"]]
    asked = f"{row['instruction']}\n\n{row['input']}" if row.get("input") else row["instruction"]
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": row["output"]}]


def make_recipe(
    data: Path, model: str, steps: int, learning_rate: float, replay: Mapping[str, Any] | None
) -> dict[str, Any]:
    """One run's recipe."""
    rows = data / "banking77"
    return {
        "name": "forgetting",
        "model": {"source": model},
        "method": {"rank": 16, "alpha": 32},
        "data": {
            "train": str(rows / "train.jsonl"),
            "test": [{"path": str(rows / "test.jsonl"), "weight": 0.02}],
            "columns": {"label": "category"},
            **({} if replay is None else {"replay": dict(replay)}),
        },
        "training": {"max_steps": steps, "batch_size": 8, "learning_rate": learning_rate},
        "evaluation": {"tasks": [{"name": "intent", "scorer": "exact_match", "max_tokens": 16}]},
        "checkpoint": {"every_steps": 1000},
    }


def turn(recipe: Mapping[str, Any], folder: Path, device: str) -> dict[str, Any]:
    """Train and score, or go on with what is there."""
    folder.mkdir(parents=True, exist_ok=True)
    path, run = folder / "recipe.yaml", folder / "run"
    path.write_text(json.dumps(recipe, indent=1), encoding="utf-8")  # JSON is YAML too
    where = ["--resume", run] if (run / "run.json").is_file() else ["--run-dir", run]
    command = [sys.executable, "-m", "mlxtune", "--json", "--device", device, "train", path, *where]
    done = run_program(command, environment=child_environment(device), log=folder / "train.log")
    scores = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    return {"wall_s": done.wall_s, **{name: scores[name] for name in ("base", "tuned", "forgetting")}}


def table_rows(results: list[dict[str, Any]]) -> list[list[str]]:
    """The base, and each run beside it."""
    first = results[0]["forgetting"]
    base = results[0]["base"]["intent.exact_match"]["mean"]
    count, bits = first["questions"]["count"], first["text"]["base"]["mean"]
    rows = [["base", "", f"{first['questions']['base']['mean'] * count:.0f} of {count}", "", "", f"{bits:.3f}"]]
    rows[0] += [f"{base:.1%}", ""]
    for result in results:
        told = result["forgetting"]
        asked, text = told["questions"], told["text"]
        change = asked["difference"]
        rows.append(
            [
                result["run"],
                told["light"],
                f"{asked['tuned']['mean'] * count:.0f} of {count}",
                f"{100 * change['mean']:+.0f} [{100 * change['low']:+.0f}, {100 * change['high']:+.0f}] points",
                f"{change['p_value']:.2g}",
                f"{text['tuned']['mean']:.3f} ({text['difference']['mean'] / bits:+.1%})",
                f"{result['tuned']['intent.exact_match']['mean']:.1%}",
                f"{result['wall_s'] / 60:.1f}",
            ]
        )
    return rows


if __name__ == "__main__":
    command()
