"""The rows that a run's model learned from, looked through for private data: its own, and its start's where it has one.

A run that started from another run's adapter gives away what that one learned too, and so on along the chain. Rows
count as those that were learned, and a start as the one that training had, while their hashes are the recorded ones;
what is gone, has changed, or another program made, nobody can vouch for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlxtune.adapters.format import hash_of_adapter
from mlxtune.data.scan import ScanReport, scan_files
from mlxtune.data.source import hash_of
from mlxtune.errors import DataError, MlxtuneError
from mlxtune.iteration.opening import source_of, splits_of
from mlxtune.progress import Progress
from mlxtune.recipe.load import load_recipe
from mlxtune.runs.folder import RunFolder, is_run_folder, open_run

SPLITS = ("train", "valid")
"""Splits whose rows made the model what it is."""


@dataclass(frozen=True)
class Files:
    """The files that a model learned from."""

    recipes: dict[Path, Path] = field(default_factory=dict)
    """Each with the resolved recipe that names it."""
    unseen: list[tuple[str, Path]] = field(default_factory=list)
    """What nobody can look at: a sentence, and where."""


@dataclass(frozen=True)
class Learned:
    """What was found in the rows that a model learned from."""

    report: ScanReport
    recipes: Mapping[Path, Path]
    unseen: Sequence[tuple[str, Path]]
    """As of `Files`."""

    def check(self) -> None:
        """Raises: DataError, for private data, and for rows that nobody can look at."""
        accept = "add --accept-findings if it may leave this machine all the same"
        if self.report.total:
            counts = ", ".join(f"{count} {kind}" for kind, count in self.report.counts.items())
            first = self.report.findings[0]
            raise DataError(
                f"the rows that the model was trained on hold private data ({counts}), which it can repeat",
                where=f"{first.file}:{first.line}",
                remedy=f"see it with mlxtune data scan {self.recipes[first.file]}, redact and train again; or {accept}",
            )
        if self.unseen:
            what, where = self.unseen[0]
            raise DataError(what, where=where, remedy=f"put back what was there then, if it has changed; or {accept}")


def scan_learned(run: RunFolder, *, regions: Sequence[str], terms: Sequence[str], progress: Progress) -> Learned:
    """Look for private data in all that a run's model learned from. Raises: UsageError, for an unknown region."""
    files = learned_files(run)
    paths = {str(number): path for number, path in enumerate(files.recipes)}
    report = scan_files(paths, regions=regions, terms=terms, progress=progress)
    return Learned(report, files.recipes, files.unseen)


def learned_files(run: RunFolder) -> Files:
    """The files of rows that a run learned from, those of the runs before it included."""
    files = Files()
    seen: set[Path] = set()
    before: RunFolder | None = run
    while before is not None and before.path.resolve() not in seen:
        seen.add(before.path.resolve())
        before = _add_files(before, files)
    return files


def _add_files(run: RunFolder, files: Files) -> RunFolder | None:
    """Take note of one run's files. Returns: the run that it started from, if there is one."""
    recipe, inputs = load_recipe(run.resolved).recipe, run.read_manifest()["inputs"]
    for split in SPLITS:
        if split not in splits_of(recipe.data):
            continue
        try:
            source = source_of(recipe.data, split, commits=inputs.get("data_commits"))
            is_the_same = hash_of(source) == inputs["data"].get(split)
        except (MlxtuneError, OSError):
            source, is_the_same = None, False
        if source is not None and is_the_same:
            files.recipes.update(dict.fromkeys(source.paths, run.resolved))
        else:
            what = (
                f"the {split} rows that the model learned are gone or have changed, so nobody can say what is in them"
            )
            files.unseen.append((what, Path(getattr(recipe.data, split)[0].path)))
    start = recipe.model.adapter
    if start is None:
        return None
    try:
        return _run_at(start, inputs["adapter"]["sha256"])
    except (MlxtuneError, KeyError) as error:
        reason = error.message if isinstance(error, MlxtuneError) else "no hash of it was recorded"
        what = f"training started from an adapter of which nobody can say what rows it had learned: {reason}"
        files.unseen.append((what, start))
        return None


def _run_at(start: Path, sha256: str) -> RunFolder:
    """The run that an adapter is of, named by its own folder or the adapter's.

    Raises: MlxtuneError, in its kinds, if it is no run's, cannot be read, or is another than training started from.
    """
    run = open_run(next((place for place in (start, start.parent) if is_run_folder(place)), start))
    if hash_of_adapter(run.finished_adapter()) != sha256:
        raise DataError("it is another now than it was then")
    load_recipe(run.resolved)
    run.read_manifest()
    return run
