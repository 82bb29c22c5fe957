"""``mlxtune doctor``: what the machine is like, and what to do where it is not well."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from mlxtune.cli.output import Output, output_options

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mlxtune.device.doctor import Finding

STYLES = {"ok": "green", "warn": "yellow", "bad": "bold red"}


@click.command()
@click.option("--network", is_flag=True, help="Also ask whether the hub answers; sends no token, fetches nothing.")
@output_options
@click.pass_context
def command(context: click.Context, network: bool, output: Output) -> None:
    """Check this machine: versions, device, memory, BLAS, battery and heat, and how fast it multiplies.

    With --json also what the machine said of battery, heat and memory, word for word but for serial numbers: to be sent
    in. Exit code 1 if something is bad; warnings leave it 0.
    """
    from mlxtune.device.doctor import examine, is_well, judge_hub  # here, so that --help never loads it
    from mlxtune.device.power import read_power

    power = read_power()
    findings = examine(output.device, power)
    if network:
        from mlxtune.network import why_no_hub

        address, answer = why_no_hub()
        findings.append(judge_hub(answer, address=address))
    well = is_well(findings)
    found = {"ok": well, "findings": [asdict(finding) for finding in findings], "readings": power.to_json()}
    output.show(found, _table(findings))
    context.exit(0 if well else 1)


def _table(findings: Sequence["Finding"]) -> "RenderableType":
    """A row a finding; under its reason, where it is not well, the remedy."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in findings:
        style = STYLES[finding.status]
        why = Text(finding.reason, style="dim" if finding.status == "ok" else "")
        if finding.remedy is not None:
            why.append("\nhint: ", style="cyan")
            why.append(finding.remedy)
        table.add_row(Text(finding.status, style=style), finding.name, finding.value, why)
    return table
