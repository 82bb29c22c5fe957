"""A run onto the hub: what would be uploaded is gathered and shown; only when asked for does it leave the machine.

Refused where the run's rows hold private data, unless the owner accepts that, since a tuned model can repeat what it
learned; where they cannot be looked at; where the base's licence forbids it; and where a file names a folder of this
machine. Gathering makes all that is uploaded, so that what is shown is what goes: for a fused model or a GGUF file that
takes its time and its room on the disk.
"""

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
from mlxtune.data.scan import ScanReport, scan_files
from mlxtune.deployment.export.gguf import export_gguf
from mlxtune.deployment.export.model_card import CardFacts, What, model_card
from mlxtune.deployment.export.peft import export_peft
from mlxtune.deployment.fuse_run import fuse_run
from mlxtune.deployment.tuned import Tuned, find_tuned
from mlxtune.errors import DataError, ModelError, RunError, UsageError
from mlxtune.files import sha256_of, write_json, write_text
from mlxtune.models import catalogue
from mlxtune.models.hub import parse_hub_name
from mlxtune.models.hub_upload import Uploaded, upload
from mlxtune.models.licence import Licence, check_licence_name, licence_in, notices_in
from mlxtune.models.source import hub_repository
from mlxtune.network import require_online
from mlxtune.progress import Progress, silent
from mlxtune.recipe.load import load_recipe
from mlxtune.recipe.schema import Recipe
from mlxtune.runs.folder import RunFolder, open_run

CARD, NOTICE = "README.md", "NOTICE"
LEARNED = ("train", "valid")
"""Splits whose rows made the model what it is."""
CONFIGS = ("config.json", "adapter_config.json", "tokenizer_config.json", "generation_config.json")
PLACES = ("_name_or_path", "name_or_path", "base_model_name_or_path")
"""Keys of these configs that hold a repository's name, or a folder."""
LOOKED_AT = 64 << 20
"""Bytes of a file that are searched for this machine's folders: names stand at the head of files of weights."""
FOLDERS = re.compile(rb"(?:/Users/|/home/|/private/var/|[A-Za-z]:\\{1,2}Users\\{1,2})[\w.-]+")
VOCABULARIES = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer.model")
"""Files whose words are not ours to judge."""


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
    """What a scan of the run's rows found, by kind; accepted, if it is anything."""
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
        accept_findings: though the run's rows hold private data, or cannot be scanned.
        accept_loss: as of `fuse_run` and `export_gguf`.
        base_model: the base's repository on the hub, for a base that is a folder here.
        base_license: the base's, where nothing here says it.
        regions, terms: as of `scan_file`.
        force: add a commit to a repository that has files.

    Raises: UsageError, for names; DataError, for findings that are not accepted; ModelError, where the licence forbids
        it, or is not known and something is to be uploaded; RunError, for a run that is not finished, or a file that
        names a folder of this machine; and as `find_tuned`, `fuse_run`, `export_gguf` and `upload`.
    """
    if parse_hub_name(repo) is None or "@" in repo:
        raise UsageError(f"{repo!r} is no name of a repository", where="REPO", remedy="write it as account/name")
    if really:
        require_online(f"the upload to {repo}", need="needs the hub")
    opened = open_run(Path(run))
    recipe = load_recipe(opened.resolved).recipe
    opened.finished_adapter()
    report = _scan(opened, recipe, regions, terms, progress)
    _check_findings(report, opened, accepted=accept_findings)
    tuned = find_tuned(run, progress=progress)
    base = _base_on_the_hub(tuned, base_model)
    licence = _licence(tuned, base_license)
    _check_licence(licence, repo, really=really, where=tuned.base.path)
    with _staging() as folder:
        notes = _gather(folder, what, tuned, base, accept_loss=accept_loss, device=device, progress=progress)
        for notice in notices_in(tuned.base.path):
            shutil.copyfile(notice, folder / notice.name)
        if licence is not None and licence.notice is not None and not (folder / NOTICE).exists():
            write_text(folder / NOTICE, licence.notice)
        facts = CardFacts(
            repo=repo,
            what=what,
            recipe=recipe,
            manifest=opened.read_manifest(),
            rows=_count_rows(recipe),
            scores=_current_scores(opened),
            base_model=base,
            licence=licence,
            has_system=tuned.prompting.system is not None,
        )
        card = model_card(facts)
        write_text(folder / CARD, card)
        _check_places(folder, (opened.path, tuned.base.path, folder, Path.home()))
        files = [
            HubFile(path.relative_to(folder).as_posix(), path.stat().st_size)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        ]
        message = f"Upload by mlxtune {version('mlxtune')}"
        done = upload(folder, repo, public=public, force=force, message=message, progress=progress) if really else None
    if base is None:
        lost = "nobody else can load this" if what == "adapter" else "the card does not name it"
        notes.append(f"the base is a folder here, so {lost}: say what it is on the hub with --base-model org/name")
    if licence is None:
        notes.append("the base's licence is not known: say it with --base-license, such as apache-2.0")
    found = {} if report is None else report.counts
    private = done.private if done else not public
    return HubReport(repo, what, private, files, card, licence.id if licence else None, found, notes, done)


def _scan(
    run: RunFolder, recipe: Recipe, regions: Sequence[str], terms: Sequence[str], progress: Progress
) -> ScanReport | None:
    """What the rows hold that the model learned from; None where they are gone or have changed."""
    hashes = run.read_manifest()["inputs"]["data"]
    paths = {split: getattr(recipe.data, split) for split in LEARNED if getattr(recipe.data, split) is not None}
    if not all(path.is_file() and sha256_of(path) == hashes.get(split) for split, path in paths.items()):
        return None
    return scan_files(paths, regions=regions, terms=terms, progress=progress)


def _check_findings(report: ScanReport | None, run: RunFolder, *, accepted: bool) -> None:
    if accepted or (report is not None and not report.total):
        return
    accept = "add --accept-findings if it may leave this machine all the same"
    if report is None:
        raise DataError(
            "the rows that the model was trained on are gone or have changed, so nobody can say what is in them",
            where=run.resolved,
            remedy=f"put them back; or {accept}",
        )
    counts = ", ".join(f"{count} {kind}" for kind, count in report.counts.items())
    first = report.findings[0]
    raise DataError(
        f"the rows that the model was trained on hold private data ({counts}), which it can repeat",
        where=f"{first.file}:{first.line}",
        remedy=f"see it with mlxtune data scan {run.resolved}, redact and train again; or {accept}",
    )


def _base_on_the_hub(tuned: Tuned, named: str | None) -> str | None:
    """The base's repository."""
    if named is not None:
        name = parse_hub_name(named)
        if name is None:
            raise UsageError(f"{named!r} is no model of the hub", where="--base-model", remedy="write it as org/name")
        return name.repo
    return hub_repository(tuned.base.source)


