"""What the benchmarks share: a program run and measured from outside, medians, a table, and a report in JSON.

Knows processes, files and numbers; nothing of models. Peak memory is what the system says of a process when it has
ended, so nothing has to be sampled. The price: on Linux a child's peak starts at its parent's, so a benchmark that
measures processes loads no model itself.
"""

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

RSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in what the system counts a process's peak memory in."""

PACKAGES = ("mlxtune", "mlx", "mlx-lm", "numpy", "transformers")
LINES_SHOWN = 15


@dataclass(frozen=True)
class Finished:
    """A process that has ended well: its wall time from start to end, and the most memory it held (resident)."""

    wall_s: float
    peak_bytes: int
    output: str
    """What it wrote to standard output."""


def run_program(command: Sequence[str | Path], *, environment: Mapping[str, str], log: Path) -> Finished:
    """Run a program to its end.

    Args:
        log: where its standard error goes; standard output goes beside it.

    Raises: click.ClickException, with the log's last lines, if it fails.
    """
    spoken = log.with_suffix(".out")
    with spoken.open("wb") as out, log.open("wb") as errors:
        started = time.perf_counter()
        process = subprocess.Popen([str(word) for word in command], stdout=out, stderr=errors, env=dict(environment))
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        wall_s = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        said = [path.read_text(errors="replace").splitlines()[-LINES_SHOWN:] for path in (spoken, log)]
        shown = "\n".join(["", *said[0], *said[1]])
        raise click.ClickException(f"{' '.join(map(str, command[:6]))} ended with {process.returncode}:{shown}")
    return Finished(wall_s, usage.ru_maxrss * RSS_UNIT, spoken.read_text(encoding="utf-8", errors="replace"))


def child_environment(device: str) -> dict[str, str]:
    """The environment of every measured program: no network, and on the CPU nothing is compiled.

    MLX compiles there with g++ while it trains, for no gain; how long that takes depends on what it finds in a folder
    that all processes share.
    """
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONUTF8": "1"}
    return environment | ({"MLX_DISABLE_COMPILE": "1"} if device == "cpu" else {})


def device_named(choice: str) -> str:
    """``cpu`` or ``gpu``: ``auto`` is the GPU where MLX sees one."""
    import mlxtune  # noqa: F401 - opens the BLAS, before any other import of mlx
    import mlx.core as mx  # isort: skip

    return "gpu" if choice == "auto" and mx.is_available(mx.gpu) else "cpu"


def machine() -> dict[str, Any]:
    """What figures depend on besides the programs."""
    from mlxtune.device.blas import open_blas

    blas = open_blas()
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "blas": blas.name,
        "blas_threads": blas.threads,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    names = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    return next((line.partition(":")[2].strip() for line in names if line.startswith("model name")), "") or (
        platform.processor() or platform.machine()
    )


def median(values: Sequence[float]) -> float:
    """The middle value; the mean of the two in the middle where there are two."""
    return float(statistics.median(values))


@contextmanager
def work_folder(folder: Path | None) -> Iterator[Path]:
    """``folder``, made and kept; without one a temporary folder that is removed."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="mlxtune-benchmark-") as temporary:
            yield Path(temporary).resolve()
    else:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise click.ClickException(f"{folder} is not empty; name a new folder")
        yield folder.resolve()


def write_json_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """One object a line."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def show_table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, text_columns: int = 1) -> None:
    """Print a Markdown table; the first ``text_columns`` stand to the left, numbers to the right."""
    columns = list(zip(*[headers, *rows], strict=True))
    widths = [max(map(len, column)) for column in columns]
    rule = ["-" * width if i < text_columns else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    for row in [headers, rule, *rows]:
        cells = [
            cell.ljust(width) if i < text_columns else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        click.echo(f"| {' | '.join(cells)} |")


def report(out: Path | None, benchmark: str, settings: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> None:
    """Write everything that was measured, one turn at a time where there were turns, as JSON to ``out``, if given."""
    if out is not None:
        whole = {"benchmark": benchmark, "machine": machine(), "settings": settings, "results": results}
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(whole, indent=1, default=str) + "\n", encoding="utf-8")
        click.echo(f"wrote {out}", err=True)
