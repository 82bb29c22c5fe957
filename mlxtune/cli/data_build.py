"""``mlxtune data build``: a folder of documents into training rows."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlxtune.cli.output import Output, output_options
from mlxtune.data.documents.chunk import CHUNK_TOKENS, OVERLAP_TOKENS
from mlxtune.data.documents.draft import MODEL, PAIRS, TASKS
from mlxtune.data.documents.reading import SECONDS
from mlxtune.synced import warning_of_synced

if TYPE_CHECKING:
    from mlxtune.data.documents.build import BuildReport


@click.command("build")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The file to write, JSON Lines.")
@click.option(
    "--task",
    type=click.Choice(TASKS),
    required=True,
    help="continue: the text itself. Of the others a local model drafts rows, for you to review.",
)
@click.option("--labels", metavar="A,B,C", help="The labels to choose from, of --task classify.")
@click.option(
    "--model",
    default=MODEL,
    show_default=True,
    help="Who drafts, and whose tokens are counted: a model source. Drafts by the default are poor; an instruction "
    "model of 3 billion parameters or more is worth reviewing.",
)
@click.option("--pairs", type=click.IntRange(min=1), default=PAIRS, show_default=True, help="Questions for a passage.")
@click.option("--chunk-tokens", type=int, default=CHUNK_TOKENS, show_default=True, help="The longest passage.")
@click.option(
    "--overlap-tokens",
    type=int,
    default=OVERLAP_TOKENS,
    show_default=True,
    help="How much of a passage the next one repeats.",
)
@click.option(
    "--seconds-per-file",
    type=click.FloatRange(min=1),
    default=SECONDS,
    show_default=True,
    help="Then a file is given up.",
)
@click.option("--force", is_flag=True, help="Replace the file at --out.")
@output_options
def command(
    folder: Path,
    out: Path,
    task: Any,
    labels: str | None,
    model: str,
    pairs: int,
    chunk_tokens: int,
    overlap_tokens: int,
    seconds_per_file: float,
    force: bool,
    output: Output,
) -> None:
    """Make training rows of the documents in FOLDER: PDF, DOCX, PPTX, XLSX, HTML, EPUB, Markdown and text.

    A file that cannot be read is listed with the reason. A build that was interrupted goes on where it was, when it is
    started again in the same way. Rows of qa, summarize and classify are drafts: each names the passage that it comes
    from, and what is not borne out by that passage's words is dropped. `mlxtune data split --group-by document` keeps
    passages that overlap on one side.
    """
    from mlxtune.data.documents.build import build_rows

    report = build_rows(
        folder.expanduser(),
        out.expanduser(),
        task,
        model=model,
        labels=tuple(label.strip() for label in (labels or "").split(",") if label.strip()),
        pairs=pairs,
        chunk_tokens=chunk_tokens,
        overlap_tokens=overlap_tokens,
        device=output.device,
        seconds_per_file=seconds_per_file,
        force=force,
        progress=output.progress,
    )
    output.show(document(report), describe(report))
    if warning := warning_of_synced(report.out):
        output.note(warning)
    if report.rows == 0:
        output.note("nothing was kept: the file is empty; drafts need a larger model (--model)")
    elif task != "continue":
        output.note(f"review {report.out} before you train on it: its rows are drafts")


def document(report: "BuildReport") -> dict[str, Any]:
    """As JSON."""
    return {
        "out": report.out,
        "task": report.task,
        "model": report.model,
        "rows": report.rows,
        "passages": report.passages,
        "tokens": report.tokens,
        "read": [asdict(one) for one in report.read],
        "refused": [asdict(one) for one in report.refused],
        "dropped": report.dropped,
    }


def describe(report: "BuildReport") -> str:
    """What a person reads."""
    from mlxtune.printable import printable

    files = f"{len(report.read)} of {len(report.read) + len(report.refused)} files"
    passages = f"{report.passages:,} passage{'s' * (report.passages != 1)} ({report.tokens:,} tokens)"
    rows = f"{report.rows:,} row{'s' * (report.rows != 1)}"
    lines = [f"{report.out}: {rows} of {passages} from {files}"]
    lines += [f"  {printable(one.file)}: {note}" for one in report.read for note in one.notes]
    if report.refused:
        lines.append("not read:")
        for one in report.refused:
            hint = f" ({one.remedy})" if one.remedy else ""
            lines.append(f"  {printable(one.file)}: {one.reason}{hint}")
    if report.dropped:
        lines.append("not kept: " + "; ".join(f"{count} because {reason}" for reason, count in report.dropped.items()))
    return "\n".join(lines)
