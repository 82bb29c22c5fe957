"""What an update costs, in time and memory, as one dimension of the work grows: length, rows, rank, layers, vocabulary.

Each point is a short run of `run_recipe` in this process, on a llama network with random weights: text rows of one
length, every token learned, LoRA on every linear layer. One dimension grows, the others stay at the base. The step's
time is the median of the run's steps without the first; peak memory is MLX's own figure, weights and all.

The last column is the useful share: the arithmetic that the update needs, over its time, as a part of the rate at which
this machine multiplied large matrices just before. What is missing to 100 % went into other work (norms, softmax,
copies, Python), into products too small to be quick, or into other programs on the machine. Needed arithmetic, for B
rows of L tokens, so N = B (L - 1) positions that each predict a token, two operations a multiplication:

- a frozen linear layer: 2 D_in D_out a position forward, and as much for the gradient of its input; no gradient of its
  weight is needed, and q, k and v of the lowest block need none of their input either, since no adapter lies below;
- an adapter of rank R on it: 2 R (D_in + D_out) a position, three times: forward, its inputs' and its own gradients;
- attention: every position with itself and those before it, L / 2 on average, for scores and for the mix: 2 D L a
  position and block, three times;
- the head: 2 D V a position, twice.

Norms, activations, softmax and the optimizer are not counted, and nothing twice: recomputing shows as a lower share.
"""

import gc
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
from figure import Panel, write_figure
from measure import device_named, median, report, show_table, work_folder, write_json_lines
from synthetic import WIDTH, Shape, text_rows, write_model

AXES: dict[str, tuple[int, ...]] = {
    "length": (32, 64, 128, 256, 512, 1024),
    "rows": (1, 2, 4, 8, 16, 32),
    "rank": (1, 4, 16, 64, 256),
    "layers": (1, 2, 4, 8, 16),
    "vocabulary": (1024, 4096, 16384, 65536),
}
HEADERS = ("grows", "length", "rows", "rank", "layers", "vocabulary", "step s", "tokens/s", "peak MB", "GFLOP", "share")


@dataclass(frozen=True)
class Point:
    """The work of one update."""

    width: int
    length: int = 128
    rows: int = 4
    rank: int = 16
    layers: int = 4
    vocabulary: int = 4096

    @property
    def shape(self) -> Shape:
        return Shape(self.width, self.layers, self.vocabulary)


@click.command()
@click.option("--axis", "axes", type=click.Choice(list(AXES)), multiple=True, help="What grows; all, if none is named.")
@click.option("--width", type=int, default=2 * WIDTH, show_default=True, help=f"A multiple of {WIDTH}.")
@click.option("--steps", type=click.IntRange(2), default=6, show_default=True, help="Updates at each point.")
@click.option("--device", type=click.Choice(["cpu", "auto"]), default="auto", show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="A new folder that keeps models and runs.")
@click.option("--figure", type=click.Path(path_type=Path), help="The figure to draw, as SVG.")
@click.option("--out", type=click.Path(path_type=Path), help="The report to write, as JSON.")
def command(
    axes: tuple[str, ...],
    width: int,
    steps: int,
    device: str,
    folder: Path | None,
    figure: Path | None,
    out: Path | None,
) -> None:
    """Measure an update's time, memory and useful share of the matmul rate as each dimension of the work grows."""
    if width <= 0 or width % WIDTH:
        raise click.BadParameter(f"{width} is no multiple of {WIDTH}", param_hint="--width")
    device = device_named(device)
    results = []
    with work_folder(folder) as work:
        measure_point(Point(width), 2, device, work, "warm-up")
        for axis in axes or AXES:
            for value in AXES[axis]:
                point = replace(Point(width), **{axis: value})
                click.echo(f"{axis} {value}", err=True)
                found = measure_point(point, steps, device, work, f"{axis}_{value}")
                results.append({"axis": axis, "value": value, **asdict(point), **found})
    show_table(HEADERS, [table_row(result) for result in results])
    if figure is not None:
        write_figure(figure, panels(results))
        click.echo(f"wrote {figure}", err=True)
    report(out, "scaling", {"width": width, "steps": steps, "device": device}, results)


