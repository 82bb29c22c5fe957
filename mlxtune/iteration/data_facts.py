"""data.json: what a report and its findings say of a run's data, counted once, when the rows are at hand.

Counts, shares, places, and a few training rows as text with their target mask, because a mask has to be seen to be
believed; of what is private only how much of which kind. Knows rendered data sets and the streams they came from;
nothing of a network. Rows are gone through once more as text, and each file once for what is private: the price is
seconds for ten thousand rows, so beyond `SEARCHED_ROWS` near-duplicates, and beyond `SCANNED_BYTES` private data, are
not looked for, and ``not_checked`` says so. What it holds::

    splits: {train | valid | test: {
        rows_read, rows, tokens, target_tokens, kind,
        files: [{name, format, why, weight, rows_read, rows, share, dropped}],    `dataset.FileReport`
        lengths: {min, p50, p90, p99, max}, histogram: [{start, end, rows}],       tokens a row
        dropped: {count, first: [{where, why}]}, truncated: {count, first: [where]},
        labels: {classes, rows, counts: [[label, rows]]} | null,                   most frequent first
        duplicates: rows that say what an earlier one of the split says, near_duplicates: rows nearly so | null,
        system: {of, rows, different} | null}}   of so many rows, those with the most frequent system message; how many
                                                 messages there are
    leakage: {valid | test: {rows, same, asks_same, near, first: [{where, like, similarity}]}}  rows that train has too
    overlap: the same, of test rows that valid has too | null
    masks: [{split, where, tokens, target_tokens, spans: [[text, is_target]], omitted: {after, tokens} | null}]
    privacy: {rows, regions, counts: {kind: found}, by_split: {split: {kind: found}}} | null
    max_seq_length, overflow, train_on, not_checked: [sentence], basis: {data: {split: sha256}}

``labels``, ``duplicates``, ``near_duplicates`` and ``system`` count no rows of replay. ``asks_same`` and ``near`` are
null where near-duplicates were not looked for.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from itertools import groupby
from typing import Any

import numpy as np

from mlxtune.data.dataset import Dataset
from mlxtune.data.detectors import REGIONS
from mlxtune.data.inspect import token_texts
from mlxtune.data.likeness.alike import Alike, find_alike
from mlxtune.data.likeness.duplicates import RowIndex
from mlxtune.data.likeness.repeats import Repeat, find_repeats
from mlxtune.data.likeness.shingles import THRESHOLD
from mlxtune.data.render import Rendered
from mlxtune.data.scan import scan_files
from mlxtune.data.source import Source, hash_of, stream_of
from mlxtune.data.stats import bins_between, histogram, lengths_of
from mlxtune.data.store.rows import facts_of
from mlxtune.data.survey.survey import Survey, survey
from mlxtune.errors import DataError
from mlxtune.files import write_json
from mlxtune.iteration.opening import find_base, render_rows, source_of, splits_of
from mlxtune.models.chat_template import FILE
from mlxtune.models.tokenizer import open_tokenizer
from mlxtune.offline import network_off
from mlxtune.progress import Progress, silent
from mlxtune.recipe.load import load_recipe
from mlxtune.recipe.schema import DataSettings
from mlxtune.runs.folder import RunFolder

SEARCHED_ROWS = 200_000
"""Of all splits; with more, near-duplicates are `mlxtune data validate`'s to find."""
SCANNED_BYTES = 200_000_000
"""Of all files; with more, private data are `mlxtune data scan`'s to find."""
FIRST = 20
"""Rows that are named of each kind."""
LABELS = 100
"""Classes that are named, the most frequent."""
MASK_TOKENS = 600
"""Of a row whose mask is shown; of a longer one the middle is left out."""
MASK_TAIL = 150
SYSTEMS = 1000
"""Different system messages that are told apart."""


