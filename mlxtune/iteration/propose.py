"""A first recipe for rows of one's own: what the rows look like, what fits into memory and time, written as a file.

Asks no question and prints nothing: the five answers come in. Tries the candidates from the largest on as ``plan``
does, so that what is written was foretold to fit; the price is some seconds a candidate, and that no candidate is
known to learn best: that is for ``sweep``. Rows in one file are split first; nothing is left behind where it fails.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlxtune.data.normalize import normalize_stream
from mlxtune.data.read import read_stream
from mlxtune.data.split import split_file
from mlxtune.data.store.rows import facts_of
from mlxtune.device.memory import MemoryLimit, memory_limit
from mlxtune.errors import UsageError
from mlxtune.files import new_folder
from mlxtune.iteration.forecast import Forecast, forecast, refuse_too_large
from mlxtune.iteration.opening import open_recipe
from mlxtune.iteration.ready import make_ready
from mlxtune.progress import Progress, silent
from mlxtune.recipe.load import load_recipe
from mlxtune.recipe.paths import is_local

TASKS: dict[str, tuple[str, ...]] = {
    "classify": ("scorer: choice",),
    "extract": ("scorer: json_fields", "max_tokens: 256"),
    "answer": ("scorer: rouge_l", "max_tokens: 256"),
    "write": ("scorer: chrf", "max_tokens: 256"),
}
"""What the model is to do, and the keys by which it is scored."""
EPOCHS = 3
LONGEST = 2048
"""Most tokens of a row that are proposed; longer rows are dropped, and counted."""
SHORTEST = 64
SMALL_WIDTH = 1024
"""Networks narrower than this learn with a higher rate: in our own runs 1e-3 at 576 (docs/results.md)."""
SHARES = (1.0, 0.5, 0.25)
"""Of the blocks, those that train: tried in this order."""


@dataclass(frozen=True)
class Answers:
    """What the five questions ask."""

    task: str
    data: Path
    """One file of rows, or a folder with the files of train, valid and test."""
    model: str
    minutes: float
    memory_bytes: int | None = None
    """Most bytes to take; None: all that is free."""


@dataclass(frozen=True)
class Proposal:
    """What was written, and what it was foretold to take; ``rows`` of each split, ``why`` they were read so."""

    recipe: Path
    forecast: Forecast
    rows: Mapping[str, int]
    dropped: int
    why: str


def propose_recipe(
    answers: Answers, folder: Path, *, device: str = "auto", force: bool = False, progress: Progress = silent
) -> Proposal:
    """Write a recipe, and the split rows beside it, to a new folder.

    Args:
        device: as `open_device` takes it.
        force: replace the folder.

    Raises: UsageError, for an answer that is none; OutputExistsError, before anything is done; DataError, for rows that
        cannot be read or split; ModelError and NetworkError, for the model; TrainingError, if nothing fits.
    """
    _check(answers)
    with new_folder(folder, force=force) as part:
        places, form, why = _place_rows(answers.data, part, progress)
        settings = _Settings(folder.absolute().name, replace(answers, model=_source(answers.model)), places, form)
        recipe = part / "recipe.yaml"
        settings = _measured(settings, recipe, device, progress)
        settings, found, rows = _fitting(settings, recipe, device, progress)
    return Proposal(folder / "recipe.yaml", found, rows, settings.dropped, why)


@dataclass(frozen=True)
class _Settings:
    """All that the written recipe says."""

    name: str
    answers: Answers
    places: Mapping[str, str]
    form: str | None
    max_seq_length: int = LONGEST
    dropped: int = 0
    blocks: int = 0
    """All of the network's."""
    top: int = 0
    learning_rate: float = 2.0e-4
    epochs: int = EPOCHS

    def text(self) -> str:
        """The recipe file."""
        answers = self.answers
        data = "".join(f"  {split}: {_quoted(place)}\n" for split, place in self.places.items())
        layers = "all" if self.top >= self.blocks else f"{{top: {self.top}}}   # of {self.blocks} blocks"
        keys = () if self.form == "text" else TASKS[answers.task]
        tasks = "".join(f"      {key}\n" for key in keys)
        tasks = f"  tasks:\n    - name: {answers.task}\n{tasks}" if tasks else ""
        return (
            f"# By mlxtune init: {answers.task}, within {answers.minutes:g} minutes. Keys: mlxtune recipes schema.\n"
            f"schema_version: 1\nname: {_quoted(_plain(self.name))}\nseed: 7\n\n"
            f"model:\n  source: {_quoted(answers.model)}\n\n"
            f"method:\n  type: lora\n  rank: 16\n  alpha: 32\n  target_modules: all-linear\n  layers: {layers}\n\n"
            f"objective:\n  type: sft\n\n"
            f"data:\n{data}  max_seq_length: {self.max_seq_length}\n  overflow: drop\n\n"
            f"training:\n  epochs: {self.epochs}\n  max_minutes: {answers.minutes:g}\n  batch_size: 8\n"
            f"  learning_rate: {self.learning_rate:.1e}\n\n"
            f"evaluation:\n{tasks}  forgetting: false\n"
        )


