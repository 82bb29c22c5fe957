"""Training by mlxtune beside training by mlx_lm.lora: the same work, in turns.

What is the same for both: the model folder (in float32; on a GPU in bfloat16), the rows and how many of them an update
has, the layers and modules that learn, rank and scale, the number of updates, AdamW with its bias correction and
without decay, a constant learning rate, no clipping, the longest row, the BLAS and its threads, and on the CPU no
mx.compile. Neither validates, and each saves once, at its end. Each works in a process of its own; who goes first
alternates with the turns, and each turn has a seed of its own.

Useful tokens count every row in full, a shared prefix in each of its rows, padding never: the rows' own tokens, counted
once for both, times the epochs. What is reported:

- useful tokens/s: over the sum of the steps' seconds, as each program measures its steps. What comes before the first
  step is in the wall time alone (with adapters on the top blocks only, mlxtune reads the lower ones there once), and
  so is mlx_lm's tokenization, which happens between its steps.
- wall s, peak GB: of the whole process from start to end, imports and loading included; resident memory.
- held-out loss: nats a target token, after the same number of updates, both adapters read by one function on the same
  rows and targets.
- the last line of a case: mlxtune's figure over mlx_lm's, the median of the turns' ratios.

What differs, and cannot be made the same from outside: mlx_lm's batches are consecutive rows of the file, in random
order (it means to sort by length, but compares the numbers of keys in a row); mlxtune's are rows of like length. mlx_lm
leaves out an epoch's last partial batch, so the rows here are a multiple of the batch. It learns one pad token a row,
and in chats the white space after the last turn; and with a masked prompt the last answer alone, so mlxtune's
``train_on`` is ``last_completion``. The random numbers that adapters start from are each program's own. Rows keep the
order of their file, in which mlx_lm pads less than on shuffled rows.

A case whose data are not there is left out, and that is said; case d uses the packaged recipe's data. The files of
cases a and b are Open Assistant conversations (``oasst_chat/``), of case c WikiSQL's (``wikisql/``), of case e
Banking77's messages (``banking77/``).
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from cases import CASES, Case, read_rows
from measure import (
    Finished,
    child_environment,
    device_named,
    median,
    report,
    run_program,
    show_table,
    work_folder,
    write_json_lines,
)

CHILDREN = Path(__file__).resolve().parent / "children"
PROGRAMS = ("mlxtune", "mlx_lm")
FIGURES = ("tokens_per_s", "wall_s", "peak_bytes", "heldout_loss")
HEADERS = ("case", "program", "useful tokens/s", "wall s", "peak GB", "held-out loss")


@dataclass(frozen=True)
class Settings:
    """What is the same for both programs, and how often they are measured."""

    model: str
    turns: int
    steps: int | None
    rank: int
    alpha: float
    batch_size: int
    learning_rate: float
    max_seq_length: int
    heldout_rows: int
    device: str


@dataclass(frozen=True)
class Work:
    """One case made ready: files that both programs read, and what is in them."""

    case: Case
    folder: Path
    model: Path
    layers: int
    """How many blocks, from the top, learn."""
    chosen: dict[str, dict[str, int]]
    """Rows, tokens and target tokens of ``train`` and ``heldout``."""

    @property
    def updates(self) -> int:
        return self.case.epochs * self.chosen["train"]["rows"] // self.chosen["train"]["batch_size"]

    @property
    def useful_tokens(self) -> int:
        return self.case.epochs * self.chosen["train"]["tokens"]


@click.command()
@click.option("--case", "names", type=click.Choice(list(CASES)), multiple=True, help="A case; all, if none is named.")
@click.option("--data", type=click.Path(path_type=Path), help="The folder with oasst_chat/, wikisql/, banking77/.")
@click.option("--model", default="smollm2-135m-instruct", show_default=True, help="As in a recipe's model.source.")
@click.option("--turns", type=click.IntRange(1), default=1, show_default=True, help="How often each program trains.")
@click.option("--steps", type=click.IntRange(1), help="Updates a turn, instead of each case's own number.")
@click.option("--rank", type=click.IntRange(1), default=8, show_default=True)
@click.option("--alpha", type=float, default=16.0, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True, help="Rows an update.")
@click.option("--learning-rate", type=float, default=5e-4, show_default=True)
@click.option("--max-seq-length", type=click.IntRange(2), default=512, show_default=True, help="Longer rows stay out.")
@click.option("--heldout-rows", type=click.IntRange(1), default=24, show_default=True, help="Rows of valid to read.")
@click.option("--device", type=click.Choice(["cpu", "auto"]), default="auto", show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="A new folder that keeps models, runs and logs.")
@click.option("--out", type=click.Path(path_type=Path), help="The report to write, as JSON.")
def command(
    names: tuple[str, ...], data: Path | None, folder: Path | None, out: Path | None, device: str, **options: Any
) -> None:
    """Train the same thing with mlxtune and with mlx_lm.lora, in turns, and compare speed, memory and held-out loss."""
    settings = Settings(device=device_named(device), **options)
    results = []
    with work_folder(folder) as work:
        model = None
        for name in names or CASES:
            case = CASES[name]
            source = case.folder(data)
            if source is None:
                click.echo(
                    f"case {name} is left out: --data {data} has no {case.data}/train.jsonl and valid.jsonl", err=True
                )
                continue
            model = model or convert_model(settings, work)
            prepared = prepare(case, source, settings, model, work / name)
            turns = [take_turn(prepared, settings, number) for number in range(settings.turns)]
            results.append(summary(name, prepared, turns))
    rows = [row for result in results for row in table_rows(result)]
    show_table(HEADERS, rows, text_columns=2)
    report(out, "training_vs_mlx_lm", asdict(settings), results)


def convert_model(settings: Settings, folder: Path) -> Path:
    """The model as a folder of plain floats, which both programs open as it is."""
    dtype = "float32" if settings.device == "cpu" else "bfloat16"
    click.echo(f"converting {settings.model} to {dtype}", err=True)
    out = folder / "model"
    command = [sys.executable, "-m", "mlxtune", "convert", settings.model, out, "--dtype", dtype]
    command += ["--no-measure", "--quiet"]
    run_program(command, environment=child_environment(settings.device), log=folder / "convert.log")
    return out


def prepare(case: Case, source: Path, settings: Settings, model: Path, folder: Path) -> Work:
    """Choose the case's rows and write them where both programs find them."""
    for made in (folder, folder / "rows", folder / "train"):
        made.mkdir()
    for split in ("train", "valid"):
        write_json_lines(folder / "rows" / f"{split}.jsonl", read_rows(source / f"{split}.jsonl", case))
    batches = max(1, (settings.steps or case.steps) // case.epochs)
    size = settings.batch_size
    rows = {
        "train": ("train", folder / "train" / "train.jsonl", batches * size, size),
        "heldout": ("valid", folder / "heldout.jsonl", settings.heldout_rows, 1),
    }
    splits = {
        name: {"source": folder / "rows" / f"{split}.jsonl", "out": path, "count": count, "multiple_of": multiple}
        for name, (split, path, count, multiple) in rows.items()
    }
    asked = {"model": model, "splits": splits, "train_on": case.train_on, "max_seq_length": settings.max_seq_length}
    chosen = json.loads(run_child("choose_rows", asked, folder, settings.device).output)
    if not chosen["train"]["rows"]:
        raise click.ClickException(f"{source} has no {size} rows of at most {settings.max_seq_length} tokens")
    chosen["train"]["batch_size"] = size
    blocks = json.loads((model / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
    return Work(case, folder, model, blocks if case.layers == "all" else max(1, blocks // 2), chosen)


def take_turn(work: Work, settings: Settings, number: int) -> dict[str, Any]:
    """Train once with each program, read both adapters; what was measured, by program."""
    folder = work.folder / f"turn_{number}"
    folder.mkdir()
    programs = {"mlxtune": train_with_mlxtune, "mlx_lm": train_with_mlx_lm}
    order = PROGRAMS if number % 2 == 0 else PROGRAMS[::-1]
    turn: dict[str, Any] = {"seed": number + 1, "first": order[0]}
    for program in order:
        click.echo(f"{work.folder.name}, turn {number + 1} of {settings.turns}: {program}", err=True)
        turn[program] = programs[program](work, settings, folder, seed=turn["seed"])
    click.echo(f"{work.folder.name}, turn {number + 1} of {settings.turns}: held-out rows", err=True)
    asked = {
        "device": settings.device,
        "model": work.model,
        "rows": work.folder / "heldout.jsonl",
        "train_on": work.case.train_on,
        "max_seq_length": settings.max_seq_length,
        "adapters": {"mlxtune": folder / "run" / "adapter", "mlx_lm": folder / "adapters"},
    }
    losses = json.loads(run_child("read_heldout", asked, folder, settings.device).output)
    turn["base_heldout_loss"] = losses["base"]
    for program in PROGRAMS:
        turn[program]["heldout_loss"] = losses[program]
    return turn


def train_with_mlxtune(work: Work, settings: Settings, folder: Path, *, seed: int) -> dict[str, Any]:
    """One run of ``mlxtune train``."""
    recipe = {
        "name": "training-vs-mlx-lm",
        "seed": seed,
        "model": {"source": str(work.model)},
        "method": {"rank": settings.rank, "alpha": settings.alpha, "layers": {"top": work.layers}},
        "data": {
            "train": str(work.folder / "train" / "train.jsonl"),
            "train_on": work.case.train_on,
            "max_seq_length": settings.max_seq_length,
        },
        "training": {
            "epochs": work.case.epochs,
            "batch_size": settings.batch_size,
            "learning_rate": settings.learning_rate,
            "lr_schedule": "constant",
            "warmup_ratio": 0.0,
            "weight_decay": 0.0,
            "max_grad_norm": None,
        },
        "checkpoint": {"every_steps": work.updates + 1},
    }
    path = folder / "recipe.yaml"  # JSON is YAML too
    path.write_text(json.dumps(recipe, indent=1), encoding="utf-8")
    command = [sys.executable, "-m", "mlxtune", "train", path, "--run-dir", folder / "run", "--no-score"]
    command += ["--device", settings.device, "--quiet"]
    done = run_program(command, environment=child_environment(settings.device), log=folder / "mlxtune.log")
    lines = [line for line in read_lines(folder / "run" / "metrics.jsonl") if "loss" in line]
    if len(lines) != work.updates or sum(line["tokens"] for line in lines) != work.useful_tokens:
        raise click.ClickException(f"mlxtune did not train on the rows it was given: {folder / 'run'}")
    return measured(
        work,
        done,
        seconds=[line["seconds"] for line in lines],
        target_tokens=sum(line["target_tokens"] for line in lines),
        peak_mlx_bytes=max(line["peak_memory_bytes"] for line in lines),
    )


def train_with_mlx_lm(work: Work, settings: Settings, folder: Path, *, seed: int) -> dict[str, Any]:
    """One run of mlx_lm.lora, told to adapt its default modules: every linear layer of the blocks."""
    lora = {
        "model": str(work.model),
        "train": True,
        "data": str(work.folder / "train"),
        "fine_tune_type": "lora",
        "num_layers": work.layers,
        "lora_parameters": {"rank": settings.rank, "dropout": 0.0, "scale": settings.alpha / settings.rank},
        "optimizer": "adamw",
        "optimizer_config": {"adamw": {"weight_decay": 0.0, "bias_correction": True}},
        "learning_rate": settings.learning_rate,
        "batch_size": settings.batch_size,
        "iters": work.updates,
        "max_seq_length": settings.max_seq_length,
        "mask_prompt": work.case.train_on != "everything",
        "steps_per_report": 1,
        "save_every": work.updates + 1,
        "adapter_path": str(folder / "adapters"),
        "seed": seed,
    }
    asked = {"device": settings.device, "record": folder / "mlx_lm.jsonl", "settings": lora}
    done = run_child("train_with_mlx_lm", asked, folder, settings.device)
    lines = read_lines(folder / "mlx_lm.jsonl")
    if len(lines) != work.updates:
        raise click.ClickException(f"mlx_lm made {len(lines)} of {work.updates} updates: {folder}")
    return measured(
        work,
        done,
        seconds=[1 / line["iterations_per_second"] for line in lines],
        target_tokens=int(lines[-1]["trained_tokens"]),
        peak_mlx_bytes=int(max(line["peak_memory"] for line in lines) * 1e9),
    )


def measured(
    work: Work, done: Finished, *, seconds: Sequence[float], target_tokens: int, peak_mlx_bytes: int
) -> dict[str, Any]:
    """What is kept of one program's training; ``target_tokens`` and ``peak_mlx_bytes`` are its own words."""
    return {
        "tokens_per_s": work.useful_tokens / sum(seconds),
        "wall_s": done.wall_s,
        "peak_bytes": done.peak_bytes,
        "steps_s": sum(seconds),
        "seconds": list(seconds),
        "target_tokens": target_tokens,
        "peak_mlx_bytes": peak_mlx_bytes,
    }


def run_child(name: str, asked: Mapping[str, Any], folder: Path, device: str) -> Finished:
    """Run one of children/ with ``asked`` as its file of settings, which stays beside its log."""
    path = folder / f"{name}.json"
    path.write_text(json.dumps(asked, indent=1, default=str), encoding="utf-8")
    command = [sys.executable, CHILDREN / f"{name}.py", path]
    return run_program(command, environment=child_environment(device), log=folder / f"{name}.log")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def summary(name: str, work: Work, turns: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One case: what was done, the medians, and every turn."""
    return {
        "case": name,
        "title": work.case.title,
        "layers": work.layers,
        "epochs": work.case.epochs,
        "updates": work.updates,
        "useful_tokens": work.useful_tokens,
        "rows": work.chosen,
        **{program: {key: median([turn[program][key] for turn in turns]) for key in FIGURES} for program in PROGRAMS},
        "ratio": {key: median([turn["mlxtune"][key] / turn["mlx_lm"][key] for turn in turns]) for key in FIGURES},
        "base_heldout_loss": turns[0]["base_heldout_loss"],
        "turns": turns,
    }


def table_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """The lines of one case."""
    rows = []
    for program in PROGRAMS:
        found = result[program]
        shown = f"{found['tokens_per_s']:.0f}", f"{found['wall_s']:.1f}", f"{found['peak_bytes'] / 1e9:.2f}"
        rows.append([result["case"], program, *shown, f"{found['heldout_loss']:.4f}"])
    ratio = result["ratio"]
    rows.append([result["case"], "mlxtune / mlx_lm", *(f"{ratio[key]:.2f}" for key in FIGURES[:3])])
    rows[-1].append(f"{ratio['heldout_loss']:.4f}")
    return rows


if __name__ == "__main__":
    command()
