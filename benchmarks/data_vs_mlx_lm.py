"""Data on their way in by mlxtune beside mlx_lm: rows a second for read, render and tokenize, and memory against rows.

Each program loads the same chat rows, the last answer learned, in a process of its own; who goes first alternates with
the turns. Rows a second are of all that comes after imports and tokenizer; wall time and peak memory (resident) are of
the whole process. mlxtune loads every file twice: first with an empty cache, which is what is compared, then again, as
every later run on it does. Both have the same rows and targets, which is checked: mlx_lm learns a line end and a pad
token more of a row at most.

The rows are the conversations of ``oasst_chat/train.jsonl`` in the folder ``--data``, over and over, or without it made
up; each begins with its number, so that no two are alike.
"""

import itertools
import json
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from cases import from_oasst
from measure import child_environment, device_named, median, report, run_program, show_table, work_folder

CHILDREN = Path(__file__).resolve().parent / "children"
PROGRAMS = {"mlxtune": "load_rows", "mlx_lm": "load_rows_with_mlx_lm"}
AGAIN = "mlxtune, again"
NAMES = (*PROGRAMS, AGAIN)
FIGURES = ("rows_per_s", "wall_s", "peak_bytes")
HEADERS = ("rows", "program", "rows/s", "wall s", "peak MB")
ROWS = (25_000, 50_000, 100_000, 200_000)
MORE_TARGETS = 2
"""A row, that mlx_lm may learn."""
WORDS = """the of and to in is that it was for on are with as they be at this have from or had by word but what some we
can out other were all there when up use your how said each she which do their time if will way about many then"""


@dataclass(frozen=True)
class Settings:
    """What is measured, and how often."""

    model: str
    data: Path | None
    rows: tuple[int, ...]
    turns: int
    device: str


@click.command()
@click.option("--model", default="smollm2-135m-instruct", show_default=True, help="As in a recipe's model.source.")
@click.option("--data", type=click.Path(path_type=Path, exists=True), help="A folder with oasst_chat/train.jsonl.")
@click.option("--rows", type=click.IntRange(1), multiple=True, default=ROWS, show_default=True, help="How many rows.")
@click.option("--turns", type=click.IntRange(1), default=1, show_default=True, help="How often each program loads.")
@click.option("--device", type=click.Choice(["cpu", "auto"]), default="auto", show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="A new folder that keeps rows and logs.")
@click.option("--out", type=click.Path(path_type=Path), help="The report to write, as JSON.")
def command(folder: Path | None, out: Path | None, device: str, **options: Any) -> None:
    """Load the same rows with mlxtune and with mlx_lm, in turns, and compare speed and memory."""
    settings = Settings(device=device_named(device), **options)
    results = []
    with work_folder(folder) as work:
        model = work / "model"
        convert = [sys.executable, "-m", "mlxtune", "convert", settings.model, model, "--no-measure", "--quiet"]
        run_program(convert, environment=child_environment(settings.device), log=work / "convert.log")
        for count in settings.rows:
            path = write_rows(work / f"{count}" / "train.jsonl", count, settings.data)
            turns = [take_turn(path, model, settings, number) for number in range(settings.turns)]
            results.append(summary(count, turns))
    show_table(HEADERS, [row for result in results for row in table_rows(result)], text_columns=2)
    for name in NAMES if len(results) > 1 else ():
        click.echo(f"{name}: {bytes_a_row(results, name):,.0f} bytes of memory for each further row")
    report(out, "data_vs_mlx_lm", asdict(settings), results)


def write_rows(path: Path, count: int, data: Path | None) -> Path:
    """Write so many chat rows, no two alike; returns ``path``."""
    path.parent.mkdir(parents=True)
    conversations = itertools.cycle(made_up() if data is None else read_conversations(data))
    with path.open("w", encoding="utf-8") as file:
        for number, messages in enumerate(itertools.islice(conversations, count)):
            first, *rest = messages
            row = {"messages": [{**first, "content": f"{number}. {first['content']}"}, *rest]}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