def measure_point(point: Point, steps: int, device: str, folder: Path, name: str) -> dict[str, float]:
    """Train ``steps`` updates; what one of them takes."""
    import mlx.core as mx

    from mlxtune.device.rates import matmul_rate
    from mlxtune.iteration.run import run_recipe

    dtype = mx.float32 if device == "cpu" else mx.bfloat16
    model = folder / f"model_{point.layers}_{point.vocabulary}"
    if not model.is_dir():
        write_model(model, point.shape, dtype)
    write_json_lines(folder / f"{name}.jsonl", list(text_rows(steps * point.rows, point.length)))
    recipe = {
        "name": "scaling",
        "model": {"source": str(model)},
        "method": {"rank": point.rank, "alpha": point.rank},
        "data": {"train": str(folder / f"{name}.jsonl"), "max_seq_length": point.length},
        "training": {"epochs": 1, "batch_size": point.rows},
        "checkpoint": {"every_steps": steps},
    }
    path = folder / f"{name}.yaml"  # JSON is YAML too
    path.write_text(json.dumps(recipe, indent=1), encoding="utf-8")
    gc.collect()
    mx.clear_cache()  # of the point before, whose memory is not this one's
    rate = matmul_rate(mx.Device(mx.cpu if device == "cpu" else mx.gpu), dtype, size=1024)
    run_recipe(path, device=device, run_dir=folder / f"run_{name}", score=False)
    lines = [json.loads(line) for line in (folder / f"run_{name}" / "metrics.jsonl").read_text().splitlines()]
    step_s = median([line["seconds"] for line in lines[1:]])
    return {
        "step_s": step_s,
        "tokens_per_s": point.rows * point.length / step_s,
        "peak_bytes": max(line["peak_memory_bytes"] for line in lines),
        "flops": needed_flops(point),
        "matmul_gflops": rate,
        "useful_share": needed_flops(point) / step_s / (rate * 1e9),
    }


def needed_flops(point: Point) -> float:
    """The arithmetic that one update needs, as the top of this file says."""
    positions = point.rows * (point.length - 1)
    dims = point.shape.linear_dims()
    frozen = sum(2 * d_in * d_out for d_in, d_out in dims.values())
    lowest = sum(2 * d_in * d_out for name, (d_in, d_out) in dims.items() if name in ("q_proj", "k_proj", "v_proj"))
    adapters = sum(2 * point.rank * (d_in + d_out) for d_in, d_out in dims.values())
    attention = 2 * point.width * point.length
    head = 2 * point.width * point.vocabulary
    return positions * (point.layers * (2 * frozen + 3 * adapters + 3 * attention) - lowest + 2 * head)


def table_row(result: Mapping[str, Any]) -> list[str]:
    """One point as text."""
    work = [f"{result[name]}" for name in AXES]
    time = [f"{result['step_s']:.4f}", f"{result['tokens_per_s']:.0f}", f"{result['peak_bytes'] / 1e6:.0f}"]
    return [result["axis"], *work, *time, f"{result['flops'] / 1e9:.2f}", f"{result['useful_share']:.0%}"]


def panels(results: Sequence[Mapping[str, Any]]) -> list[list[Panel]]:
    """A row of three panels for each axis: time, memory, share."""
    grid = []
    for axis in dict.fromkeys(result["axis"] for result in results):
        points = [result for result in results if result["axis"] == axis]
        x = [point["value"] for point in points]
        grid.append(
            [
                Panel(axis, "step, s", x, [point["step_s"] for point in points]),
                Panel(axis, "peak memory, MB", x, [point["peak_bytes"] / 1e6 for point in points]),
                Panel(axis, "useful share, %", x, [100 * point["useful_share"] for point in points]),
            ]
        )
    return grid


if __name__ == "__main__":
    command()
