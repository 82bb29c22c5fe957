"""Two runs or more side by side: what was set otherwise, and what of the scores differs, row by row where it can be.

The first run is the one that all others are compared with. Where two were scored on the same rows, what each row adds
is paired, as base and tuned model are within a run; where they were not, the figures stand side by side and no verdict
is given. Reads run folders, and no network. The price: whoever takes the best of many runs by their test scores has
chosen by the test rows, and flatters that run; the comparison says so and cannot mend it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from mlxtune.errors import RunError, UsageError
from mlxtune.evaluation.measured import Measured
from mlxtune.evaluation.score import BOOTSTRAP_SEED
from mlxtune.evaluation.verdict import OF_TOKENS, judge
from mlxtune.iteration.scoring.row_scores import read_row_scores
from mlxtune.runs.folder import RunFolder
from mlxtune.runs.listing import RunEntry, read_entry, read_object

OF_A_RUN = ("name",)
"""Keys of a recipe that say nothing of what was done."""
CHOOSING_ROWS = ("format", "columns", "template")
"""Keys of ``data`` that decide what the rows of a file are; `LIMITING_ROWS` do where rows may be left out."""
LIMITING_ROWS = ("max_seq_length", "overflow")
LEAST = 2


@dataclass(frozen=True)
class Setting:
    """A key that is not the same in all runs, and what each has; None where a run has no such key."""

    key: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class MetricOfRuns:
    """One metric of the tuned models. An interval, and a difference, are as scores.json has them.

    ``intervals`` has one a run, None where it was not measured; ``differences`` that run's less the first's, None for
    the first and where the two cannot be compared.
    """

    metric: str
    intervals: tuple[Mapping[str, Any] | None, ...]
    differences: tuple[Mapping[str, Any] | None, ...]


@dataclass(frozen=True)
class Comparison:
    """What there is to say of some runs, the first being the one that the others are compared with."""

    runs: tuple[RunEntry, ...]
    settings: tuple[Setting, ...]
    metrics: tuple[MetricOfRuns, ...]
    notes: tuple[str, ...]
    """Why something is not compared, or not to be relied on."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compare_runs(paths: Sequence[Path]) -> Comparison:
    """Set runs side by side.

    Raises: UsageError, for fewer than two, or one twice; RunError, if one is none, or cannot be read.
    """
    if len(paths) < LEAST:
        raise UsageError("to compare, it takes two runs", remedy="name the run to compare with, then the others")
    if len({path.resolve() for path in paths}) < len(paths):
        raise UsageError("a run is named twice", remedy="name each run once")
    entries = tuple(read_entry(path) for path in paths)
    runs = [RunFolder(path) for path in paths]
    scores = [run.read_scores() for run in runs]
    notes: list[str] = []
    measured = [_rows_of(run, own, notes) for run, own in zip(runs, scores, strict=True)]
    differences = [None, *(_differences(i, scores, measured, runs, notes) for i in range(1, len(runs)))]
    if sum(own is not None for own in scores) > 2:  # noqa: PLR2004 - of two there is one comparison
        notes.append(
            "choosing the best of several runs by these scores flatters it: choose by validation rows, and score the "
            "chosen one on test rows once"
        )
    return Comparison(
        entries, tuple(_settings(runs)), tuple(_metrics(scores, differences)), tuple(dict.fromkeys(notes))
    )


def letters_of(count: int) -> list[str]:
    """Short names of so many runs: A, B, ... Z, then 27, 28."""
    return [ascii_uppercase[i] if i < len(ascii_uppercase) else str(i + 1) for i in range(count)]


def _rows_of(run: RunFolder, scores: Mapping[str, Any] | None, notes: list[str]) -> Mapping[str, Measured] | None:
    """What each row adds to the tuned model's metrics; None where that is not known, and why to the notes."""
    if scores is None:
        notes.append(f"{run.path.name} is not scored: mlxtune evaluate {run.path}")
        return None
    try:
        return read_row_scores(run)["tuned"]
    except (RunError, KeyError):
        notes.append(f"{run.path.name} has no scores of rows to be paired: mlxtune evaluate {run.path} --force")
        return None


