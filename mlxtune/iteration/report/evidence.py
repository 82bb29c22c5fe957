"""All that a run's folder says of itself, read for its report; and what is not there, with the command that makes it.

Knows the folder's files; nothing of how they are drawn, and loads no network. A file that is damaged is as good as one
that is missing, and told so. The price of reading plain values is that whoever draws them has to know their keys, which
are those of the files themselves.
"""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mlxtune.errors import RunError
from mlxtune.files import sha256_of
from mlxtune.runs.folder import AS_WRITTEN, RunFolder, weights_of
from mlxtune.runs.metrics import read_metrics

Kind = TypeVar("Kind", dict[str, Any], list[Any])
SCORED = "scores, answers side by side, forgetting"
"""What scoring makes."""


@dataclass(frozen=True)
class Missing:
    """Something that a report would show: why it cannot, and the command that makes it; empty where none does."""

    what: str
    why: str
    command: str = ""


@dataclass(frozen=True)
class Evidence:
    """A run, as its files tell of it. None, or empty, is what is not there."""

    run: RunFolder
    manifest: Mapping[str, Any]
    recipe: Mapping[str, Any]
    """With every default filled in."""
    recipe_text: str
    metrics: Sequence[Mapping[str, Any]]
    scores: Mapping[str, Any] | None
    samples: Sequence[Mapping[str, Any]]
    data: Mapping[str, Any] | None
    findings: Sequence[Mapping[str, Any]] | None
    lm_eval: Mapping[str, Any] | None
    """What lm-evaluation-harness says of this adapter and its base."""
    missing: Sequence[Missing]

    @property
    def finished(self) -> Mapping[str, Any] | None:
        """How training ended; None until it has."""
        return self.manifest.get("finished")

    @property
    def steps(self) -> list[Mapping[str, Any]]:
        """The lines of metrics.jsonl that tell of an update."""
        return [line for line in self.metrics if "loss" in line]

    @property
    def validations(self) -> list[Mapping[str, Any]]:
        return [line for line in self.metrics if "valid_loss" in line]


def read_evidence(run: RunFolder, *, no_data: str = "") -> Evidence:
    """What the run's files say.

    Args:
        no_data: why there is no data.json, where that was found out.

    Raises: RunError, if run.json or recipe.resolved.json is not as mlxtune wrote it.
    """
    manifest = run.read_manifest()
    recipe = _read(run.resolved, dict)
    if recipe is None:
        raise RunError("cannot be read", where=run.resolved, remedy=AS_WRITTEN)
    scores, data, findings = run.read_scores(), _read(run.data, dict), _read(run.findings, list)
    missing = []
    if (unfinished := _training_missing(run, manifest)) is not None:
        missing.append(unfinished)
    else:
        if scores is not None and _of_this_adapter(run, scores) is None:
            scores = None
            why = "scores.json tells of another adapter than the one that is here"
            missing.append(Missing(SCORED, why, command("evaluate", run)))
        elif scores is None:
            missing.append(_scores_missing(run, recipe))
        if data is None:
            missing.append(_data_missing(run, no_data))
        if findings is None:
            missing.append(_findings_missing(run))
    samples = [] if scores is None else _lines(run.samples)
    if scores is not None:
        missing += _not_asked(run, scores, samples)
    return Evidence(
        run=run,
        manifest=manifest,
        recipe=recipe,
        recipe_text=_text(run.recipe),
        metrics=[line for line in read_metrics(run.metrics) if isinstance(line, dict)],
        scores=scores,
        samples=samples,
        data=data,
        findings=findings,
        lm_eval=_of_this_adapter(run, _read(run.lm_eval, dict)),
        missing=missing,
    )


def command(verb: str, run: RunFolder, *options: str) -> str:
    """A command line of mlxtune's about this run, to be pasted into a shell."""
    return shlex.join(["mlxtune", verb, *options, str(run.path)])


def _training_missing(run: RunFolder, manifest: Mapping[str, Any]) -> Missing | None:
    if "finished" in manifest and run.adapter.is_dir():
        return None
    return Missing("the end of training", "training has not come to its end", command("train", run, "--resume"))


def _scores_missing(run: RunFolder, recipe: Mapping[str, Any]) -> Missing:
    data = recipe["data"]
    if data.get("test") is None and data.get("valid") is None:
        why = "the recipe names no held-out rows, so nothing can be told of rows that the model never saw"
        return Missing(SCORED, why, "mlxtune data split FILE")
    why = "scores.json is damaged" if run.scores.exists() else "the run was trained, and not scored"
    return Missing(SCORED, why, command("evaluate", run))


def _data_missing(run: RunFolder, why: str) -> Missing:
    damaged = "data.json is damaged" if run.data.exists() else "nothing was written of the rows"
    return Missing("what is told of the data", why or damaged, command("report", run))


def _findings_missing(run: RunFolder) -> Missing:
    why = "findings.json is damaged" if run.findings.exists() else "nobody has looked for them"
    return Missing("findings", why, command("report", run))


def _not_asked(run: RunFolder, scores: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> Iterator[Missing]:
    """What scoring could have asked, and did not, or what of that has gone."""
    if not scores.get("tasks"):
        yield Missing("answers side by side", "the recipe names no task (evaluation.tasks), so none were written")
    elif not samples:
        why = "samples.jsonl is missing or damaged"
        yield Missing("answers side by side", why, command("evaluate", run, "--force"))
    if "forgetting" not in scores:
        why = "no general questions were asked, because the recipe does not want it (evaluation.forgetting)"
        yield Missing("forgetting", why)


def _of_this_adapter(run: RunFolder, measured: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """What was measured, if it was measured of the adapter that is here."""
    weights = weights_of(run.adapter)
    if measured is None or not weights.is_file():
        return None
    basis = measured.get("basis")
    is_of_it = isinstance(basis, dict) and basis.get("adapter_sha256") == sha256_of(weights)
    return measured if is_of_it else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _read(path: Path, kind: type[Kind]) -> Kind | None:
    """The JSON object, or array, in a file; None if there is none, or no such JSON."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, kind) else None


def _lines(path: Path) -> list[Mapping[str, Any]]:
    """The JSON values of a file's lines; none of a file that is not there or not as it was written."""
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        return [line for line in lines if isinstance(line, dict)]
    except (OSError, ValueError, RecursionError):
        return []
