"""A run onto the hub: what would be uploaded is gathered and shown; only when asked for does it leave the machine.

Refused where the rows that it learned hold private data, unless the owner accepts that, since a tuned model can repeat
what it learned; where they cannot be looked at; where the base's licence forbids it; and where a file names a folder of
this machine. Gathering makes all that is uploaded, so that what is shown is what goes: for a fused model or a GGUF file
that takes its time and its room on the disk.
"""

import contextlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mlxtune.data.detectors import REGIONS
from mlxtune.data.read import read_stream
from mlxtune.deployment.export.gguf import export_gguf
from mlxtune.deployment.export.learned import Learned, scan_learned
from mlxtune.deployment.export.model_card import CardFacts, What, model_card
from mlxtune.deployment.export.peft import export_peft
from mlxtune.deployment.fuse_run import fuse_run
from mlxtune.deployment.tuned import Tuned, find_tuned
from mlxtune.errors import DataError, ModelError, NetworkError, RunError, UsageError
from mlxtune.files import sha256_of, write_json, write_text
from mlxtune.iteration.opening import source_of, splits_of
from mlxtune.models import catalogue
from mlxtune.models.hub import parse_hub_name
from mlxtune.models.hub_upload import Uploaded, upload
from mlxtune.models.licence import Licence, check_licence_name, licence_in, notices_in
from mlxtune.models.source import hub_repository
from mlxtune.network import require_online
from mlxtune.progress import Progress, silent
from mlxtune.recipe.load import load_recipe
from mlxtune.recipe.schema import Recipe
from mlxtune.runs.folder import RunFolder, open_run, weights_of

CARD, NOTICE = "README.md", "NOTICE"
CONFIGS = ("config.json", "adapter_config.json", "tokenizer_config.json", "generation_config.json")
PLACES = ("_name_or_path", "name_or_path", "base_model_name_or_path")
"""Keys of these configs that hold a repository's name, or a folder."""
LOOKED_AT = 64 << 20
"""Bytes of a file that are searched for this machine's folders: names stand at the head of files of weights."""
FOLDERS = re.compile(rb"(?<![\w.-])(?:/Users/|/home/|/private/var/|[A-Za-z]:\\{1,2}Users\\{1,2})[\w.-]+")
VOCABULARIES = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer.model")
"""Files whose words are not ours to judge."""
TEXTS = (".json", ".md", ".txt", ".jinja", "")
"""Endings of files that are for people, or say what a model is."""


@dataclass(frozen=True)
class HubFile:
    """A file as it is in the repository."""

    name: str
    bytes: int


@dataclass(frozen=True)
class HubReport:
    """What is, or would be, on the hub."""

    repo: str
    what: What
    private: bool
    files: list[HubFile]
    card: str
    licence: str | None
    found: dict[str, int]
    """What a scan of the rows that the model learned found, by kind; accepted, if it is anything."""
    notes: list[str] = field(default_factory=list)
    uploaded: Uploaded | None = None
    """None for a dry run."""

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


def export_hub(
    run: str | Path,
    repo: str,
    *,
    what: What = "adapter",
    public: bool = False,
    really: bool = False,
    accept_findings: bool = False,
    accept_loss: bool = False,
    base_model: str | None = None,
    base_license: str | None = None,
    regions: Sequence[str] = REGIONS,
    terms: Sequence[str] = (),
    device: str = "auto",
    force: bool = False,
    progress: Progress = silent,
) -> HubReport:
    """Gather what a finished run is to be on the hub, and upload it if that is ``really`` wanted.

    Args:
        repo: ``account/name``.
        what: the adapter alone, the fused model, or the same as one GGUF file.
        public: all may read it; private otherwise.
        accept_findings: though the rows that it learned hold private data, or cannot be scanned.
        accept_loss: as of `fuse_run` and `export_gguf`; not for an adapter alone.
        base_model: the base's repository on the hub, for a base that is a folder here.
        base_license: the base's, where neither the catalogue nor its card says it; counts for more than what the text
            of a licence reads like.
        regions, terms: as of `scan_file`.
        force: add a commit to a repository that has files.

    Raises: UsageError, for names and what does not go together; DataError, for findings that are not accepted;
        ModelError, where the licence forbids it, or is not known and something is to be uploaded; RunError, for a run
        that is not finished, or a file that names a folder of this machine; and as `find_tuned`, `fuse_run`,
        `export_gguf` and `upload`.
    """
    _check_asked(repo, what, accept_loss=accept_loss)
    if really:
        require_online(f"the upload to {repo}", need="needs the hub")
    opened = _open_finished(Path(run))
    learned = scan_learned(opened, regions=regions, terms=terms, progress=progress)
    if not accept_findings:
        learned.check()
    tuned = find_tuned(run, progress=progress)
    base = _base_on_the_hub(tuned, base_model)
    licence, notes = _licence(tuned, base_license)
    _check_licence(licence, repo, really=really, where=tuned.base.path)
    notes += _notes(learned, what, base)
    with _staging() as folder:
        notes += _gather(folder, what, tuned, base, accept_loss=accept_loss, device=device, progress=progress)
        _add_notices(folder, tuned.base.path, licence)
        card = model_card(_facts(repo, what, opened, tuned, base, licence))
        write_text(folder / CARD, card)
        _check_places(folder, (opened.path, tuned.base.path, folder, Path.home()))
        files = [HubFile(path.relative_to(folder).as_posix(), path.stat().st_size) for path in _files(folder)]
        message = f"Upload by mlxtune {version('mlxtune')}"
        done = upload(folder, repo, public=public, force=force, message=message, progress=progress) if really else None
    private = done.private if done else not public
    found = learned.report.counts
    return HubReport(repo, what, private, files, card, licence.id if licence else None, found, notes, done)


