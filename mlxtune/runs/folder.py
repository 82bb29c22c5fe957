"""A run's folder: what lies where, and that only one process writes there.

Knows names and JSON; nothing of networks. A folder appears whole, with recipe and manifest in it, or not at all; it is
readable by its owner alone, since samples of private data are in it.
"""

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mlxtune.errors import OutputExistsError, RunError
from mlxtune.files import PART, clear_parts, naming, new_folder, sha256_of, write_json, write_text

RUNS = Path("runs")
"""Where runs go that are given no folder, seen from the working folder."""

MANIFEST_KEYS = {"name", "device", "inputs", "versions"}
SCORES_KEYS = {"base", "tuned", "differences", "against", "basis"}
NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)
AS_WRITTEN = "put the file back as mlxtune wrote it, or start a new run"


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
    def row_scores(self) -> Path:
        """What each row adds to each metric of each model."""
        return self.path / "row_scores.json.gz"

    @property
    def samples(self) -> Path:
        return self.path / "samples.jsonl"

    @property
    def valid_samples(self) -> Path:
        """What the model wrote to a few validation rows at the latest look at the loss."""
        return self.path / "valid_samples.jsonl"

    @property
    def forgetting(self) -> Path:
        """Each general question with both models' answers."""
        return self.path / "forgetting.jsonl"

    @property
    def data(self) -> Path:
        """What is told of the rows."""
        return self.path / "data.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def findings(self) -> Path:
        """What to look at."""
        return self.path / "findings.json"

    @property
    def lm_eval(self) -> Path:
        """What lm-evaluation-harness says of base and tuned model, where it was asked."""
        return self.path / "lm_eval.json"

    @property
    def control(self) -> Path:
        """What is wished of the process that trains here."""
        return self.path / "control.json"

    @property
    def paused(self) -> Path:
        """There while that process waits."""
        return self.path / "paused.json"

    @property
    def readme(self) -> Path:
        return self.path / "README.md"

    def read_manifest(self) -> dict[str, Any]:
        """What run.json holds. Raises: RunError, if it cannot be read or holds no run's inputs."""
        try:
            manifest = json.loads(self.manifest.read_text(encoding="utf-8"))
            missing = MANIFEST_KEYS - manifest.keys()
        except (OSError, ValueError, RecursionError, AttributeError) as error:
            raise RunError(f"cannot be read: {error}", where=self.manifest, remedy=AS_WRITTEN) from error
        if missing:
            raise RunError(f"lacks {', '.join(sorted(missing))}", where=self.manifest, remedy=AS_WRITTEN)
        return manifest

    def update_manifest(self, **changes: Any) -> None:
        """Put ``changes`` over what run.json holds."""
        write_json(self.manifest, self.read_manifest() | changes)

    def read_scores(self) -> dict[str, Any] | None:
        """What scores.json holds; None if it is not there or not as mlxtune wrote it."""
        try:
            scores = json.loads(self.scores.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        return scores if isinstance(scores, dict) and scores.keys() >= SCORES_KEYS else None

    def finished_adapter(self) -> Path:
        """The adapter's folder. Raises: RunError, if training has not come to its end yet."""
        if not self.adapter.is_dir():
            remedy = f"finish it: mlxtune train --resume {self.path}"
            raise RunError("the run has no adapter yet", where=self.path, remedy=remedy)
        return self.adapter

    @property
    def is_finished(self) -> bool:
        """Whether training has come to its end; scores may still be missing."""
        return self.adapter.is_dir() and "finished" in self.read_manifest()


def weights_of(adapter: Path) -> Path:
    """The file with an adapter's numbers: mlx-lm's, or PEFT's where mlx-lm has no words for the adapter."""
    ours, theirs = adapter / "adapters.safetensors", adapter / "adapter_model.safetensors"
    return theirs if theirs.is_file() and not ours.is_file() else ours


def is_run_folder(path: Path) -> bool:
    """Whether ``path`` looks like a run folder, finished or not."""
    return (path / "run.json").is_file() and (path / "recipe.resolved.json").is_file()


def open_run(path: Path) -> RunFolder:
    """An existing run folder. Raises: RunError, if it is none."""
    if not path.is_dir():
        raise RunError(
            "there is no such run", where=path, remedy=f"name a folder below {RUNS}/, or the one --run-dir made"
        )
    if not is_run_folder(path):
        raise RunError("this folder holds no run", where=path, remedy="name a folder with a run.json in it")
    return RunFolder(path)


def refuse_taken(run_dir: Path) -> None:
    """Raises: OutputExistsError, if ``run_dir`` is there and is no empty folder."""
    if os.path.lexists(run_dir) and not (run_dir.is_dir() and not any(run_dir.iterdir())):
        remedy = "choose another --run-dir"
        if is_run_folder(run_dir):
            remedy += f", or go on with --resume {run_dir}"
        raise OutputExistsError("the run folder exists already", where=run_dir, remedy=remedy)


def create_run(
    name: str, *, run_dir: Path | None, recipe_text: str, resolved: Mapping[str, Any], manifest: Mapping[str, Any]
) -> RunFolder:
    """A new run folder, whole from the moment that it is there.

    Args:
        name: the recipe's; with the time it names the folder below ``runs/``.
        run_dir: the folder itself, instead; must be new or empty.
        recipe_text, resolved: the recipe as written, and with every default filled in.
        manifest: of `make_manifest`; the hash of the resolved recipe joins its inputs.

    Raises: OutputExistsError, if ``run_dir`` is taken.
    """
    while True:
        path = run_dir or _fresh(RUNS / f"{name}-{datetime.now().astimezone():%Y%m%d-%H%M%S}")
        refuse_taken(path)
        try:
            with _making_in(path.absolute().parent), new_folder(path) as part:
                run = RunFolder(part)
                run.checkpoints.mkdir(mode=0o700)
                run.logs.mkdir(mode=0o700)
                write_text(run.recipe, recipe_text)
                write_json(run.resolved, resolved)
                inputs = {run.resolved.name: sha256_of(run.resolved), **manifest["inputs"]}
                write_json(run.manifest, {**manifest, "inputs": inputs})
        except OutputExistsError:
            if run_dir is not None:
                refuse_taken(run_dir)
                raise
            continue  # another process took the name in the same second
        return RunFolder(path)


@contextlib.contextmanager
def _making_in(parent: Path) -> Iterator[None]:
    """Hold the folder that a run is being made in, after clearing away what killed processes left there half made.

    All who make a run there hold it together, so that one who can have it alone knows that nobody else is at it.
    """
    parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # somebody is at it; or a share that knows no locks: then nothing is cleared
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for path in parent.iterdir():
                if PART.fullmatch(path.name) and _is_half_made(path):
                    shutil.rmtree(path)
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def _is_half_made(path: Path) -> bool:
    """Whether a hidden folder is a run that was being made. Another's, and one that is still empty, is left alone."""
    if path.is_symlink() or not (path / "checkpoints").is_dir() or any((path / "checkpoints").iterdir()):
        return False
    run = RunFolder(path)
    own = {place.name for place in (run.checkpoints, run.logs, run.recipe, run.resolved, run.manifest)}
    return all(found.name in own or PART.fullmatch(found.name) for found in path.iterdir())


def _fresh(path: Path) -> Path:
    number, candidate = 1, path
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate


@contextlib.contextmanager
def lock(run: RunFolder, *, to_write: bool = True) -> Iterator[None]:
    """Keep other processes out of this run. The lock goes when the process does, however it ends.

    What a killed process left half written in the folder is cleared away.

    Args:
        to_write: False for one who will change nothing: where the folder cannot be written to, no lock is needed.

    Raises: RunError, if another process has it; OSError, if the folder cannot be written to.
    """
    try:
        opened = (run.path / ".lock").open("a+")  # to read who has it, the file must not be emptied first
    except OSError as error:
        if to_write or error.errno not in NOT_WRITABLE:
            raise
        opened = None
    if opened is None:
        yield
        return
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            who = f"process {file.read()}".rstrip()
            remedy = "wait for it, or stop it first"
            raise RunError(f"another process is working in this run ({who})", where=run.path, remedy=remedy) from error
        with naming(run.path):
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        clear_parts(run.path)
        yield
