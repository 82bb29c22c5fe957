"""What it costs to be able to go on: the time a checkpoint takes, its share of a run, and the time to resume from it.

For each rank a run trains on text rows of one length, in this process, and saves after every second step. The time
between two steps, less the next step's own, is taken once with a checkpoint in it and once without; the difference of
the two medians is what the checkpoint takes, from the arrays to the flushed files. Its share is what it adds to a run
that saves as often as a recipe does that says nothing of it.

Each run is stopped two steps before its end and resumed: "start s" and "resume s" are the seconds from the call to the
first step, for a new run and for a resumed one, which opens the same model and data, compares hashes and reads the
checkpoint. Imports are in neither: a run before the first has made them.

The model is a llama network with random weights, or any that is named; the disk is that of ``--folder``.
"""

import itertools
import json
import time
from pathlib import Path
from typing import Any

import click
from measure import device_named, median, report, show_table, work_folder, write_json_lines
from synthetic import WIDTH, Shape, text_rows, write_model

LAYERS, VOCABULARY = 8, 4096
AFTER = 2
"""Steps left for the resumed run."""

HEADERS = ("rank", "parameters", "checkpoint MB", "write s", "step s", "share of a run", "start s", "resume s")


class Clock:
    """When each step of a run was over, and what it says of itself."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.steps: list[tuple[float, float]] = []

    def measured(self, line: dict[str, Any]) -> None:
        if "loss" in line:
            self.steps.append((time.perf_counter(), line["seconds"]))

    @property
    def until_first_step_s(self) -> float:
        """From the making of this clock to the beginning of the first step."""
        over, seconds = self.steps[0]
        return over - seconds - self.started

    def gaps(self) -> list[float]:
        """The seconds between each step and the next."""
        return [after - seconds - before for (before, _), (after, seconds) in itertools.pairwise(self.steps)]


@click.command()
@click.option("--model", help="As in a recipe's model.source; without it a network with random weights.")
@click.option(
    "--width", type=int, default=2 * WIDTH, show_default=True, help=f"Of that network; a multiple of {WIDTH}."
)
@click.option("--rank", "ranks", type=click.IntRange(1), multiple=True, default=(4, 16, 64, 256), show_default=True)
@click.option("--saves", type=click.IntRange(2), default=8, show_default=True, help="Checkpoints a run.")
@click.option("--rows", type=click.IntRange(1), default=4, show_default=True, help="An update.")
@click.option("--length", type=click.IntRange(3), default=128, show_default=True, help="Characters a row.")
@click.option("--device", type=click.Choice(["cpu", "auto"]), default="auto", show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="A new folder that keeps models and runs.")
@click.option("--out", type=click.Path(path_type=Path), help="The report to write, as JSON.")
def command(
    model: str | None,
    width: int,
    ranks: tuple[int, ...],
    device: str,
    folder: Path | None,
    out: Path | None,
    **work: int,
) -> None:
    """Measure what checkpoints cost a run, and how long it takes to resume, at several adapter sizes."""
    import mlx.core as mx

    if width <= 0 or width % WIDTH:
        raise click.BadParameter(f"{width} is no multiple of {WIDTH}", param_hint="--width")
    device = device_named(device)
    with work_folder(folder) as place:
        if model is None:
            dtype = mx.float32 if device == "cpu" else mx.bfloat16
            source = str(write_model(place / "model", Shape(width, LAYERS, VOCABULARY), dtype))
        else:
            source = model
        results = []
        for number, rank in enumerate([min(ranks), *ranks]):
            click.echo(f"rank {rank}" if number else "warm-up", err=True)
            found = measure_rank(source, rank, device, place / f"run_{number}", **work)
            results += [found] if number else []
    show_table(HEADERS, [table_row(result) for result in results])
    settings = {"model": model, "width": None if model else width, "device": device, **work}
    report(out, "resume_cost", settings, results)


def measure_rank(
    model: str, rank: int, device: str, folder: Path, *, saves: int, rows: int, length: int
) -> dict[str, Any]:
    """Train, stop, resume; what the checkpoints took."""
    from mlxtune.iteration.run import resume_run, run_recipe
    from mlxtune.iteration.watch import Watch
    from mlxtune.recipe.schema import CheckpointSettings

    folder.mkdir()
    steps = 2 * saves + 1
    write_json_lines(folder / "train.jsonl", list(text_rows((steps + AFTER) * rows, length)))
    recipe = {
        "name": "resume-cost",
        "model": {"source": model},
        "method": {"rank": rank, "alpha": rank},
        "data": {"train": "train.jsonl", "max_seq_length": length + 1},  # some tokenizers put a token before
        "training": {"epochs": 1, "batch_size": rows},
        "checkpoint": {"every_steps": 2},
    }
    path = folder / "recipe.yaml"  # JSON is YAML too
    path.write_text(json.dumps(recipe, indent=1), encoding="utf-8")
    first = Clock()
    watch = Watch(measured=first.measured, should_stop=lambda: len(first.steps) == steps)
    run_recipe(path, device=device, run_dir=folder / "run", score=False, watch=watch)
    newest = max((folder / "run" / "checkpoints").glob("step_*"))
    checkpoint_bytes = sum(file.stat().st_size for file in newest.iterdir())
    again = Clock()
    result = resume_run(folder / "run", device=device, score=False, watch=Watch(measured=again.measured))
    gaps = first.gaps()  # the first is after step 1, which saves nothing
    write_s = max(0.0, median(gaps[1::2]) - median(gaps[0::2]))
    step_s = median([seconds for _, seconds in first.steps[1:]])
    every = CheckpointSettings().every_steps
    return {
        "rank": rank,
        "trainable_parameters": result.trainable_parameters,
        "checkpoint_bytes": checkpoint_bytes,
        "write_s": write_s,
        "step_s": step_s,
        "every_steps": every,
        "share": write_s / (write_s + every * step_s),
        "start_s": first.until_first_step_s,
        "resume_s": again.until_first_step_s,
        "gaps_s": gaps,
    }


def table_row(result: dict[str, Any]) -> list[str]:
    """One rank as text."""
    size = [f"{result['rank']}", f"{result['trainable_parameters']:,}", f"{result['checkpoint_bytes'] / 1e6:.1f}"]
    cost = [f"{result['write_s']:.4f}", f"{result['step_s']:.4f}", f"{result['share']:.2%}"]
    return [*size, *cost, f"{result['start_s']:.2f}", f"{result['resume_s']:.2f}"]


if __name__ == "__main__":
    command()