def read_conversations(data: Path) -> list[list[dict[str, str]]]:
    """Those of Open Assistant."""
    lines = (data / "oasst_chat" / "train.jsonl").read_text(encoding="utf-8").split("\n")
    return [from_oasst(json.loads(line))["messages"] for line in lines if line.strip()]


def made_up(count: int = 500) -> Iterator[list[dict[str, str]]]:
    """Conversations of two or four turns in common words, most of them short."""
    draw = random.Random(0)  # noqa: S311 - words, not secrets
    for _ in range(count):
        turns = ["user", "assistant"] * draw.randint(1, 2)
        lengths = [int(draw.lognormvariate(2.5, 0.8)) + 1 for _ in turns]
        yield [
            {"role": role, "content": " ".join(draw.choices(WORDS.split(), k=length))}
            for role, length in zip(turns, lengths, strict=True)
        ]


def take_turn(path: Path, model: Path, settings: Settings, number: int) -> dict[str, Any]:
    """Load once with each program, and with mlxtune once more; what was measured, by name."""
    cache = path.parent / f"cache-{number}"
    turn: dict[str, Any] = {}
    programs = list(PROGRAMS) if number % 2 == 0 else list(PROGRAMS)[::-1]
    for name in [*programs, AGAIN]:
        click.echo(f"{path.parent.name} rows, turn {number + 1} of {settings.turns}: {name}", err=True)
        turn[name] = run_child(PROGRAMS[name.partition(",")[0]], path, model, settings, cache)
    ours, theirs = turn["mlxtune"], turn["mlx_lm"]
    more = theirs["target_tokens"] - ours["target_tokens"]
    if ours["rows"] != theirs["rows"] or not 0 <= more <= MORE_TARGETS * ours["rows"]:
        raise click.ClickException(f"the two loaded different things: {turn}")
    return turn


def run_child(name: str, path: Path, model: Path, settings: Settings, cache: Path) -> dict[str, float]:
    """Run one of children/ on a file of rows."""
    asked = path.parent / f"{name}.json"
    asked.write_text(json.dumps({"model": str(model), "rows": str(path)}), encoding="utf-8")
    environment = child_environment(settings.device) | {"MLXTUNE_CACHE": str(cache)}
    command = [sys.executable, CHILDREN / f"{name}.py", asked]
    done = run_program(command, environment=environment, log=path.parent / f"{name}.log")
    found = json.loads(done.output.splitlines()[-1])  # mlx_lm says first that there are no validation rows
    speed = found["rows"] / found["seconds"]
    return {**found, "rows_per_s": speed, "wall_s": done.wall_s, "peak_bytes": done.peak_bytes}


def summary(count: int, turns: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One number of rows: the medians, and every turn."""
    return {
        "rows": count,
        **{name: {key: median([turn[name][key] for turn in turns]) for key in FIGURES} for name in NAMES},
        "ratio": {key: median([turn["mlxtune"][key] / turn["mlx_lm"][key] for turn in turns]) for key in FIGURES},
        "turns": turns,
    }


def bytes_a_row(results: Sequence[Mapping[str, Any]], name: str) -> float:
    """What the peak grows by, from the fewest rows to the most."""
    few, many = (choose(results, key=lambda result: result["rows"]) for choose in (min, max))
    return (many[name]["peak_bytes"] - few[name]["peak_bytes"]) / (many["rows"] - few["rows"])


def table_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """The lines of one number of rows."""
    count, ratio = f"{result['rows']:,}", result["ratio"]
    rows = [
        [count, name, f"{own['rows_per_s']:,.0f}", f"{own['wall_s']:.1f}", f"{own['peak_bytes'] / 1e6:.0f}"]
        for name in NAMES
        for own in [result[name]]
    ]
    ratios = [f"{ratio['rows_per_s']:.2f}", f"{ratio['wall_s']:.2f}", f"{ratio['peak_bytes']:.2f}"]
    return [*rows, [count, "mlxtune / mlx_lm", *ratios]]


if __name__ == "__main__":
    command()