def _check(answers: Answers) -> None:
    if answers.task not in TASKS:
        raise UsageError(f"there is no task {answers.task}", where="--task", remedy=f"choose from {', '.join(TASKS)}")
    if not answers.data.exists():
        raise UsageError("the data file is not there", where=answers.data, remedy="name a file of rows with --data")
    if not (answers.minutes > 0 and math.isfinite(answers.minutes)):
        raise UsageError(f"{answers.minutes:g} minutes are no time", where="--minutes", remedy="give more than 0")
    if answers.memory_bytes is not None and answers.memory_bytes <= 0:
        raise UsageError(
            "less than nothing is no memory", where="--memory", remedy="give GB, or 0 for all that is free"
        )


def _source(model: str) -> str:
    """A model's folder or file as it was typed, absolute: the recipe lies elsewhere."""
    path = os.path.expanduser(model)  # noqa: PTH111 - pathlib's raises for ~nobody
    return os.path.abspath(path) if is_local(path, Path.cwd()) else model  # noqa: PTH100 - lexically, links stay


def _place_rows(data: Path, part: Path, progress: Progress) -> tuple[dict[str, str], str | None, str]:
    """The places of the splits as the recipe says them, the rows' form, and why it is that."""
    data = data.absolute()
    if data.is_dir():
        return {split: str(data) for split in ("train", "valid", "test")}, None, "a folder with its own splits"
    stream = normalize_stream(read_stream(data))
    next(iter(stream), None)
    report = split_file(
        data, part / "data", stratify="label" if _has_labels(data, stream.form) else None, progress=progress
    )
    return {split: f"data/{split}.jsonl" for split in report.rows}, stream.form, report.why


def _has_labels(data: Path, form: str | None) -> bool:
    first = next(iter(read_stream(data)), None)
    return form == "label" and "label" in getattr(first, "fields", {})


def _measured(settings: _Settings, recipe: Path, device: str, progress: Progress) -> _Settings:
    """With the length of the rows, and the network's blocks and width."""
    recipe.write_text(replace(settings, max_seq_length=1 << 17, top=1, blocks=2).text(), encoding="utf-8")
    opened = open_recipe(load_recipe(recipe).recipe, device=device, progress=progress)
    network: Any = opened.model.network
    lengths = facts_of(opened.datasets["train"].rows).length
    longest = int(lengths.max())
    width = opened.model.config.get("hidden_size", SMALL_WIDTH)
    return replace(
        settings,
        max_seq_length=min(LONGEST, max(SHORTEST, 2 ** math.ceil(math.log2(longest)))),
        dropped=int((lengths > LONGEST).sum()),
        blocks=len(network.layers),
        learning_rate=1.0e-3 if width < SMALL_WIDTH else 2.0e-4,
    )


def _fitting(
    settings: _Settings, recipe: Path, device: str, progress: Progress
) -> tuple[_Settings, Forecast, dict[str, int]]:
    """The first candidate that fits into memory and learns every row once in time, else the smallest; written."""
    asked = settings.answers
    first, *others = dict.fromkeys(max(1, round(share * settings.blocks)) for share in SHARES)
    settings = replace(settings, top=first)
    found, rows = _foretold(settings, recipe, device, progress)
    for top in others:
        if found.fits and found.steps >= found.steps_an_epoch:
            break
        settings = replace(settings, top=top)
        found, rows = _foretold(settings, recipe, device, progress)
    refuse_too_large(found)
    seconds_an_epoch = found.seconds / found.steps * found.steps_an_epoch
    epochs = min(EPOCHS, max(1, int(60 * asked.minutes / max(seconds_an_epoch, 1e-9))))
    settings = replace(settings, epochs=epochs)
    recipe.write_text(settings.text(), encoding="utf-8")
    steps = min(found.steps, epochs * found.steps_an_epoch)
    return settings, replace(found, steps=steps, seconds=found.seconds / found.steps * steps), rows


def _foretold(settings: _Settings, recipe: Path, device: str, progress: Progress) -> tuple[Forecast, dict[str, int]]:
    recipe.write_text(settings.text(), encoding="utf-8")
    opened = open_recipe(load_recipe(recipe).recipe, device=device, progress=progress)
    rows = {split: dataset.report.rows for split, dataset in opened.datasets.items()}
    return forecast(make_ready(opened), _limit(settings.answers.memory_bytes), progress=progress), rows


def _limit(memory_bytes: int | None) -> MemoryLimit:
    limit = memory_limit()
    return limit if memory_bytes is None or memory_bytes >= limit.bytes else MemoryLimit(memory_bytes, "as asked for")


def _plain(name: str) -> str:
    kept = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-" for letter in name)
    return kept.lstrip("._-")[:100] or "mine"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
