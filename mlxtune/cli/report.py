"""``mlxtune report``: the one page about a run, made from what its folder holds."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlxtune.cli.output import Output, output_options

if TYPE_CHECKING:
    from mlxtune.iteration.report.page import Report


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--open", "opens", is_flag=True, help="Show it in your browser.")
@output_options
def command(run: Path, opens: bool, output: Output) -> None:
    """Write RUN/report.html: the verdict in one sentence, before and after with intervals, curves, answers side by
    side, the data, what it cost, and how to make it again.

    One file without scripts, which needs no network. What was not measured is said, with the command for it.
    """
    from mlxtune.iteration.reporting import report_run

    report = report_run(run, progress=output.progress)
    output.show({"path": report.path, "verdict": report.verdict.sentence, "tone": report.verdict.tone}, _told(report))
    if opens and not open_page(report.path):
        output.note(f"no browser could be started; open {report.path.absolute()}")


def _told(report: "Report") -> str:
    from mlxtune.printable import printable

    lines = [report.verdict.sentence, *(f"  {one}" for one in report.verdict.reservations), f"report: {report.path}"]
    return "\n".join(printable(line) for line in lines)


def open_page(path: Path) -> bool:
    """Whether a browser was asked to show a file."""
    import webbrowser

    return webbrowser.open(path.absolute().as_uri())