def data_facts(
    settings: DataSettings,
    sources: Mapping[str, Source],
    datasets: Mapping[str, Dataset],
    tokenizer: Any,
    *,
    progress: Progress = silent,
) -> dict[str, Any]:
    """The content of data.json.

    Args:
        sources, datasets: by split, train first; the data sets as training has them.
        tokenizer: mlx_lm's TokenizerWrapper that they were rendered with.

    Raises: DataError, if the rows have gone.
    """
    not_checked = []
    searches = sum(dataset.report.rows_read for dataset in datasets.values()) <= SEARCHED_ROWS
    if not searches:
        not_checked.append(
            f"rows that are nearly the same, among more than {SEARCHED_ROWS:,}: `mlxtune data validate` looks for them"
        )
    with RowIndex(threshold=THRESHOLD if searches else 1) as index:
        said = {
            split: _survey(dataset, index if searches else None, number, split, progress)
            for number, (split, dataset) in enumerate(datasets.items())
        }
        alike = _find_alike(index, list(datasets), progress) if searches else None
    privacy = _privacy(sources, not_checked, progress)
    return {
        "splits": {
            split: _split(dataset, sources[split], said[split], alike, split) for split, dataset in datasets.items()
        },
        "leakage": {split: _leakage(said, alike, split, "train") for split in datasets if split != "train"},
        "overlap": _leakage(said, alike, "test", "valid") if {"valid", "test"} <= datasets.keys() else None,
        "masks": [_mask(row, tokenizer) for row in _to_show(datasets["train"])],
        "privacy": privacy,
        "max_seq_length": settings.max_seq_length,
        "overflow": settings.overflow,
        "train_on": settings.train_on,
        "not_checked": not_checked,
        "basis": {"data": {split: hash_of(source) for split, source in sources.items()}},
    }


def write_data_facts(run: RunFolder, facts: Mapping[str, Any]) -> None:
    """Put them into the run's folder."""
    write_json(run.data, facts)


def facts_of_run(run: RunFolder, *, progress: Progress = silent) -> dict[str, Any]:
    """The same of a run that has none, from what it was trained on; nothing is fetched for it.

    Raises: MlxtuneError, in its kinds, if the model or the rows are not at hand, or not what they were.
    """
    data = load_recipe(run.resolved).recipe.data
    inputs = run.read_manifest()["inputs"]
    with network_off(when=True):
        sources = {
            split: source_of(data, split, commits=inputs.get("data_commits"), progress=progress)
            for split in splits_of(data)
        }
        for split, source in sources.items():
            if hash_of(source) != inputs["data"][split]:
                remedy = "put them back: a report of other rows than the run was trained on would mislead"
                raise DataError(f"the {split} rows have changed since the run", where=source.path, remedy=remedy)
        folder = find_base(run, progress=progress).path
    template = run.adapter / FILE
    tokenizer = open_tokenizer(folder, template if template.is_file() else data.chat_template)
    datasets = {
        split: render_rows(data, stream_of(source), tokenizer, source.path, tokenizer_folder=folder, progress=progress)
        for split, source in sources.items()
    }
    return data_facts(data, sources, datasets, tokenizer, progress=progress)


def _survey(dataset: Dataset, index: RowIndex | None, number: int, split: str, progress: Progress) -> Survey:
    own, replay = (dataset.stream.rows(replay=is_replay) for is_replay in (False, True))
    total = dataset.report.rows_read
    return survey(own, index, number, replay=replay, name=split, total=total, progress=progress)


def _find_alike(index: RowIndex, names: list[str], progress: Progress) -> dict[tuple[str, str], list[Alike]]:
    """Rows that are like an earlier one, by their split and the earlier one's."""
    index.finish()
    return {(names[own], names[earlier]): found for (own, earlier), found in find_alike(index, progress).items()}


def _split(
    dataset: Dataset,
    source: Source,
    said: Survey,
    alike: Mapping[tuple[str, str], list[Alike]] | None,
    split: str,
) -> dict[str, Any]:
    report, lengths = dataset.report, lengths_of(dataset.rows)
    classes = said.classes
    return {
        "rows_read": report.rows_read,
        "rows": report.rows,
        "tokens": report.tokens,
        "target_tokens": report.target_tokens,
        "kind": report.kind,
        "files": [asdict(file) for file in report.files],
        "lengths": asdict(lengths),
        "histogram": [asdict(part) for part in histogram(dataset.rows, bins_between(lengths.min, lengths.max))],
        "dropped": {"count": len(report.dropped), "first": [asdict(row) for row in report.dropped[:FIRST]]},
        "truncated": {"count": len(report.truncated), "first": list(report.truncated[:FIRST])},
        "labels": None
        if classes is None
        else {
            "classes": len(classes.counts),
            "rows": classes.rows,
            "counts": [list(one) for one in classes.counts[:LABELS]],
        },
        "duplicates": _count_own(find_repeats(said.fingerprints), source),
        "near_duplicates": None if alike is None else _count_own(alike.get((split, split), ()), source),
        "system": _system(dataset),
    }


