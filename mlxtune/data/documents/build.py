"""A folder of documents into one file of training rows: found, read, cut into passages, drafted about, written.

Text for continued training needs a tokenizer alone. Question-answer pairs, summaries and labels are drafts by a local
model, a batch of passages of one document at a time, so that a build that was killed goes on after the last whole batch
and gives the same file as one that was not. Rows stand in the order of the files and of their texts; what repeats an
earlier row, or asks the same, is left out. The output is there whole or not at all. The texts of all documents are held
in memory at once: a folder of people's documents, not of a crawl.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mlxtune.data.documents.chunk import CHUNK_TOKENS, OVERLAP_TOKENS, Chunk, Count, check_sizes, chunk_document
from mlxtune.data.documents.document import Document, from_json, to_json
from mlxtune.data.documents.draft import (
    MAX_TOKENS,
    MODEL,
    PAIRS,
    Dropped,
    Task,
    drafts_from,
    is_asked_about,
    question_for,
    row_of,
)
from mlxtune.data.documents.find import find_documents
from mlxtune.data.documents.kept import Kept, folder_beside, key_of, open_kept
from mlxtune.data.documents.kinds import check_installed, kind_of, refusal_of
from mlxtune.data.documents.reading import SECONDS, DocumentReader
from mlxtune.data.documents.seen import Seen
from mlxtune.data.documents.unreadable import UnreadableError
from mlxtune.errors import DataError, UsageError
from mlxtune.files import check_new_file, new_file, sha256_of
from mlxtune.progress import Progress, silent

BATCH = 16
REPEATED = "it repeats an earlier one"
NAMED = 5

Ask = Callable[[Sequence[str], int], list[str]]
"""Answers to questions, each of at most so many tokens."""


@dataclass(frozen=True, slots=True)
class FileRead:
    """One document: its place below the folder, and what came of it."""

    file: str
    characters: int
    passages: int
    rows: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FileRefused:
    """One file that gave nothing."""

    file: str
    reason: str
    remedy: str


@dataclass(frozen=True)
class BuildReport:
    """What was written, and what was not."""

    out: Path
    task: Task
    model: str
    rows: int
    passages: int
    tokens: int
    """Of all passages, their context and overlap included."""
    read: tuple[FileRead, ...]
    refused: tuple[FileRefused, ...]
    dropped: dict[str, int]
    """Rows that were not written, by the reason."""


@dataclass(frozen=True)
class Language:
    """A model's tokenizer, and its network where one was wanted."""

    count: Count
    ask: Ask | None
    sha256: str
    """Of the model."""


@dataclass(slots=True)
class _Source:
    """A document on its way."""

    name: str
    key: str
    document: Document
    chunks: list[Chunk] = field(default_factory=list)
    """All of it, or those that are asked about."""


def build_rows(
    folder: Path,
    out: Path,
    task: Task,
    *,
    model: str = MODEL,
    labels: Sequence[str] = (),
    pairs: int = PAIRS,
    chunk_tokens: int = CHUNK_TOKENS,
    overlap_tokens: int = OVERLAP_TOKENS,
    device: str = "auto",
    seconds_per_file: float = SECONDS,
    force: bool = False,
    progress: Progress = silent,
    open_language: Callable[..., Language] | None = None,
) -> BuildReport:
    """Write ``out``, JSON Lines that training reads: ``text`` rows, or ``prompt`` and ``completion`` marked as drafts.

    Each row has a ``document``, by which to keep a document's rows together in a split, and a ``source``: file, pages,
    section, and from which to which character of the document's text.

    Args:
        folder: of documents, or one of them.
        task: ``continue`` takes the text as it is; of the others the model drafts pairs.
        model: whose tokens are counted, and who drafts; a source as everywhere.
        labels: of ``classify``.
        pairs: questions asked for a passage.
        chunk_tokens, overlap_tokens: the longest passage, and how much of it the next one repeats.
        open_language: in place of opening ``model``, for tests.

    Raises: UsageError, for options that do not fit or a missing package; OutputExistsError; DataError, if there is no
        file that can be read; ModelError; NetworkError.
    """
    _check(task, labels, pairs, folder, out)
    check_sizes(chunk_tokens, overlap_tokens)
    check_new_file(out, force=force)
    found = find_documents(folder, leave_out=(out, folder_beside(out)))
    check_installed([path for path in found.files if kind_of(path)])
    root = folder if folder.is_dir() else folder.parent
    refused = [FileRefused(_name(path, root), reason, remedy) for path, reason, remedy in found.refused]
    language = (open_language or open_model_for)(model, drafts=task != "continue", device=device, progress=progress)
    asked = json.dumps([language.sha256, task, list(labels), pairs, chunk_tokens, overlap_tokens, _version()])
    with open_kept(out, asked) as kept:
        sources = _read_all(found.files, root, kept, refused, seconds_per_file, progress)
        if not sources:
            kept.remove()
            raise _none(folder, refused)
        for number, source in enumerate(sources):
            progress("cut into passages: files", number, len(sources))
            source.chunks = chunk_document(
                source.document, language.count, chunk_tokens=chunk_tokens, overlap_tokens=overlap_tokens
            )
        progress("cut into passages: files", len(sources), len(sources))
        if language.ask is not None:
            _ask_about(sources, task, labels, pairs, language.ask, kept, progress)
        report = _write(out, task, model, sources, labels, kept, refused, force=force)
        kept.remove()
    return report


