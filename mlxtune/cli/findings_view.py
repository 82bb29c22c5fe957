"""What is to be looked at after a run, as a person reads it: a line a finding, and below it the way out."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlxtune.printable import printable

if TYPE_CHECKING:
    from rich.text import Text

STYLES = {"problem": "bold red", "hint": "yellow"}


def findings_text(findings: Sequence[Mapping[str, Any]]) -> "Text":
    """Findings, as findings.json has them; empty where there are none."""
    from rich.text import Text

    text = Text()
    for finding in findings:
        severity = str(finding["severity"])
        text.append(f"{severity:8} ", style=STYLES.get(severity, ""))
        text.append(f"{printable(str(finding['sentence']))}\n")
        way_out = f"{finding['key']}: {finding['remedy']}" if finding.get("key") else str(finding["remedy"])
        text.append(f"         {printable(way_out)}\n", style="dim")
    text.rstrip()
    return text
