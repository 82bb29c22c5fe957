"""Whether the plan is right: what `mlxtune plan` foretells for a recipe, beside what `mlxtune train` then measures.

Each setting is planned and then trained for some steps, one after the other, each in a process of its own, so that both
meet the same machine. Compared are the peak in MLX's arrays and the wall time of all steps, as metrics.jsonl has them.
Other programs on the machine show in the seconds, not in the bytes.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from cases import CASES, read_rows
from measure import child_environment, device_named, report, run_program, show_table, work_folder, write_json_lines

ROWS = 400
"""Of each training file."""

SETTINGS: dict[str, tuple[str, Sequence[str]]] = {
    "chat": ("a", ()),
    "chat, top half": ("a", ("method.layers={top: 15}",)),
    "chat, all recomputed": ("a", ("training.grad_checkpoint={every: 1}",)),
    "chat, a third recomputed": ("a", ("training.grad_checkpoint={every: 3}",)),
    "chat, token budget": ("a", ("training.batch_tokens=2048", "training.batch_size=null")),
    "chat, one row, accumulated": ("a", ("training.batch_size=1", "training.gradient_accumulation_steps=4")),
    "chat, rank 64, adafactor": ("a", ("method.rank=64", "training.optimizer=adafactor")),
    "text, everything": ("c", ()),
    "text, top 5, 16 rows": ("c", ("method.layers={top: 5}", "training.batch_size=16")),
    "instruction": ("d", ()),
    "instruction, top 10": ("d", ("method.layers={top: 10}",)),
    "instruction, DoRA": ("d", ("method={type: dora}",)),
    "instruction, whole modules": ("d", ("method.layers={top: 4}", "method.modules_to_save=[norm, embed_tokens]")),
    "instruction, full, top 4": ("d", ("method={type: full, layers: {top: 4}}", "training.learning_rate=2e-5")),
    "instruction, full": ("d", ("method={type: full}", "training.learning_rate=2e-5")),
    "instruction, full, adafactor": (
        "d",
        ("method={type: full}", "training.learning_rate=2e-5", "training.optimizer=adafactor"),
    ),
}
"""By name: the case that the rows are from, and what is changed of the recipe."""

FULL = tuple(name for name in SETTINGS if "full" in name)
"""Tried only where they are named: they want a ``--model`` that is not quantized."""

HEADERS = ("setting", "peak MB foretold", "measured", "ratio", "seconds foretold", "measured", "ratio")


@click.command()
@click.option("--model", default="smollm2-135m-instruct", show_default=True, help="As in a recipe's model.source.")
@click.option("--data", type=click.Path(path_type=Path), help="The folder of the data sets `oasst_chat` and `wikisql`.")
@click.option("--steps", type=click.IntRange(2), default=12, show_default=True)
@click.option("--device", type=click.Choice(["cpu", "auto"]), default="auto", show_default=True)
@click.option(
    "--setting",
    "names",
    type=click.Choice(list(SETTINGS)),
    multiple=True,
    help="Only these; full tuning is tried only if named.",
)
@click.option("--folder", type=click.Path(path_type=Path), help="A new folder that keeps recipes and runs.")
@click.option("--out", type=click.Path(path_type=Path), help="The report to write, as JSON.")
def command(
    model: str,
    data: Path | None,
    steps: int,
    device: str,
    names: tuple[str, ...],
    folder: Path | None,
    out: Path | None,
) -> None:
    """Plan and train the same recipes, and compare memory and time."""
    device = device_named(device)
    results: list[dict[str, Any]] = []
    with work_folder(folder) as place:
        for number, name in enumerate(names or [name for name in SETTINGS if name not in FULL]):
            key, overrides = SETTINGS[name]
            rows = CASES[key].folder(data)
            if rows is None:
                click.echo(f"{name}: left out, {CASES[key].data} is not in {data}", err=True)
                continue
            click.echo(name, err=True)
            own = place / f"setting_{number}"
            recipe = write_recipe(own, key, rows, model, steps)
            results.append({"setting": name, **compare(own, recipe, overrides, device)})
    show_table(HEADERS, [table_row(result) for result in results])
    report(out, "plan_accuracy", {"model": model, "steps": steps, "device": device}, results)


def write_recipe(folder: Path, key: str, rows: Path, model: str, steps: int) -> Path:
    """A recipe on some rows of a case, in a new folder."""
    folder.mkdir()
    case = CASES[key]
    write_json_lines(folder / "train.jsonl", read_rows(rows / "train.jsonl", case)[:ROWS])
    recipe = {
        "name": "plan-accuracy",
        "model": {"source": model},
        "data": {
            "train": "train.jsonl",
            "train_on": case.train_on,
            "max_seq_length": 512,
            "overflow": "truncate_right",
        },
        "training": {"max_steps": steps, "batch_size": 4},
    }
    path = folder / "recipe.yaml"  # JSON is YAML too
    path.write_text(json.dumps(recipe, indent=1), encoding="utf-8")
    return path


def compare(folder: Path, recipe: Path, overrides: Sequence[str], device: str) -> dict[str, Any]:
    """Plan, then train; both figures of each."""
    program = [sys.executable, "-m", "mlxtune", "--json", "--device", device]
    environment = child_environment(device)
    planned = run_program([*program, "plan", recipe, *overrides], environment=environment, log=folder / "plan.log")
    command = [*program, "train", recipe, *overrides, "--no-score", "--run-dir", folder / "run"]
    trained = run_program(command, environment=environment, log=folder / "train.log")
    plan, run = json.loads(planned.output), json.loads(trained.output)
    return {
        "overrides": list(overrides),
        "plan": plan,
        "plan_wall_s": planned.wall_s,
        "measured": {name: run[name] for name in ("peak_memory_bytes", "seconds", "steps")},
        "peak_ratio": plan["peak_memory_bytes"] / run["peak_memory_bytes"],
        "seconds_ratio": plan["seconds"] / run["seconds"],
    }


def table_row(result: Mapping[str, Any]) -> list[str]:
    """One setting as text."""
    plan, measured = result["plan"], result["measured"]
    bytes_of = [f"{found['peak_memory_bytes'] / 1e6:,.0f}" for found in (plan, measured)]
    seconds_of = [f"{found['seconds']:.1f}" for found in (plan, measured)]
    peak, seconds = f"{result['peak_ratio']:.3f}", f"{result['seconds_ratio']:.2f}"
    return [result["setting"], *bytes_of, peak, *seconds_of, seconds]


if __name__ == "__main__":
    command()
