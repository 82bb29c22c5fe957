"""``mlxtune export hub``: shows what a run would be on the hub; ``--upload`` puts it there."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlxtune.cli.data_scan import scan_options, scan_settings
from mlxtune.cli.output import Output, output_options
from mlxtune.printable import printable

if TYPE_CHECKING:
    from mlxtune.deployment.export.hub import HubReport


@click.command("hub")
@click.argument("run")
@click.argument("repo")
@click.option(
    "--what",
    type=click.Choice(["adapter", "fused", "gguf"]),
    default="adapter",
    show_default=True,
    help="The adapter alone, or base and adapter merged: as an MLX folder, or as one GGUF file.",
)
@click.option("--upload", "really", is_flag=True, help="Upload it; without this, only show it.")
@click.option("--public", is_flag=True, help="All may read it; private otherwise.")
@click.option("--accept-findings", is_flag=True, help="Though rows that RUN learned hold private data, or are gone.")
@click.option("--accept-loss", is_flag=True, help="Though merging loses too much of the tuning.")
@click.option("--base-model", metavar="ORG/NAME", help="The base on the hub, if the run's is a folder here.")
@click.option(
    "--base-license", metavar="ID", help="The base's licence, if its card does not say it; such as apache-2.0."
)
@click.option("--force", is_flag=True, help="Add a commit to a repository that has files already.")
@scan_options
@output_options
def command(
    *,
    run: str,
    repo: str,
    what: str,
    really: bool,
    public: bool,
    accept_findings: bool,
    accept_loss: bool,
    base_model: str | None,
    base_license: str | None,
    force: bool,
    regions: str | None,
    terms: Path | None,
    output: Output,
) -> None:
    """Show what RUN would be as the repository REPO on the hub: files and model card; with --upload, put it there.

    Refused where rows that RUN learned, or a run that it started from, hold private data, and where its base's licence
    forbids it. The token is that of HF_TOKEN, or of the hub's own login.
    """
    from mlxtune.deployment.export.hub import export_hub

    report = export_hub(
        run,
        repo,
        what=what,  # pyright: ignore[reportArgumentType] - click has checked it
        public=public,
        really=really,
        accept_findings=accept_findings,
        accept_loss=accept_loss,
        base_model=base_model,
        base_license=base_license,
        device=output.device,
        force=force,
        progress=output.progress,
        **scan_settings(regions, terms),
    )
    output.show({**asdict(report), "bytes": report.bytes}, describe(report))
    for note in report.notes:
        output.note(f"note: {note}")
    if report.uploaded is None:
        output.note("nothing was uploaded: add --upload for that")


def describe(report: "HubReport") -> str:
    """What a person reads."""
    who = "private" if report.private else "public"
    files = [f"  {file.bytes / 1e6:9.2f} MB  {printable(file.name)}" for file in report.files]
    if report.uploaded is not None:
        head = f"uploaded {report.what} to {report.uploaded.page} ({who}), commit {report.uploaded.commit[:12]}"
        return "\n".join([head, *files])
    head = f"would upload {report.what} to {report.repo} ({who}), {report.bytes / 1e6:.2f} MB:"
    return "\n".join([head, *files, "", "README.md:", *(f"  {line}" for line in report.card.splitlines())])