def open_model_for(source: str, *, drafts: bool, device: str, progress: Progress) -> Language:
    """The language of a model; without ``drafts`` its tokenizer alone. Raises: ModelError, NetworkError."""
    from mlxtune.models.source import find_model
    from mlxtune.models.tokenizer import open_tokenizer

    found = find_model(source, progress=progress)
    if not drafts:
        tokenizer = open_tokenizer(found.path)
        return Language(_counter(tokenizer), None, found.sha256)
    from mlxtune.data.example import Message
    from mlxtune.data.render import Renderer
    from mlxtune.device.choose import open_device
    from mlxtune.inference.generate import generate
    from mlxtune.models.load import open_model, precision_to_ask

    opened = open_model(found.path, precision_to_ask(found.path, open_device(device).precision))
    renderer = Renderer(opened.tokenizer)

    def encode(question: str) -> list[int]:
        if opened.tokenizer.has_chat_template:
            return renderer.encode_prompt([Message("user", question)], "a passage")
        return renderer.encode_text(question + "\n\n")

    def ask(questions: Sequence[str], max_tokens: int) -> list[str]:
        prompts = [encode(question) for question in questions]
        found = generate(opened.network, opened.tokenizer, prompts, max_tokens=max_tokens, batch_size=BATCH)
        return [one.text for one in found]

    return Language(_counter(opened.tokenizer), ask, found.sha256)


def _counter(tokenizer: Any) -> Count:
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))


def _version() -> str:
    return version("mlxtune")


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _check(task: Task, labels: Sequence[str], pairs: int, folder: Path, out: Path) -> None:
    if task == "classify" and len(set(labels)) < 2:  # noqa: PLR2004 - one label tells nothing apart
        raise UsageError("to classify, at least two labels are needed", where="--labels", remedy="give --labels a,b,c")
    if task != "classify" and labels:
        raise UsageError("labels go with --task classify", where="--labels", remedy="leave them out")
    if pairs < 1:
        raise UsageError("there is nothing to ask for", where="--pairs", remedy="give 1 or more")
    if out.exists() and folder.exists() and out.samefile(folder):
        raise UsageError("the output would replace what is read", where=out, remedy="choose another place")


def _none(folder: Path, refused: Sequence[FileRefused]) -> DataError:
    if not refused:
        return DataError("the folder holds no file", where=folder, remedy="name the folder of your documents")
    reasons = "; ".join(f"{one.file}: {one.reason}" for one in refused[:NAMED])
    more = f"; and {len(refused) - NAMED} more" if len(refused) > NAMED else ""
    return DataError(
        f"none of the {len(refused)} files could be read: {reasons}{more}",
        where=folder,
        remedy=refused[0].remedy or "name the folder of your documents",
    )


