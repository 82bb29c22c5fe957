"""A run's folder: what lies where, and that only one process writes there.

Knows names and JSON; nothing of networks. The folder is readable by its owner alone, since a sample of private data may
be in it.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mlxtune.errors import OutputExistsError, RunError
from mlxtune.files import write_json


@dataclass(frozen=True)
class RunFolder:
    """The places in one run folder."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def resolved(self) -> Path:
        return self.path / "recipe.resolved.json"

    @property
    def manifest(self) -> Path:
        return self.path / "run.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def scores(self) -> Path:
        return self.path / "scores.json"

    @property
    def samples(self) -> Path:
        return self.path / "samples.jsonl"

    @property
    def readme(self) -> Path:
        return self.path / "README.md"

    def read_manifest(self) -> dict[str, Any]:
        return _read_json(self.manifest)

    def update_manifest(self, **changes: Any) -> None:
        write_json(self.manifest, self.read_manifest() | changes)

    @property
    def is_finished(self) -> bool:
        return self.manifest.exists() and "finished" in self.read_manifest() and self.adapter.exists()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(
            f"cannot be read: {error}", where=path, remedy="is this a run folder? runs/ holds them"
        ) from error


def is_run_folder(path: Path) -> bool:
    """Whether ``path`` looks like a run folder, finished or not."""
    return (path / "run.json").is_file() and (path / "recipe.resolved.json").is_file()


def open_run(path: Path) -> RunFolder:
    """An existing run folder. Raises RunError if it is none."""
    if not path.is_dir():
        raise RunError(
            "there is no such run", where=path, remedy="name a folder below runs/, or the one --run-dir made"
        )
    if not is_run_folder(path):
        raise RunError("this folder holds no run", where=path, remedy="name a folder with a run.json in it")
    return RunFolder(path)


def create_run(name: str, *, run_dir: Path | None, recipe_text: str, resolved: dict[str, Any]) -> RunFolder:
    """A new run folder, with the recipe as written and as resolved in it.

    Args:
        name: the recipe's; with the time it names the folder below ``runs/``.
        run_dir: the folder itself, instead; must be new or empty.
    """
    path = run_dir or _fresh(Path("runs") / f"{name}-{datetime.now().astimezone():%Y%m%d-%H%M%S}")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        remedy = f"choose another --run-dir, or go on with --resume {path}"
        raise OutputExistsError("the run folder exists already", where=path, remedy=remedy)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    run = RunFolder(path)
    run.checkpoints.mkdir(mode=0o700)
    run.logs.mkdir(mode=0o700)
    run.recipe.write_text(recipe_text, encoding="utf-8")
    write_json(run.resolved, resolved)
    return run


def _fresh(path: Path) -> Path:
    number, candidate = 1, path
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate


@contextlib.contextmanager
def lock(run: RunFolder) -> Iterator[None]:
    """Keep other processes out of this run. The lock goes when the process does, however it ends."""
    with (run.path / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            remedy = "wait for it, or stop it first"
            raise RunError("another process is working in this run", where=run.path, remedy=remedy) from error
        file.write(str(os.getpid()))
        file.flush()
        yield