def _differences(
    number: int,
    scores: Sequence[Mapping[str, Any] | None],
    measured: Sequence[Mapping[str, Measured] | None],
    runs: Sequence[RunFolder],
    notes: list[str],
) -> dict[str, dict[str, Any]] | None:
    """The run's metrics less the first run's, where they mean the same."""
    first, own = scores[0], scores[number]
    first_rows, own_rows = measured[0], measured[number]
    if first is None or own is None or first_rows is None or own_rows is None:
        return None
    pair = f"{runs[0].path.name} and {runs[number].path.name}"
    if not _same_rows(first["basis"], own["basis"]):
        notes.append(f"{pair} were scored on other rows: their figures stand side by side, and no verdict is given")
        return None
    asked = {name for name in own_rows if _asked_alike(name, first["basis"], own["basis"])}
    if other := [name for name in own_rows if name in first_rows and name not in asked]:
        notes.append(f"{pair} were asked otherwise: {', '.join(other)}")
    found = judge({name: own_rows[name] for name in own_rows if name in asked}, first_rows, seed=BOOTSTRAP_SEED)
    if any(name in first_rows and name in asked and name not in found for name in OF_TOKENS):
        notes.append(f"{pair} cut the text into other tokens: only bits per byte compares their likelihoods")
    return found


def _same_rows(first: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    """Whether two readings are of the same rows in the same order."""
    data, own_data = (basis.get("data") or {} for basis in (first, own))
    limits = () if data.get("overflow") == own_data.get("overflow") == "error" else LIMITING_ROWS
    return (
        first.get("data_sha256") == own.get("data_sha256")
        and first.get("data_template") == own.get("data_template")
        and all(data.get(key) == own_data.get(key) for key in (*CHOOSING_ROWS, *limits))
    )


def _asked_alike(metric: str, first: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    """Whether a task's metric comes of the same question, limit and scorer in both, any other of the same targets."""
    name, dot, _ = metric.rpartition(".")
    return _task(name, first) == _task(name, own) if dot else _targets(first) == _targets(own)


def _targets(basis: Mapping[str, Any]) -> tuple[Any, ...]:
    """What decides which words of the rows the likelihood is of; prompts are in those of a model's own template."""
    train_on = (basis.get("data") or {}).get("train_on")
    return (
        (train_on, basis.get("model_sha256"), basis.get("chat_template")) if train_on == "everything" else (train_on,)
    )


def _task(name: str, basis: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The task whose metrics' names begin with ``name``; a metric's own may hold dots."""
    tasks = [task for task in basis.get("tasks") or () if f"{name}.".startswith(f"{task.get('name')}.")]
    return max(tasks, key=lambda task: len(task["name"]), default=None)


def _metrics(
    scores: Sequence[Mapping[str, Any] | None], differences: Sequence[Mapping[str, Mapping[str, Any]] | None]
) -> Iterator[MetricOfRuns]:
    """Every metric that a run has, the headlines first."""
    tuned = [{} if own is None else own["tuned"] for own in scores]
    headlines = [own["headline"] for own in scores if own is not None and own.get("headline") in own["tuned"]]
    for name in dict.fromkeys([*headlines, *(name for own in tuned for name in own)]):
        yield MetricOfRuns(
            name,
            tuple(own.get(name) for own in tuned),
            tuple(None if own is None else own.get(name) for own in differences),
        )


def _settings(runs: Sequence[RunFolder]) -> Iterator[Setting]:
    """The keys of the recipes, and of what the results depend on besides them, that are not the same in all runs."""
    told = [dict(_flat("", _told(run))) for run in runs]
    for key in dict.fromkeys(key for own in told for key in own):
        values = tuple(own.get(key) for own in told)
        if any(value != values[0] for value in values):
            yield Setting(key, values)


def _told(run: RunFolder) -> dict[str, Any]:
    """All that was set. Raises: RunError, if the recipe cannot be read."""
    try:
        recipe = read_object(run.resolved)
    except (OSError, ValueError) as error:
        raise RunError(f"cannot be read: {error}", where=run.resolved, remedy="leave this run out") from error
    manifest = run.read_manifest()
    inputs = {key: value for key, value in manifest["inputs"].items() if key != run.resolved.name}
    versions = {key: manifest["versions"].get(key) for key in ("mlxtune", "mlx", "mlx-lm")}
    settings = {key: value for key, value in recipe.items() if key not in OF_A_RUN}
    return {**settings, "inputs": inputs, "versions": versions}


def _flat(above: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Dotted keys and their values; a list is one value, unless it holds sections."""
    if isinstance(value, Mapping) and value:
        for key, below in value.items():
            yield from _flat(f"{above}.{key}".lstrip("."), below)
    elif isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
        for number, below in enumerate(value):
            yield from _flat(f"{above}.{number}", below)
    else:
        yield above, value