def _count_own(found: Iterable[Repeat | Alike], source: Source) -> int:
    """How many of these rows are not of replay."""
    replay = {str(path) for path in source.replay.paths} if source.replay is not None else set()
    return sum(row.where.rpartition(":")[0] not in replay for row in found)


def _system(dataset: Dataset) -> dict[str, int] | None:
    """Of the rows but replay's, how many begin with the system message that most have; None where none has any."""
    counts: Counter[str] = Counter()
    rows = 0
    for row in dataset.examples(replay=False):
        rows += 1
        if row.messages and row.messages[0].role == "system":
            text = row.messages[0].content
            counts[text if text in counts or len(counts) < SYSTEMS else ""] += 1
    return {"of": rows, "rows": max(counts.values()), "different": len(counts)} if counts else None


def _leakage(
    said: Mapping[str, Survey], alike: Mapping[tuple[str, str], list[Alike]] | None, split: str, earlier: str
) -> dict[str, Any]:
    """Rows of a split that an earlier one has too; each is counted once, as what it is most surely."""
    same = find_repeats(said[split].fingerprints, said[earlier].fingerprints)
    known = {row.where for row in same}  # one that several splits have is found alike, too
    near = None if alike is None else [row for row in alike.get((split, earlier), []) if row.where not in known]
    named = [{"where": row.where, "like": row.repeats, "similarity": 1.0} for row in same]
    named += [asdict(row) for row in sorted(near or (), key=lambda row: -row.similarity)]
    return {
        "rows": len(said[split].fingerprints),
        "same": len(same),
        "asks_same": None if near is None else sum(row.similarity == 1 for row in near),
        "near": None if near is None else sum(row.similarity < 1 for row in near),
        "first": named[:FIRST],
    }


def _privacy(sources: Mapping[str, Source], not_checked: list[str], progress: Progress) -> dict[str, Any] | None:
    size = sum(path.stat().st_size for source in sources.values() for path in source.paths)
    if size > SCANNED_BYTES:
        not_checked.append(
            f"private data, in files of more than {SCANNED_BYTES // 10**6} MB: `mlxtune data scan` looks for them"
        )
        return None
    reports = {
        split: scan_files({str(number): path for number, path in enumerate(source.paths)}, progress=progress)
        for split, source in sources.items()
    }
    counts = sum((Counter(report.counts) for report in reports.values()), Counter[str]())
    return {
        "rows": sum(report.rows for report in reports.values()),
        "regions": list(REGIONS),
        "counts": {kind: counts[kind] for kind in sorted(counts)},
        "by_split": {split: report.counts for split, report in reports.items()},
    }


def _to_show(train: Dataset) -> list[Rendered]:
    """The first row, one of middle length, and the longest: where masks go wrong differs between them."""
    by_length = np.argsort(facts_of(train.rows).length, kind="stable")
    chosen = dict.fromkeys([0, int(by_length[len(by_length) // 2]), int(by_length[-1])])
    return [train.rows[number] for number in chosen]


def _mask(row: Rendered, tokenizer: Any) -> dict[str, Any]:
    """A row as training has it, in runs of tokens that are all learned or all only read."""
    length = len(row.token_ids)
    head, tail = (length, length) if length <= MASK_TOKENS else (MASK_TOKENS - MASK_TAIL, length - MASK_TAIL)
    beginning, end = (_spans(row, tokenizer, *part) for part in ((0, head), (tail, length)))
    return {
        "split": "train",
        "where": row.where,
        "tokens": length,
        "target_tokens": int(row.is_target.sum()),
        "spans": beginning + end,
        "omitted": {"after": len(beginning), "tokens": tail - head} if tail > head else None,
    }


def _spans(row: Rendered, tokenizer: Any, start: int, end: int) -> list[tuple[str, bool]]:
    texts = token_texts(row.token_ids[start:end].tolist(), tokenizer)
    masked = zip(texts, row.is_target[start:end].tolist(), strict=True)
    return [("".join(text for text, _ in run), is_target) for is_target, run in groupby(masked, key=lambda one: one[1])]
