"""Other models, untuned, beside a tuned one: found and named, each with so many examples, scored, set against it.

All are found before any work, so that a name that means nothing costs no time. Scores are kept in the cache as the
base's are. The price of comparing with a large model is its time; it is paid once.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mlxtune.data.example import Example, content_hash
from mlxtune.data.source import hash_of, iterate
from mlxtune.device.choose import Device
from mlxtune.errors import UsageError
from mlxtune.evaluation.score import BOOTSTRAP_SEED, Scores, score_model
from mlxtune.evaluation.shots import choose_shots, hash_of_shots
from mlxtune.evaluation.verdict import judge
from mlxtune.iteration.opening import source_of
from mlxtune.iteration.scoring.asking import Asked, ask_untuned
from mlxtune.iteration.scoring.one_model import RowsRead, disk_bytes, kept_scores, model_basis, with_cost
from mlxtune.iteration.scoring.rows import HeldOutRows
from mlxtune.models.chat_template import chat_template_sha256
from mlxtune.models.load import open_model, precision_to_ask
from mlxtune.models.source import ModelFolder, find_model, locate
from mlxtune.progress import Progress
from mlxtune.runs.folder import is_run_folder

OURS = ("base", "tuned")
"""What the run's own two models are called, and no other."""


@dataclass(frozen=True)
class Rival:
    """An untuned model in the table; the base itself is one where it is shown examples."""

    label: str
    source: str
    """As the user gave it."""
    shots: int
    folder: ModelFolder


@dataclass(frozen=True, eq=False)
class Question:
    """What a rival is asked, and all that its scores depend on."""

    rival: Rival
    asked: Asked
    shots: Sequence[Example]
    device: Device
    basis: Mapping[str, Any]


def find_rivals(
    sources: Sequence[str],
    shots: Sequence[int],
    first: ModelFolder,
    first_label: str,
    *,
    taken: Mapping[str, Collection[str]],
    note: Callable[[str], None],
    progress: Progress,
) -> list[Rival]:
    """The models that ``sources`` name, each with every number of ``shots``, without doubles.

    Args:
        shots: how many examples stand before each row; none given: 0, and only ``sources`` are asked.
        first: the model that is in the table anyway, asked without examples; with examples it is a rival, too.
        taken: what the table calls models already, and the source and the hash that each is known by.
        note: told, in a sentence, of a source that adds no row to the table.

    Raises: UsageError, for a run, or a number of examples below 0; ModelError or NetworkError, for a model that is not
        there or cannot be used.
    """
    if any(count < 0 for count in shots):
        raise UsageError("a number of examples is below 0", where="--shots", remedy="give 0 or more")
    counts = sorted(set(shots)) or [0]
    names = {first.sha256: (first_label, first)}
    used: dict[str, Collection[str]] = {**taken, **dict.fromkeys((*OURS, first_label), ())}
    for source in dict.fromkeys(sources):
        if is_run_folder(Path(source)):
            raise UsageError(
                "this is a run, and --against takes models",
                where=source,
                remedy=f"compare runs with: mlxtune runs compare RUN {source}",
            )
        folder = find_model(source, progress=progress)
        if folder.sha256 in names:
            note(f"{source} is the same model as {names[folder.sha256][0]}, and stands in the table once")
            continue
        same = next((label for label, known in used.items() if folder.sha256 in known), None)
        label = same or _label(source, used)
        used[label] = (source, folder.sha256)
        names[folder.sha256] = (label, folder)
    return [
        Rival(label if count == 0 else f"{label}, {count}-shot", folder.source, count, folder)
        for label, folder in names.values()
        for count in counts
        if count > 0 or folder is not first
    ]


def _label(source: str, used: Mapping[str, Collection[str]]) -> str:
    """What the table calls a model: its name, or its whole path where that is the name of another one in ``used``."""
    if locate(source).kind in ("catalogue", "hub"):
        return source
    path = Path(source).expanduser().absolute()
    name = path.name.removesuffix(".gguf")
    return name if name and source in used.get(name, (source,)) else str(path)


def make_questions(
    rows: HeldOutRows,
    read: RowsRead,
    rivals: Sequence[Rival],
    first: ModelFolder,
    device: Device,
) -> list[Question]:
    """What each rival is asked.

    Args:
        read: the rows as the first model reads them, which the rivals are set against.

    Raises: as `ask_untuned` and `choose_shots`; UsageError, for examples where no recipe names training data.
    """
    alike = {
        "data_sha256": hash_of(rows.source),
        "rows_sha256": hashlib.sha256("".join(content_hash(example) for example in read.examples).encode()).hexdigest(),
        "train_on": rows.data.train_on,
        "tasks": [task.basis() for task in rows.tasks],
    }
    shown = {count: _shots(rows, count, read.examples) for count in {rival.shots for rival in rivals}}
    questions = []
    for rival in rivals:
        asked = ask_untuned(
            rival.folder.path,
            read.examples,
            shown[rival.shots],
            rows.tasks,
            rows.data,
            is_base=rival.folder.sha256 == first.sha256,
            is_cut=bool(read.dataset.report.truncated),
            pairs=read.dataset.pairs,
            path=rows.source.path,
        )
        own = replace(device, precision=precision_to_ask(rival.folder.path, device.precision))
        basis = {
            **model_basis(rival.folder, own),
            **alike,
            "shots": rival.shots,
            "shots_sha256": hash_of_shots(shown[rival.shots]),
            "chat_template": chat_template_sha256(asked.template),
            "notes": list(asked.notes),
        }
        questions.append(Question(rival, asked, shown[rival.shots], own, basis))
    return questions


def rival_scores(question: Question, rows: HeldOutRows, *, force: bool, progress: Progress) -> Scores:
    """A rival's scores: those kept in the cache, or new ones."""

    def make() -> Scores:
        asked, folder = question.asked, question.rival.folder
        model = open_model(folder.path, question.device.precision, asked.template)
        scores = score_model(model, asked.rendered, asked.examples, rows.tasks, pairs=asked.pairs, progress=progress)
        return with_cost(scores, model, asked.first_prompt, disk_bytes(folder.path))

    return kept_scores(question.basis, make, force=force)


def entry_of(question: Question, scores: Scores, ours: Mapping[str, Any]) -> dict[str, Any]:
    """A rival's place in ``against`` of scores.json.

    Args:
        ours: what each row adds to each metric of the model that the rival is set against.
    """
    rival, asked = question.rival, question.asked
    return {
        "label": rival.label,
        "model": rival.source,
        "shots": rival.shots,
        "metrics": {name: asdict(interval) for name, interval in scores.metrics.items()},
        "differences": judge(ours, scores.measured, seed=BOOTSTRAP_SEED),
        "cost": scores.cost.to_json(),
        "details": dict(scores.details),
        "shown": [shot.where for shot in question.shots],
        "notes": list(asked.notes),
        "basis": dict(question.basis),
    }


def _shots(rows: HeldOutRows, count: int, examples: Sequence[Example]) -> tuple[Example, ...]:
    """``count`` rows of the training data. Raises: UsageError, where there is none; as `choose_shots`."""
    if count == 0:
        return ()
    if rows.recipe is None:
        raise UsageError(
            "examples come from training data, and a file of rows has none",
            where="--shots",
            remedy="give --recipe RECIPE in place of --data, or leave out --shots",
        )
    train = source_of(rows.recipe.data, "train", commits=rows.commits).own
    answer_after = next((task.answer_after for task in rows.tasks), None)
    return choose_shots(iterate(train), count, seed=rows.recipe.seed, held_out=examples, answer_after=answer_after)