def _licence(tuned: Tuned, said: str | None) -> Licence | None:
    """The base's licence: the catalogue's, the folder's, or the one that the user says."""
    entry = catalogue.entry(tuned.base.source)
    found = licence_in(tuned.base.path) if entry is None else Licence(entry.licence.lower(), "the catalogue")
    if said is None:
        return found
    name = check_licence_name(said)
    if found is not None and found.id != name:
        raise UsageError(
            f"the base's licence is {found.id} ({found.found} says so), not {name}",
            where="--base-license",
            remedy="leave out --base-license",
        )
    return Licence(name, "--base-license")


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
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        with path.open("rb") as file:
            content = file.read(LOOKED_AT)
        is_text = path.suffix in (".json", ".md", ".jinja", "") and path.name not in VOCABULARIES
        if any(place in content for place in wanted) or (is_text and FOLDERS.search(content)):
            raise RunError(
                "this file would name a folder of this machine on the hub",
                where=path.name,
                remedy="take the path out of the base model's or the run's file of that name, and run again",
            )


def _current_scores(run: RunFolder) -> Mapping[str, Any] | None:
    """The run's scores, if they are of its adapter."""
    scores = run.read_scores()
    weights = run.adapter / "adapters.safetensors"
    if scores is None or not weights.is_file() or scores["basis"].get("adapter_sha256") != sha256_of(weights):
        return None
    return scores


def _count_rows(recipe: Recipe) -> dict[str, int]:
    """Lines that hold something, of each split that is there."""
    counts: dict[str, int] = {}
    for split in ("train", "valid", "test"):
        path: Path | None = getattr(recipe.data, split)
        if path is not None and path.is_file():
            with path.open("rb") as file:
                counts[split] = sum(bool(line.strip()) for line in file)
    return counts