def _check_asked(repo: str, what: What, *, accept_loss: bool) -> None:
    """Raises: UsageError."""
    if parse_hub_name(repo) is None or "@" in repo:
        raise UsageError(f"{repo!r} is no name of a repository", where="REPO", remedy="write it as account/name")
    if accept_loss and what == "adapter":
        raise UsageError(
            "an adapter alone loses nothing: nothing is merged", where="--accept-loss", remedy="leave it out"
        )


def _open_finished(path: Path) -> RunFolder:
    """Raises: RunError, if there is no such run, or training has not come to its end."""
    run = open_run(path)
    run.finished_adapter()
    if not run.is_finished:
        remedy = f"finish it: mlxtune train --resume {run.path}"
        raise RunError("the run has not come to its end yet", where=run.path, remedy=remedy)
    return run


def _notes(learned: Learned, what: What, base: str | None) -> list[str]:
    """What was not looked for, what could not be, and what others lack."""
    regions = ", ".join(learned.report.regions) or "no country"
    notes = [f"national telephone and identity numbers of {regions} alone were looked for; --regions names others"]
    notes += [f"{sentence} ({where})" for sentence, where in learned.unseen]
    if base is None:
        lost = "nobody else can load this" if what == "adapter" else "the card does not name it"
        notes.append(f"the base is a folder here, so {lost}: say what it is on the hub with --base-model org/name")
    return notes


def _base_on_the_hub(tuned: Tuned, named: str | None) -> str | None:
    """The base's repository."""
    if named is not None:
        name = parse_hub_name(named)
        if name is None:
            raise UsageError(f"{named!r} is no model of the hub", where="--base-model", remedy="write it as org/name")
        return name.repo
    return hub_repository(tuned.base.source)


def _licence(tuned: Tuned, said: str | None) -> tuple[Licence | None, list[str]]:
    """The base's licence: the catalogue's, the folder's, or the one that the user says; and what to know of that."""
    entry = catalogue.entry(tuned.base.source)
    found = licence_in(tuned.base.path) if entry is None else Licence(entry.licence.lower(), "the catalogue")
    if said is None:
        unknown = "the base's licence is not known: say it with --base-license, such as apache-2.0"
        return found, [] if found else [unknown]
    name = check_licence_name(said)
    licence = Licence(name, "--base-license")
    if found is None or found.id == name:
        return licence, []
    if found.is_guess:
        return licence, [f"the base's {found.found} reads like {found.id}; --base-license says {name}, and counts"]
    raise UsageError(
        f"the base's licence is {found.id} ({found.found} says so), not {name}",
        where="--base-license",
        remedy="leave out --base-license",
    )


def _check_licence(licence: Licence | None, repo: str, *, really: bool, where: Path) -> None:
    if licence is None:
        if really:
            raise ModelError(
                "the base's licence is not known, and what may be done with it depends on that",
                where=where,
                remedy="look it up where the base comes from, and say it with --base-license, such as apache-2.0",
            )
        return
    if licence.forbids_derivatives:
        raise ModelError(
            f"the base's licence, {licence.id}, forbids passing on models made from it",
            where=where,
            remedy="keep the model here, or train on a base with another licence",
        )
    beginning = licence.name_begins_with
    if beginning is not None and not repo.rpartition("/")[2].startswith(beginning):
        owner, _, name = repo.partition("/")
        raise ModelError(
            f"the base's licence, {licence.id}, asks that the model's name begins with {beginning}",
            where=repo,
            remedy=f"call it {owner}/{beginning}-{name}",
        )