def _read_all(
    paths: Sequence[Path],
    root: Path,
    kept: Kept,
    refused: list[FileRefused],
    seconds: float,
    progress: Progress,
) -> list[_Source]:
    """Every document that can be read; the others go to ``refused``."""
    sources: list[_Source] = []
    with DocumentReader(seconds=seconds) as reader:
        for number, path in enumerate(paths):
            progress("read: files", number, len(paths))
            name = _name(path, root)
            if kind_of(path) is None:
                refused.append(FileRefused(name, *refusal_of(path)))
                continue
            try:
                key = key_of(name, sha256_of(path), _version())
            except OSError as error:
                refused.append(FileRefused(name, f"it cannot be read: {error.strerror}", "get it again"))
                continue
            answer = kept.document(key)
            if answer is None:
                answer = _read(reader, path)
                kept.keep_document(key, answer)
            if "document" in answer:
                sources.append(_Source(name, key, from_json(answer["document"])))
            else:
                refused.append(FileRefused(name, answer["reason"], answer["remedy"]))
    progress("read: files", len(paths), len(paths))
    refused.sort(key=lambda one: one.file)
    return sources


def _read(reader: DocumentReader, path: Path) -> dict[str, Any]:
    try:
        return {"document": to_json(reader.read(path))}
    except UnreadableError as error:
        return {"reason": error.reason, "remedy": error.remedy}


def _ask_about(
    sources: Sequence[_Source],
    task: Task,
    labels: Sequence[str],
    pairs: int,
    ask: Ask,
    kept: Kept,
    progress: Progress,
) -> None:
    """Have an answer about each passage that says enough, and leave the other passages out."""
    for source in sources:
        source.chunks = [chunk for chunk in source.chunks if is_asked_about(chunk)]
    total = sum(len(source.chunks) for source in sources)
    done = 0
    for source in sources:
        there = kept.answers(source.key)
        for first in range(0, len(source.chunks), BATCH):
            batch = source.chunks[first : first + BATCH]
            if first // BATCH >= len(there):
                progress("draft: passages", done, total)
                questions = [question_for(task, chunk.text, labels, pairs) for chunk in batch]
                kept.keep_answers(source.key, ask(questions, MAX_TOKENS[task]))
            done += len(batch)
    progress("draft: passages", total, total)


def _write(
    out: Path,
    task: Task,
    model: str,
    sources: Sequence[_Source],
    labels: Sequence[str],
    kept: Kept,
    refused: Sequence[FileRefused],
    *,
    force: bool,
) -> BuildReport:
    dropped: Counter[str] = Counter()
    seen = Seen()
    read: list[FileRead] = []
    with new_file(out, force=force) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        part.chmod(0o600)
        for source in sources:
            count = 0
            for row, key in _rows(source, task, labels, kept, dropped):
                if seen.is_new(key):
                    count += 1
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                else:
                    dropped[REPEATED] += 1
            document = source.document
            read.append(FileRead(source.name, len(document.text), len(source.chunks), count, document.notes))
    return BuildReport(
        out=out,
        task=task,
        model=model,
        rows=sum(one.rows for one in read),
        passages=sum(one.passages for one in read),
        tokens=sum(chunk.tokens for source in sources for chunk in source.chunks),
        read=tuple(read),
        refused=tuple(refused),
        dropped=dict(sorted(dropped.items())),
    )


def _rows(
    source: _Source, task: Task, labels: Sequence[str], kept: Kept, dropped: Counter[str]
) -> Iterator[tuple[dict[str, Any], str]]:
    """The rows of a document, each with the text by which a repetition is known."""
    if task == "continue":
        for chunk in source.chunks:
            yield {"text": chunk.text, "document": source.name, "source": _source(source, chunk)}, chunk.body
        return
    answers = [answer for batch in kept.answers(source.key) for answer in batch]
    for chunk, answer in zip(source.chunks, answers, strict=True):
        for draft in drafts_from(task, answer, chunk, labels):
            if isinstance(draft, Dropped):
                dropped[draft.reason] += 1
            else:
                yield row_of(draft, chunk, _source(source, chunk)), draft.prompt


def _source(source: _Source, chunk: Chunk) -> dict[str, Any]:
    pages = {} if chunk.first_page is None else {"pages": [chunk.first_page, chunk.last_page]}
    section = " > ".join(name.lstrip("# ") for name in chunk.section)
    return {"file": source.name, **pages, "section": section, "start": chunk.start, "end": chunk.end}
