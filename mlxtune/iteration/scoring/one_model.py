"""One model scored on held-out rows, and the cache of such scores.

The scores of a model without adapter are kept under all that they depend on, since every iteration on a task asks for
the base's again, and so does every comparison with the same other model. Their cost is of the day they were made.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

from mlxtune import evaluation, inference
from mlxtune.adapters.open import attach_adapter
from mlxtune.cache import cache_folder
from mlxtune.data.dataset import Dataset
from mlxtune.data.example import Example
from mlxtune.data.pairs import begins_with_pair
from mlxtune.data.render import Rendered
from mlxtune.data.source import stream_of
from mlxtune.device.choose import Device
from mlxtune.evaluation.cost import measure_cost
from mlxtune.evaluation.score import Scores, score_model
from mlxtune.evaluation.tasks import check_task
from mlxtune.files import write_json
from mlxtune.iteration.opening import render_rows
from mlxtune.iteration.scoring.rows import HeldOutRows
from mlxtune.models.load import Model, open_model
from mlxtune.models.safetensors import WEIGHTS
from mlxtune.models.source import ModelFolder
from mlxtune.models.tokenizer import open_tokenizer
from mlxtune.progress import Progress
from mlxtune.runs.folder import weights_of
from mlxtune.runs.manifest import versions


def model_basis(folder: ModelFolder, device: Device) -> dict[str, Any]:
    """All that a model's scores depend on, but for the rows."""
    return {
        "model_sha256": folder.sha256,
        "precision": device.precision.name,
        "mlxtune": versions()["mlxtune"],
        "mlx": versions()["mlx"],
        "scoring_sha256": scoring_sha256(),
    }


@cache
def scoring_sha256() -> str:
    """Of the code that asks and scores: in a clone it changes between two versions."""
    digest = hashlib.sha256()
    for package in (evaluation, inference):
        for folder in package.__path__:
            for path in sorted(Path(folder).rglob("*.py")):
                digest.update(path.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class RowsRead:
    """Held-out rows as one model reads them, and the same as turns."""

    dataset: Dataset
    examples: Sequence[Example]


def reader_of(rows: HeldOutRows, folder: ModelFolder, progress: Progress) -> Callable[[], RowsRead]:
    """Reads the rows as the model in ``folder`` does, once, when it is first asked to: what is cached needs no rows.

    Raises: DataError, for rows that cannot be read so, or of which a task cannot be asked; ModelError.
    """

    @cache
    def read() -> RowsRead:
        tokenizer = open_tokenizer(folder.path, rows.data.chat_template)
        path = rows.source.path
        stream = stream_of(rows.source)
        dataset = render_rows(
            rows.data,
            stream,
            tokenizer,
            path,
            tokenizer_folder=folder.path,
            pairs="both" if begins_with_pair(stream) else "refused",
            progress=progress,
        )
        examples = list(dataset.examples())
        for task in rows.tasks:  # rows may be others than those that a run began with
            check_task(tokenizer, examples, task, path=path)
        return RowsRead(dataset, examples)

    return read


def untuned_scores(
    rows: HeldOutRows,
    read: Callable[[], RowsRead],
    folder: ModelFolder,
    device: Device,
    *,
    force: bool,
    progress: Progress,
) -> Scores:
    """The scores of a model without adapter: those kept in the cache, or new ones."""

    def make() -> Scores:
        model = open_model(folder.path, device.precision, rows.data.chat_template)
        return _score(rows, read(), model, disk_bytes(folder.path), progress=progress)

    return kept_scores({**model_basis(folder, device), **rows.basis()}, make, force=force)


def tuned_scores(
    rows: HeldOutRows, read: RowsRead, folder: ModelFolder, adapter: Path, device: Device, *, progress: Progress
) -> Scores:
    """The scores of a model with its adapter, opened anew from the files that are handed on."""
    model = open_model(folder.path, device.precision, rows.data.chat_template)
    attach_adapter(model.network, adapter)
    stored = disk_bytes(folder.path) + weights_of(adapter).stat().st_size
    return _score(rows, read, model, stored, progress=progress)


def kept_scores(basis: Mapping[str, Any], make: Callable[[], Scores], *, force: bool) -> Scores:
    """The scores that the cache has for ``basis``, or those that ``make`` makes, which it then has."""
    return kept(basis, make, Scores.from_json, force=force)


class Keepable(Protocol):
    """What can be put into the cache."""

    def to_json(self) -> dict[str, Any]: ...


K = TypeVar("K", bound=Keepable)


def kept(basis: Mapping[str, Any], make: Callable[[], K], read: Callable[[Mapping[str, Any]], K], *, force: bool) -> K:
    """What the cache has for ``basis``, or what ``make`` makes, which it then has.

    Args:
        read: makes of JSON values what they were made of; KeyError, ValueError or TypeError for anything else.
    """
    content = json.dumps(basis, sort_keys=True)
    place = cache_folder("scores") / f"{hashlib.sha256(content.encode()).hexdigest()[:32]}.json"
    if place.exists() and not force:
        try:
            return read(json.loads(place.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError):
            pass  # damaged, or of an older form; a cache's entry can be made anew
    made = make()
    write_json(place, made.to_json())
    return made


def with_cost(scores: Scores, model: Model, prompt: Sequence[int], stored_bytes: int) -> Scores:
    """The same, and what the model costs that they are of, which is asked ``prompt`` for it."""
    return replace(scores, cost=measure_cost(model.network, prompt, disk_bytes=stored_bytes))


def prompt_of(row: Rendered) -> list[int]:
    """The tokens of a row before the first that is learned; of a text, which is learned from the second on, all."""
    first = int(row.is_target.argmax())
    return row.token_ids[: first if first > 1 else None].tolist()


def disk_bytes(folder: Path) -> int:
    """Of the weights in a model's folder."""
    return sum(path.stat().st_size for path in folder.glob(WEIGHTS))


def _score(rows: HeldOutRows, read: RowsRead, model: Model, stored_bytes: int, *, progress: Progress) -> Scores:
    rendered, row_of = read.dataset.once()
    scores = score_model(
        model, rendered, read.examples, rows.tasks, row_of=row_of, pairs=read.dataset.pairs, progress=progress
    )
    return with_cost(scores, model, prompt_of(rendered[0]), stored_bytes)