@contextmanager
def _staging() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mlxtune-hub-") as folder:
        yield Path(folder) / "model"


def _gather(
    folder: Path, what: What, tuned: Tuned, base: str | None, *, accept_loss: bool, device: str, progress: Progress
) -> list[str]:
    """Make ``folder`` with the model in it, and say what does not hold everywhere."""
    assert tuned.run is not None
    notes: list[str] = []
    if what == "adapter":
        cannot = export_peft(tuned.run.path, folder).cannot_open
        notes += [f"{program} cannot open it: {reason}" for program, reason in cannot.items()]
    elif what == "fused":
        fuse_run(tuned.run.path, folder, accept_loss=accept_loss, device=device, progress=progress)
    else:
        folder.mkdir()
        file = folder / f"{tuned.run.path.resolve().name}-f16.gguf"
        notes += export_gguf(tuned.run.path, file, accept_loss=accept_loss, device=device, progress=progress).notes
    for name in CONFIGS:
        if (folder / name).is_file():
            _clean_places(folder / name, base)
    if tuned.prompting.system is not None and what != "gguf":
        notes.append("mlxtune.json holds the system message that training began every chat with")
    return notes


def _clean_places(config: Path, base: str | None) -> None:
    """Let a config name the base's repository, or nothing, where it names a folder."""
    values = json.loads(config.read_text(encoding="utf-8"))
    changed = dict(values)
    for key in PLACES:
        named = values.get(key)
        if key == "base_model_name_or_path" and key in values:
            changed[key] = base or ""
        elif isinstance(named, str) and (parse_hub_name(named) is None):
            del changed[key]
    if changed != values:
        write_json(config, changed)


def _check_places(folder: Path, places: Sequence[Path]) -> None:
    """Raises: RunError, for a file that names a folder of this machine."""
    whole = {str(place) for place in places} | {str(place.resolve()) for place in places}
    named = [place for place in whole if len(Path(place).parts) > 1]
    wanted = [ending.encode() for place in named for ending in (f"{place}/", f'{place}"')]
    for path in _files(folder):
        if path.name in VOCABULARIES:
            continue
        with path.open("rb") as file:
            content = file.read(LOOKED_AT)
        is_text = path.suffix.lower() in TEXTS
        if any(place in content for place in wanted) or (is_text and FOLDERS.search(content)):
            raise RunError(
                "this file would name a folder of this machine on the hub",
                where=path.name,
                remedy="take the path out of the base model's or the run's file of that name, and run again",
            )


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _add_notices(folder: Path, base: Path, licence: Licence | None) -> None:
    """Put the base's licence and notices beside the model, and the notice that its licence asks for."""
    for notice in notices_in(base):
        shutil.copyfile(notice, folder / notice.name)
    if licence is not None and licence.notice is not None and not (folder / NOTICE).exists():
        write_text(folder / NOTICE, licence.notice)


def _facts(repo: str, what: What, run: RunFolder, tuned: Tuned, base: str | None, licence: Licence | None) -> CardFacts:
    recipe = load_recipe(run.resolved).recipe
    return CardFacts(
        repo=repo,
        what=what,
        recipe=recipe,
        manifest=run.read_manifest(),
        rows=_count_rows(recipe),
        scores=_current_scores(run),
        base_model=base,
        licence=licence,
        has_system=tuned.prompting.system is not None,
    )


def _current_scores(run: RunFolder) -> Mapping[str, Any] | None:
    """The run's scores, if they are of its adapter."""
    scores = run.read_scores()
    weights = weights_of(run.adapter)
    if scores is None or not weights.is_file() or scores["basis"].get("adapter_sha256") != sha256_of(weights):
        return None
    return scores


def _count_rows(recipe: Recipe) -> dict[str, int]:
    """The rows of each split that is there."""
    counts: dict[str, int] = {}
    for split in splits_of(recipe.data):
        with contextlib.suppress(DataError, NetworkError):
            counts[split] = sum(1 for path in source_of(recipe.data, split).own.paths for _ in read_stream(path))
    return counts
