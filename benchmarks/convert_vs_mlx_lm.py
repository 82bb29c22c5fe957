"""Converting by mlxtune beside converting by mlx_lm.convert: the same folder to the same form, in turns.

Each conversion is a process of its own; who goes first alternates with the turns. What is reported, of whole processes
from start to end, imports included: wall time, and peak resident memory. Both write the same tensors, which is checked
by their bytes; mlxtune does not measure what is lost, which mlx_lm cannot. Two things differ and stay: mlxtune flushes
every file to the disk before it gives the folder its name, and mlx_lm opens the tokenizer and writes it anew, where
mlxtune copies its files.

The sources are the model named, as plain floats, and with ``--bytes`` a llama of that size with random weights.
"""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from measure import (
    Finished,
    child_environment,
    device_named,
    median,
    report,
    run_program,
    show_table,
    work_folder,
)

CHILDREN = Path(__file__).resolve().parent / "children"
PROGRAMS = ("mlxtune", "mlx_lm")
FIGURES = ("wall_s", "peak_bytes")
HEADERS = ("source", "to", "program", "wall s", "peak GB")
SOURCE_DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class Form:
    """What a folder becomes: the options of either program."""

    mlxtune: tuple[str, ...]
    mlx_lm: dict[str, Any]


FORMS = {
    "4-bit": Form(("--bits", "4", "--group-size", "64"), {"quantize": True, "q_bits": 4, "q_group_size": 64}),
    "float16": Form(("--dtype", "float16"), {"dtype": "float16"}),
}


@dataclass(frozen=True)
class Settings:
    """What is measured, and how often."""

    model: str
    dtype: tuple[str, ...]
    form: tuple[str, ...]
    bytes: int | None
    turns: int
    device: str


@click.command()
@click.option("--model", default="smollm2-135m-instruct", show_default=True, help="As in a recipe's model.source.")
@click.option("--dtype", type=click.Choice(SOURCE_DTYPES), multiple=True, default=SOURCE_DTYPES, help="Of the source.")
@click.option("--form", type=click.Choice(list(FORMS)), multiple=True, default=list(FORMS), help="What it becomes.")
@click.option("--bytes", type=click.IntRange(1), help="Convert a model of so many bytes, of random weights, too.")
@click.option("--turns", type=click.IntRange(1), default=1, show_default=True, help="How often each program converts.")
@click.option("--device", type=click.Choice(["cpu", "auto"]), default="auto", show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="A new folder that keeps models and logs.")
@click.option("--out", type=click.Path(path_type=Path), help="The report to write, as JSON.")
def command(folder: Path | None, out: Path | None, device: str, **options: Any) -> None:
    """Convert the same folders with mlxtune and with mlx_lm.convert, in turns, and compare time and memory."""
    settings = Settings(device=device_named(device), **options)
    results = []
    with work_folder(folder) as work:
        for name, source in make_sources(settings, work).items():
            for form in settings.form:
                turns = [take_turn(source, form, settings, work, number) for number in range(settings.turns)]
                results.append(summary(name, form, turns))
    show_table(HEADERS, [row for result in results for row in table_rows(result)], text_columns=3)
    report(out, "convert_vs_mlx_lm", asdict(settings), results)


def make_sources(settings: Settings, work: Path) -> dict[str, Path]:
    """The folders to be converted, by what the table calls them."""
    sources = {}
    for dtype in settings.dtype:
        folder = sources[f"{Path(settings.model).name}, {dtype}"] = work / f"model-{dtype}"
        convert_with_mlxtune(settings, Path(settings.model), folder, ("--dtype", dtype))
        if settings.bytes is not None:
            folder = sources[f"{settings.bytes / 1e9:.2g} GB, {dtype}"] = work / f"synthetic-{dtype}"
            asked = {"folder": folder, "bytes": settings.bytes, "dtype": dtype}
            run_child("write_float_model", asked, work, settings.device)
    return sources


def take_turn(source: Path, form: str, settings: Settings, work: Path, number: int) -> dict[str, Any]:
    """Convert once with each program; what was measured, by program."""
    outs = {program: work / f"{source.name}-{form}-{program}" for program in PROGRAMS}
    turn: dict[str, Any] = {}
    for program in PROGRAMS if number % 2 == 0 else PROGRAMS[::-1]:
        click.echo(f"{source.name} to {form}, turn {number + 1} of {settings.turns}: {program}", err=True)
        if program == "mlxtune":
            done = convert_with_mlxtune(settings, source, outs[program], FORMS[form].mlxtune)
        else:
            asked = {"hf_path": str(source), "mlx_path": str(outs[program]), **FORMS[form].mlx_lm}
            done = run_child("convert_with_mlx_lm", {"settings": asked}, work, settings.device)
        turn[program] = {"wall_s": done.wall_s, "peak_bytes": done.peak_bytes, "bytes": tensor_bytes(outs[program])}
    if turn["mlxtune"]["bytes"] != turn["mlx_lm"]["bytes"]:
        raise click.ClickException(f"the two wrote different things: {turn}")
    for out in outs.values():
        shutil.rmtree(out)
    return turn


def tensor_bytes(folder: Path) -> int:
    """The bytes of all tensors in a folder's files, headers left out."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            total += path.stat().st_size - 8 - int.from_bytes(file.read(8), "little")
    return total


def convert_with_mlxtune(settings: Settings, source: Path, out: Path, options: Sequence[str]) -> Finished:
    """One run of ``mlxtune convert``."""
    command = [sys.executable, "-m", "mlxtune", "convert", str(source), out, *options]
    command += ["--no-measure", "--quiet", "--device", "cpu" if settings.device == "cpu" else "auto"]
    return run_program(command, environment=child_environment(settings.device), log=out.with_suffix(".log"))


def run_child(name: str, asked: Mapping[str, Any], folder: Path, device: str) -> Finished:
    """Run one of children/ with ``asked`` as its file of settings."""
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"device": device, **asked}, indent=1, default=str), encoding="utf-8")
    command = [sys.executable, CHILDREN / f"{name}.py", path]
    return run_program(command, environment=child_environment(device), log=folder / f"{name}.log")


def summary(name: str, form: str, turns: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One source in one form: the medians, and every turn."""
    return {
        "source": name,
        "form": form,
        **{program: {key: median([turn[program][key] for turn in turns]) for key in FIGURES} for program in PROGRAMS},
        "ratio": {key: median([turn["mlxtune"][key] / turn["mlx_lm"][key] for turn in turns]) for key in FIGURES},
        "turns": turns,
    }


def table_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """The lines of one source in one form."""
    where = [result["source"], result["form"]]
    rows = [
        [*where, program, f"{result[program]['wall_s']:.2f}", f"{result[program]['peak_bytes'] / 1e9:.2f}"]
        for program in PROGRAMS
    ]
    ratio = result["ratio"]
    return [*rows, [*where, "mlxtune / mlx_lm", f"{ratio['wall_s']:.2f}", f"{ratio['peak_bytes']:.2f}"]]


if __name__ == "__main__":
    command()
